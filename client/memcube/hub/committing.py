"""Commits and tags past the library, which takes half a second to load: where all is plain.

Plain is a commit of small files, whose bytes it carries, and of files that lie in LFS already. Whatever the Hub
wants otherwise is left to the library, of which there is one implementation of everything but this.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from memcube_protocol import canonical_json
from memcube_protocol.digest import Digest
from memcube_protocol.errors import MemcubeError, NetworkError, UnavailableError
from memcube_protocol.values import frozen

from memcube.http import HttpClient
from memcube.hub import lfs, posting
from memcube.hub.additions import SAMPLE_BYTES, Addition
from memcube.hub.layout import is_commit
from memcube.hub.reading import MAIN
from memcube.hub.site import Site

_AT_ONCE: Final = 256
_REFUSED: Final = (400, 401, 403, 404, 409, 412, 413, 429)
"""Answers that say for certain that nothing was committed: the library asks again, and says why."""


@frozen
class Told:
    """How the Hub wants a file: in LFS or in the commit; and the id of what lies at its path now."""

    in_lfs: bool
    present: str | None


class Committer:
    """Commits and tags on one Hub, where that is plain; else the library is to do it."""

    def __init__(self, site: Site, http: HttpClient) -> None:
        self._site = site
        self._http = http

    def ask(self, name: str, additions: Sequence[Addition]) -> dict[str, Told] | None:
        """How the Hub wants `additions`, by path; None where the library is to ask."""
        told: dict[str, Told] = {}
        for at in range(0, len(additions), _AT_ONCE):
            files = [
                {
                    "path": one.path,
                    "sample": b64encode(one.start(SAMPLE_BYTES)).decode(),
                    "size": one.size,
                }
                for one in additions[at : at + _AT_ONCE]
            ]
            # A .gitignore there must not keep a part of the cube away.
            wanted = {"files": files, "gitIgnore": ""}
            try:
                answer = self._post(name, f"preupload/{MAIN}", wanted)
            except MemcubeError:
                return None
            told |= _told(answer)
        return told if told.keys() == {one.path for one in additions} else None

    def commit(
        self,
        name: str,
        additions: Sequence[Addition],
        deleted: Sequence[str],
        parent: str,
        title: str,
        *,
        held: Container[Digest],
    ) -> str | None:
        """One commit on `main` behind `parent`, its full name; None where the library is to make it.

        `held` are the contents that the Hub has in LFS.

        Raises:
            NetworkError, UnavailableError: whether there is such a commit now is not known.
        """
        told = self.ask(name, additions)
        if told is None:
            return None
        if not all(_is_plain(one, told[one.path], held) for one in additions):
            return None
        changes = [*_removals(deleted), *_changes(additions, told)]
        if not changes:
            return None
        header = {"summary": title, "description": "", "parentCommit": parent}
        lines = [{"key": "header", "value": header}, *changes]
        body = b"".join(canonical_json.dump(line) + b"\n" for line in lines)
        made = self._committed(name, body)
        return made if isinstance(made, str) and is_commit(made) else None

    def _committed(self, name: str, body: bytes) -> Any:
        """What the Hub calls the commit that it made of `body`, if it made one."""
        try:
            answer = posting.post(
                self._site,
                self._http,
                f"{self._site.api(name)}/commit/{MAIN}",
                body,
                media_type="application/x-ndjson",
                answered="application/json",
                accepted=(*posting.DONE, *_REFUSED),
                repeatable=False,
                patience_s=posting.PATIENCE_S,
            )
        except (NetworkError, UnavailableError):
            raise
        except MemcubeError:
            return None
        return answer.get("commitOid")

    def add_tag(self, name: str, tag: str, commit: str) -> bool:
        """Make the new tag `tag` lead to `commit`; False where the library is to do it."""
        try:
            self._post(name, f"tag/{quote(commit, safe='')}", {"tag": tag})
        except MemcubeError:
            return False
        return True

    def _post(self, name: str, verb: str, value: Mapping[str, Any]) -> dict[str, Any]:
        url = f"{self._site.api(name)}/{verb}"
        return posting.post(self._site, self._http, url, value)


def _told(answer: Mapping[str, Any]) -> dict[str, Told]:
    """What an answer says of files, by path; nothing of those for which it is not understood."""
    listed = answer.get("files")
    told: dict[str, Told] = {}
    for one in listed if isinstance(listed, list) else ():
        if not isinstance(one, dict) or one.get("shouldIgnore"):
            continue
        path, mode, present = one.get("path"), one.get("uploadMode"), one.get("oid")
        if isinstance(path, str) and mode in ("regular", "lfs"):
            told[path] = Told(mode == "lfs", present if isinstance(present, str) else None)
    return told


def _is_plain(addition: Addition, how: Told, held: Container[Digest]) -> bool:
    """Whether a file goes into the commit as bytes, or lies in LFS already."""
    if not how.in_lfs or not addition.size:
        return addition.size < lfs.LARGE_BYTES
    return addition.digest in held or how.present == addition.digest.hex


def _removals(deleted: Sequence[str]) -> Iterator[dict[str, Any]]:
    for path in deleted:
        yield {"key": "deletedFile", "value": {"path": path}}


def _changes(additions: Sequence[Addition], told: Mapping[str, Told]) -> Iterator[dict[str, Any]]:
    """The lines of a commit that name `additions`, but for what lies at its path already."""
    for one in additions:
        how = told[one.path]
        if how.in_lfs and one.size:
            value: dict[str, Any] = {"algo": "sha256", "oid": one.digest.hex, "size": one.size}
            if how.present != one.digest.hex:
                yield {"key": "lfsFile", "value": {"path": one.path, **value}}
            continue
        content = one.start(one.size)
        if how.present != _git_id(content):
            value = {"content": b64encode(content).decode(), "encoding": "base64"}
            yield {"key": "file", "value": {"path": one.path, **value}}


def _git_id(content: bytes) -> str:
    """What git calls a file with `content`."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
