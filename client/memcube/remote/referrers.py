"""What refers to a manifest: the referrers API, or the referrers tag schema where a registry lacks it.

The schema (distribution specification, "Referrers Tag Schema") is an index under the tag
`algorithm-hex` of the subject that every client reads, extends and writes back. No registry lets a
client do that in one step, so that of two clients the one that writes last may drop what the other
has just entered. Each of ours therefore reads again what it wrote, enters anew what is missing, its
own entry or another that it saw, and looks once more when it moves a tag to the subject. What this
cannot rule out: that a slower client overwrites an entry after the last look. It was told `201` then;
entering it again (`memcube cp`, `memcube attest`) mends the list.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable
from typing import Final
from urllib.parse import urlencode, urljoin

from memcube_protocol import limits, media_types, oci
from memcube_protocol.digest import Digest
from memcube_protocol.errors import ConflictError, NotFoundError

from memcube.http import Request
from memcube.remote.connection import LIST_BYTES, PAGES, Connection, next_page, scope_of

_WRITES: Final = 8
_LOOKS: Final = 3
_FIRST_WAIT_S: Final = 0.05
_ABSENT: Final = (400, 404, 405, 501)
_FALLBACK: Final = re.compile(r"sha(?:256|512)-[0-9a-f]{64}")

Read = Callable[[str, str], oci.Manifest | oci.Index]
"""The manifest or index in a repository under a tag or digest."""
Write = Callable[[str, oci.Index, str], object]
"""Puts an index into a repository under a tag."""
Look = Callable[[str, str], oci.Descriptor | None]
"""What is in a repository under a tag or digest."""
Entries = dict[Digest, oci.Descriptor]


class Referrers:
    """The lists of referrers of one registry, whichever way it keeps them."""

    def __init__(self, connection: Connection, read: Read, write: Write, look: Look) -> None:
        self._connection = connection
        self._read = read
        self._write = write
        self._look = look
        self._lock = threading.Lock()
        self._entered: dict[tuple[str, Digest], Entries] = {}

    def of(self, name: str, subject: Digest, artifact_type: str | None) -> list[oci.Descriptor]:
        """Manifests in `name` that refer to `subject`; of one type if it is given."""
        query = f"?{urlencode({'artifactType': artifact_type})}" if artifact_type else ""
        url: str | None = self._connection.url(name, f"referrers/{subject}{query}")
        found: list[oci.Descriptor] = []
        size = 0
        for _ in range(PAGES):
            if url is None:
                break
            request = Request("GET", url, scopes=frozenset({scope_of(name, "pull")}))
            with self._connection.send(request, 200, *_ABSENT) as response:
                # Some registries answer unknown paths with a page for people.
                page = response.headers.get("content-type", "").startswith("text/")
                if response.status != 200 or page:
                    found = list(self.tagged(name, subject))
                    break
                content = response.content(limits.MANIFEST_BYTES)
                size += len(content)
                limits.require_at_most(f"list of referrers of {name}", size, LIST_BYTES)
                found += _entries(content)
                following = next_page(response)
            url = self._connection.same_origin(urljoin(url, following)) if following else None
        return [entry for entry in found if artifact_type in (None, entry.artifact_type)]

    def tagged(self, name: str, subject: Digest) -> tuple[oci.Descriptor, ...]:
        """What the index under the fallback tag of `subject` lists."""
        try:
            index = self._read(name, fallback_tag(subject))
        except NotFoundError:
            return ()
        return index.manifests if isinstance(index, oci.Index) else ()

    def enter(self, name: str, subject: Digest, manifest: oci.Manifest | oci.Index) -> None:
        """List `manifest` under the fallback tag of `subject`.

        Raises:
            ConflictError: other clients overwrote the index again and again.
        """
        own = _entry_of(manifest)
        with self._lock:
            wanted = self._entered.setdefault((name, subject), {})
            wanted[own.digest] = own
            self._ensure(name, subject, wanted)

    def settle(self, name: str, subject: Digest) -> None:
        """Look whether what was entered for `subject` is still listed, and enter it anew if not.

        Raises:
            ConflictError: as `enter`.
        """
        with self._lock:
            wanted = self._entered.pop((name, subject), None)
            if wanted:
                self._ensure(name, subject, wanted)

    def _ensure(self, name: str, subject: Digest, wanted: Entries) -> None:
        """Read, extend and write the index until it holds `wanted` and all that was seen on the way.

        Where others are seen to write meanwhile, it is looked at once more after a moment: one of them may
        have read it before our last write, and be about to overwrite that.
        """
        seen, written = dict(wanted), Entries()
        retry = self._connection.http.retry
        writes, looks, company = 0, 0, False
        while True:
            listed = {one.digest: one for one in self.tagged(name, subject)}
            company |= bool(written) and listed.keys() != written.keys()
            seen = {**listed, **seen}
            if seen.keys() <= listed.keys():
                if not company or looks == _LOOKS:
                    return
                looks, company, written = looks + 1, False, listed
            elif writes == _WRITES:
                break
            else:
                written, writes = self._extend(name, subject, seen), writes + 1
                seen = dict(written)
            if company or writes > 1:
                retry.sleep(_FIRST_WAIT_S * 2 ** min(writes, _WRITES) * retry.jitter())
        raise ConflictError(
            f"other clients overwrite the list of what refers to {subject} in {name}",
            hint="run the command again when they are done: nothing else is missing",
        )

    def _extend(self, name: str, subject: Digest, entries: Entries) -> Entries:
        """Write `entries` as the index; where the registry misses some, the others. Says which."""
        tag = fallback_tag(subject)
        try:
            self._write(name, oci.write_index(tuple(entries.values())), tag)
        except NotFoundError:
            held = {one: entries[one] for one in entries if self._look(name, str(one))}
            self._write(name, oci.write_index(tuple(held.values())), tag)
            return held
        return entries

    def leave(self, name: str, subject: Digest, referrer: Digest) -> None:
        """Take `referrer`, which was deleted, off the list under the fallback tag of `subject`."""
        with self._lock:
            self._entered.get((name, subject), {}).pop(referrer, None)
        listed = self.tagged(name, subject)
        left = tuple(one for one in listed if one.digest != referrer)
        if len(left) < len(listed):
            self._write(name, oci.write_index(left), fallback_tag(subject))


def fallback_tag(subject: Digest) -> str:
    """Tag of the fallback index: `algorithm-hex`, cut to what a tag may be."""
    return f"{subject.algorithm[:32]}-{subject.hex[:64]}"


def is_fallback_tag(tag: str) -> bool:
    """Whether `tag` has the form of one: a list of referrers, and no version of a cube."""
    return _FALLBACK.fullmatch(tag) is not None


def _entry_of(manifest: oci.Manifest | oci.Index) -> oci.Descriptor:
    own = manifest.descriptor()
    return oci.Descriptor(
        own.media_type,
        own.digest,
        own.size,
        manifest.annotations,
        manifest.effective_artifact_type,
    )


def _entries(raw: bytes) -> Iterable[oci.Descriptor]:
    index = oci.parse(raw, media_types.OCI_INDEX)
    return index.manifests if isinstance(index, oci.Index) else ()
