"""A cube in a folder on its way to where no network is: an OCI image layout, as oras and skopeo write it.

    oci-layout  index.json  blobs/sha256/…

`index.json` lists every manifest, those with a tag by `org.opencontainers.image.ref.name`; what refers to
a manifest is found by its `subject`. One process writes a layout at a time. Whatever lies in it is
believed as little as what a registry sends: bytes are hashed, links are not followed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, Self

from memcube_protocol import canonical_json, limits, oci
from memcube_protocol.content import Expected, stream_verified
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    ConflictError,
    DigestMismatchError,
    InvalidReferenceError,
    NotFoundError,
    StorageError,
)
from memcube_protocol.oci import Descriptor
from memcube_protocol.reference import is_immutable_tag, is_tag
from memcube_protocol.values import frozen

from memcube.closing import Closing
from memcube.http import HttpClient
from memcube.store import Store
from memcube.store.files import (
    PIECE_BYTES,
    open_file,
    read_file,
    replacing,
    storage_errors,
    write_all,
)
from memcube.transfer import Moved, Outcome, Progress

SCHEME: Final = "oci:"
NAME: Final = "cube"
"""The name of the one repository that a layout is."""
_TAG: Final = "org.opencontainers.image.ref.name"
_INDEX_BYTES: Final = 64 * limits.MIB
_MANIFESTS: Final = 10_000


@frozen
class LayoutPlace:
    """`oci:FOLDER[:TAG]`, as skopeo and oras write it.

    Raises:
        InvalidReferenceError: another form.
    """

    folder: Path
    tag: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """The place that `text` names. What follows the last colon is a tag if it can be one."""
        rest = text.removeprefix(SCHEME)
        folder, colon, tag = rest.rpartition(":")
        if not colon or not is_tag(tag):
            folder, tag = rest, ""
        if rest == text or not folder:
            raise InvalidReferenceError(
                f"{text[:100]!r} names no folder", hint="write oci:FOLDER or oci:FOLDER:TAG"
            )
        return cls(Path(folder), tag or None)

    def __str__(self) -> str:
        return f"{SCHEME}{self.folder}{f':{self.tag}' if self.tag else ''}"


class OpenFile(Closing):
    """Bytes of a file, still to be read; see `interface.Opened`."""

    def __init__(self, descriptor: int, start: int, stop: int) -> None:
        self._descriptor = descriptor
        self._start, self._stop = start, stop
        self.status = 206 if start else 200
        self.length: int | None = stop - start

    def pieces(self) -> Iterator[bytes]:
        """The bytes, at most 512 KiB a piece."""
        at = self._start
        while at < self._stop:
            with storage_errors("a blob of the layout cannot be read"):
                piece = os.pread(self._descriptor, min(PIECE_BYTES, self._stop - at), at)
            if not piece:
                return
            yield piece
            at += len(piece)

    def content(self, limit: int) -> bytes:
        """All of them.

        Raises:
            LimitExceededError: more than `limit` bytes.
        """
        limits.require_at_most("blob", self._stop - self._start, limit)
        return b"".join(self.pieces())

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


class OciLayout:
    """The layout in `folder`: a `remote.interface.Remote` that holds one repository, `NAME`."""

    publishes_at_once = False

    def __init__(self, folder: Path, http: HttpClient) -> None:
        self.folder = folder
        self.host = f"{SCHEME}{folder}"
        self.http = http

    def blob_size(self, name: str, digest: Digest) -> int | None:  # noqa: ARG002
        """See `Content.blob_size`."""
        try:
            return self._path(digest).lstat().st_size
        except OSError:
            return None

    def open_blob(
        self,
        name: str,  # noqa: ARG002
        digest: Digest,
        *,
        start: int = 0,
        stop: int | None = None,
    ) -> OpenFile:
        """See `Content.open_blob`."""
        with storage_errors(f"blob {digest} cannot be read"):
            try:
                descriptor = open_file(self._path(digest))
            except FileNotFoundError:
                raise self._absent(str(digest)) from None
            end = os.fstat(descriptor).st_size
        return OpenFile(descriptor, start, end if stop is None else min(stop, end))

    def read_blob(self, name: str, blob: Descriptor, limit: int = limits.MANIFEST_BYTES) -> bytes:
        """See `Content.read_blob`."""
        limits.require_at_most(f"blob {blob.digest}", blob.size, limit)
        with self.open_blob(name, blob.digest) as opened:
            return b"".join(stream_verified(opened.pieces(), Expected(blob.digest, blob.size)))

    def manifest_descriptor(self, name: str, target: str) -> Descriptor | None:
        """See `Names.manifest_descriptor`."""
        try:
            return self.manifest(name, target).descriptor()
        except NotFoundError:
            return None

    def manifest(self, name: str, target: str) -> oci.Manifest | oci.Index:
        """See `Names.manifest`."""
        if name != NAME:
            raise self._absent(name)
        digest = self._digest_of(target)
        with self.open_blob(name, digest) as opened:
            raw = opened.content(limits.MANIFEST_BYTES)
        if Digest.of(raw, digest.algorithm) != digest:
            raise DigestMismatchError(
                f"{self.host} holds other content than {digest} under that name",
                hint="copy the layout again: it is damaged",
            )
        return oci.parse(raw)

    def tags(self, name: str) -> Iterable[str]:  # noqa: ARG002
        """See `Names.tags`."""
        tags = {entry.annotations.get(_TAG, "") for entry in self._entries()}
        return sorted(tag for tag in tags if is_tag(tag))

    def referrers(
        self, name: str, subject: Digest, artifact_type: str | None = None
    ) -> list[Descriptor]:
        """See `Names.referrers`."""
        found: dict[Digest, Descriptor] = {}
        for digest in dict.fromkeys(entry.digest for entry in self._entries()):
            manifest = self.manifest(name, str(digest))
            if manifest.subject and manifest.subject.digest == subject:
                kind = manifest.effective_artifact_type
                found[digest] = Descriptor(
                    manifest.media_type, digest, len(manifest.raw), manifest.annotations, kind
                )
        return [one for one in found.values() if artifact_type in (None, one.artifact_type)]

    def receive(self, blob: Descriptor, pieces: Iterable[bytes]) -> bool:
        """See `transfer.together.Receives`.

        Raises:
            DiskFullError, StorageError: it cannot be written.
        """
        expected = Expected(blob.digest, blob.size)
        return self._write(self._path(blob.digest), stream_verified(pieces, expected))

    def take(
        self,
        name: str,  # noqa: ARG002
        blobs: Iterable[Descriptor],
        store: Store,
        progress: Progress,  # noqa: ARG002
    ) -> Iterable[Moved]:
        """See `transfer.together.TakesTogether`."""
        for blob in blobs:
            needed = self.receive(blob, store.read(blob.digest))
            yield Moved(blob, Outcome.SENT if needed else Outcome.PRESENT, blob.size * needed)

    def put_manifest(
        self,
        name: str,  # noqa: ARG002
        manifest: oci.Manifest | oci.Index,
        target: str | None = None,
    ) -> Digest:
        """See `Publisher.put_manifest`."""
        self._write(self._path(manifest.digest), [manifest.raw])
        tag = target if target and is_tag(target) else None
        entries = list(self._entries())
        if tag and is_immutable_tag(tag) and self._tagged(tag) not in (None, manifest.digest):
            raise ConflictError(
                f"{self.host} holds another cube as {tag}", hint="write to another folder"
            )
        kept = [one for one in entries if not tag or one.annotations.get(_TAG) != tag]
        if tag or manifest.digest not in {one.digest for one in kept}:
            own, kind = manifest.descriptor(), manifest.effective_artifact_type
            named = {_TAG: tag} if tag else {}
            bare = [one for one in kept if one.digest != own.digest or one.annotations.get(_TAG)]
            kept = [*bare, Descriptor(own.media_type, own.digest, own.size, named, kind)]
        if kept != entries:
            self._write(self.folder / "index.json", [oci.write_index(kept).raw], anew=True)
        return manifest.digest

    def put_tags(self, name: str, manifest: oci.Manifest | oci.Index, tags: Sequence[str]) -> None:
        """See `Publisher.put_tags`."""
        for tag in tags:
            self.put_manifest(name, manifest, tag)

    def _digest_of(self, target: str) -> Digest:
        if not is_tag(target):
            return Digest.parse(target)
        found = self._tagged(target)
        if found is None:
            raise self._absent(target)
        return found

    def _tagged(self, tag: str) -> Digest | None:
        found = {one.digest for one in self._entries() if one.annotations.get(_TAG) == tag}
        if len(found) > 1:
            raise ConflictError(
                f"{self.host} has several manifests called {tag}", hint="name one by its version"
            )
        return next(iter(found), None)

    def _entries(self) -> tuple[Descriptor, ...]:
        """The manifests that the layout lists; none where there is no layout yet."""
        raw = read_file(self.folder / "index.json", _INDEX_BYTES)
        if raw is None:
            return ()
        index = oci.parse(raw)
        if not isinstance(index, oci.Index):
            raise StorageError(f"{self.host} is no OCI layout", hint="name another folder")
        limits.require_at_most(self.host, len(index.manifests), _MANIFESTS, unit="manifests")
        return index.manifests

    def _path(self, digest: Digest) -> Path:
        return self.folder / "blobs" / digest.algorithm / digest.hex

    def _write(self, path: Path, pieces: Iterable[bytes], *, anew: bool = False) -> bool:
        """Put what `pieces` yield at `path` once all of it is there; what is there already stays."""
        if path.exists() and not anew:
            return False
        with storage_errors(f"{path} cannot be written"):
            self._prepare(path.parent)
            with replacing(path, 0o666) as descriptor:
                for piece in pieces:
                    write_all(descriptor, piece)
        return True

    def _prepare(self, inner: Path) -> None:
        """Make the folder `inner`, and the mark of a layout.

        Raises:
            StorageError: a link stands there, which would lead what is written out of the layout.
        """
        marker = self.folder / "oci-layout"
        for place in (marker, self.folder / "blobs", inner):
            if place != self.folder and place.is_symlink():
                raise StorageError(
                    f"{place} is a link, and none is followed", hint="write to another folder"
                )
        inner.mkdir(parents=True, exist_ok=True)
        if not marker.exists():
            marker.write_bytes(canonical_json.dump({"imageLayoutVersion": "1.0.0"}))

    def _absent(self, what: str) -> NotFoundError:
        return NotFoundError(
            f"{self.host} holds no {what}",
            hint=f"it holds: {', '.join(self.tags('')) or 'nothing'}",
        )
