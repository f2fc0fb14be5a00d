"""Blobs of a backup by digest, each written whole or not at all, and checked as it is written."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from memcube_protocol.digest import Digest
from memcube_protocol.errors import DigestMismatchError

from memcube_registry.storage.interface import Pieces
from memcube_registry.storage.local import FilePieces, sync_folder, translated


class Pool:
    """Blobs below `folder`. As a `Reader`, it takes digests for locations."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._incoming = folder / "incoming"

    def prepare(self) -> None:
        """Make the folders, and remove what a run that was killed left half written."""
        with translated("the backup"):
            self._incoming.mkdir(parents=True, exist_ok=True)
            for left in self._incoming.iterdir():
                left.unlink()

    def has(self, digest: str, size_bytes: int) -> bool:
        """Whether it holds the blob, with that many bytes."""
        try:
            return self.path(digest).stat().st_size == size_bytes
        except FileNotFoundError:
            return False

    def add(self, digest: str, pieces: Iterable[bytes]) -> int:
        """Keep a blob, durable on return; how many bytes it has.

        Raises:
            DigestMismatchError: the bytes are other ones.
            DiskFullError, ReadOnlyError, StorageError: they cannot be kept.
        """
        expected, draft = Digest.parse(digest), self._incoming / secrets.token_hex(16)
        target = self.path(digest)
        with translated("the backup"):
            try:
                size = _write(draft, pieces, expected)
                target.parent.mkdir(parents=True, exist_ok=True)
                draft.rename(target)
            finally:
                draft.unlink(missing_ok=True)
            sync_folder(target.parent)
        return size

    def read(self, location: str, *, start: int = 0, stop: int | None = None) -> Pieces:
        """See `Reader.read`."""
        with translated(f"blob {location}"):
            handle = os.open(self.path(location), os.O_RDONLY | os.O_CLOEXEC)
        return FilePieces(handle, start, stop)

    def digests(self) -> Iterable[str]:
        """Every blob that it holds."""
        for path in self._folder.glob("*/??/*"):
            yield f"{path.parts[-3]}:{path.name}"

    def remove(self, digest: str) -> None:
        """Forget a blob."""
        self.path(digest).unlink(missing_ok=True)

    def path(self, digest: str) -> Path:
        """Where the blob lies."""
        parsed = Digest.parse(digest)
        return self._folder / parsed.algorithm / parsed.hex[:2] / parsed.hex


def _write(draft: Path, pieces: Iterable[bytes], expected: Digest) -> int:
    hasher, size = expected.hasher(), 0
    # Private from the first byte on: the folder may be one that others can look into.
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as file:
        for piece in pieces:
            hasher.update(piece)
            size += file.write(piece)
        file.flush()
        os.fchmod(file.fileno(), 0o400)
        os.fsync(file.fileno())
    if Digest.finish(expected.algorithm, hasher) != expected:
        raise DigestMismatchError(
            f"the store holds other bytes for blob {expected}",
            hint="`memcube-registry fsck --all` lists what is damaged: push it again, or delete what needs it",
        )
    return size
