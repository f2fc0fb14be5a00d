"""Files into the Hub's LFS storage, past the library: the kernel sends them, in one request each.

The library sends through Python, 64 KiB at a time, which costs most of the time of a large upload. What is
sent here it finds there already; whatever is not, because the Hub wants it otherwise or a line broke, it
sends itself, and says what is wrong.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
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

Told = Mapping[str, Mapping[str, Any]]
"""What the Hub says of files, by their SHA-256."""


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


class _Round:
    """Files of one repository that are asked about together, and what the Hub says of them, by SHA-256."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.sizes: dict[Digest, int] = {}
        self.told: Told | None = None

    def has_room(self, name: str) -> bool:
        """Whether one more file, of the repository `name`, can be asked about with these."""
        return self.name == name and len(self.sizes) < _AT_ONCE


class _Questions:
    """Asks the Hub about files, one request at a time, each for all that are known to be wanted by then."""

    def __init__(self, ask: Callable[[str, Mapping[Digest, int]], Told]) -> None:
        self._ask = ask
        self._asking = threading.Lock()
        self._gathering = threading.Lock()
        self._next = _Round("")
        self._rounds: dict[tuple[str, Digest], _Round] = {}

    def expect(self, name: str, digest: Digest, size: int) -> None:
        """Ask about this file of the repository `name` together with the next one that is asked about."""
        with self._gathering:
            if (name, digest) not in self._rounds:
                self._rounds[name, digest] = self._joined(name, digest, size)

    def told(self, name: str, digest: Digest, size: int) -> Mapping[str, Any] | None:
        """What the Hub says of this file of the repository `name`, once for each time that it was expected."""
        with self._gathering:
            expected = self._rounds.pop((name, digest), None)
            own = expected or self._joined(name, digest, size)
        with self._asking:
            if own.told is None:  # else another of its files was asked about first
                with self._gathering:
                    if self._next is own:
                        self._next = _Round("")
                own.told = self._ask(name, own.sizes)
        return own.told.get(digest.hex)

    def _joined(self, name: str, digest: Digest, size: int) -> _Round:
        """The next round, with this file."""
        if not self._next.has_room(name):
            self._next = _Round(name)
        self._next.sizes[digest] = size
        return self._next


class LfsSender:
    """Sends large files to the storage of one Hub, `threads` at a time."""

    def __init__(self, site: Site, http: HttpClient, *, threads: int) -> None:
        self._site = site
        self._http = http
        self._threads = threads
        self._origin = Origin.of(site.endpoint.url)
        self._questions = _Questions(self._ask)

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
            held += self._send(name, files[at : at + _AT_ONCE])
        return frozenset(held)

    def _send(self, name: str, files: Sequence[LargeFile]) -> Iterator[Digest]:
        """Those of `files` that the Hub has, and those that were sent whole."""
        for file in files:
            self.expect(name, file.digest, file.size)
        links: list[_Link] = []
        for file in files:
            told = self._questions.told(name, file.digest, file.size) or {}
            if _is_there(told):
                yield file.digest
            elif link := self._link(file, told):
                links.append(link)
        sent = run(self._put, links, self._threads)
        yield from (link.file.digest for link, whole in zip(links, sent, strict=True) if whole)

    def expect(self, name: str, digest: Digest, size: int) -> None:
        """A file will be sent to the repository `name`: its link may be asked for with those of others."""
        self._questions.expect(name, digest, size)

    def _ask(self, name: str, sizes: Mapping[Digest, int]) -> Told:
        """What the Hub says of files, given with their sizes; nothing where it does not answer."""
        wanted = {
            "operation": "upload",
            "transfers": ["basic", "multipart"],
            "objects": [{"oid": digest.hex, "size": size} for digest, size in sizes.items()],
            "hash_algo": "sha256",
        }
        try:
            answer = self._post(f"{self._site.page(name)}.git/info/lfs/objects/batch", wanted)
        except MemcubeError:
            return {}  # the library asks the same, and says what is wrong
        objects = _dicts(answer.get("objects"))
        return {one["oid"]: one for one in objects if isinstance(one.get("oid"), str)}

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


def _is_there(told: Mapping[str, Any]) -> bool:
    """Whether what was told of a file says that nothing is to be done for it."""
    return bool(told) and not told.get("actions") and not told.get("error")


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
