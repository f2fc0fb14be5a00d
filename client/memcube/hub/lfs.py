"""Files into the Hub's LFS storage, past the library: the kernel sends them, in one request each.

The library sends through Python, 64 KiB at a time, which costs most of the time of a large upload. What is
sent here it finds there already; whatever is not, because the Hub wants it otherwise or a line broke, it
sends itself, and says what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from memcube_protocol import limits
from memcube_protocol.digest import Digest
from memcube_protocol.errors import MemcubeError, UnsafeRedirectError
from memcube_protocol.values import frozen

from memcube.http import FileBody, HttpClient, Origin, Request
from memcube.hub.posting import post
from memcube.hub.site import Site
from memcube.transfer.workers import Stop, run

LARGE_BYTES: Final = 10 * limits.MIB + 1
"""From here on the Hub keeps every file in LFS, whatever its name."""
_AT_ONCE: Final = 100
_MEDIA_TYPE: Final = "application/vnd.git-lfs+json"


@frozen
class LargeFile:
    """A file of the store to send; `on_sent` hears of its bytes, of negative ones where they were in vain."""

    digest: Digest
    size: int
    path: Path
    on_sent: Callable[[int], None]


@frozen
class _Link:
    """Where to put a file, and where to tell that it is there."""

    file: LargeFile
    put: str
    verify: str | None

    @property
    def size(self) -> int:
        """See `workers.Sized`."""
        return self.file.size


class LfsSender:
    """Sends large files to the storage of one Hub, `threads` at a time."""

    def __init__(self, site: Site, http: HttpClient, *, threads: int) -> None:
        self._site = site
        self._http = http
        self._threads = threads
        self._origin = Origin.of(site.endpoint.url)

    def send(self, name: str, files: Sequence[LargeFile]) -> frozenset[Digest]:
        """Send to the repository `name` what the Hub lacks of `files`, wants in LFS and takes in one request each.

        Returns:
            Those that were sent whole, and those that the Hub says it has.

        Raises:
            UnsafeRedirectError: the Hub names an address to which it may not lead us.
        """
        if self._site.token is None:
            return frozenset()  # the library says what to do
        held: list[Digest] = []
        for at in range(0, len(files), _AT_ONCE):
            links, present = self._links(name, files[at : at + _AT_ONCE])
            sent = run(self._put, links, self._threads)
            held += present
            held += [link.file.digest for link, whole in zip(links, sent, strict=True) if whole]
        return frozenset(held)

    def _links(self, name: str, files: Sequence[LargeFile]) -> tuple[list[_Link], list[Digest]]:
        """Where to put those of `files` that the Hub lacks and takes whole; and those that it has.

        Raises:
            UnsafeRedirectError: see `send`.
        """
        wanted = {
            "operation": "upload",
            "transfers": ["basic", "multipart"],
            "objects": [{"oid": file.digest.hex, "size": file.size} for file in files],
            "hash_algo": "sha256",
        }
        try:
            answer = self._post(f"{self._site.page(name)}.git/info/lfs/objects/batch", wanted)
        except MemcubeError:
            return [], []  # the library asks the same, and says what is wrong
        objects = _dicts(answer.get("objects"))
        told = {one["oid"]: one for one in objects if isinstance(one.get("oid"), str)}
        links = [self._link(file, told.get(file.digest.hex, {})) for file in files]
        present = [file.digest for file in files if _is_there(told.get(file.digest.hex))]
        return [link for link in links if link is not None], present

    def _link(self, file: LargeFile, told: Mapping[str, Any]) -> _Link | None:
        """What was told of `file`; None where it is there, comes in parts, or is not told as we know it."""
        actions = told.get("actions")
        if not isinstance(actions, dict) or not isinstance(actions.get("upload"), dict):
            return None
        put, verify = actions["upload"], actions.get("verify")
        if put.get("header") or not isinstance(put.get("href"), str):
            return None
        check = verify.get("href") if isinstance(verify, dict) else None
        if verify is not None and not (isinstance(check, str) and self._is_ours(check)):
            return None
        url, _ = self._http.lead(self._origin, self._site.endpoint.url, put["href"])
        return _Link(file, url, check)

    def _is_ours(self, url: str) -> bool:
        """Whether `url` is at the Hub itself, which the token may go to."""
        try:
            return Origin.of(url) == self._origin
        except MemcubeError:
            return False

    def _put(self, link: _Link, stop: Stop) -> bool:
        """Send one file, and say whether that went well; where not, the library tries again."""
        file, sent = link.file, 0

        def note(size_bytes: int) -> None:
            nonlocal sent
            stop.check()
            sent += size_bytes
            file.on_sent(size_bytes)

        body = FileBody(file.path, 0, file.size, note)
        request = Request("PUT", link.put, {}, body, repeatable=False, led_from=self._origin)
        try:
            self._http.send(request, (200, 201, 204)).close()
            if link.verify is not None:
                self._post(link.verify, {"oid": file.digest.hex, "size": file.size})
            return True
        except UnsafeRedirectError:
            raise
        except MemcubeError:
            file.on_sent(-sent)
            return False

    def _post(self, url: str, value: Mapping[str, Any]) -> dict[str, Any]:
        return post(self._site, self._http, url, value, media_type=_MEDIA_TYPE)


def _is_there(told: Mapping[str, Any] | None) -> bool:
    """Whether what was told of a file says that nothing is to be done for it."""
    return told is not None and not told.get("actions") and not told.get("error")


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
