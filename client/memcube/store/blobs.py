"""Blobs of the local store: files named by their digest, verified before they are used."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from memcube_protocol.content import Expected
from memcube_protocol.digest import HEX_CHARS, Digest, new_hasher
from memcube_protocol.errors import IntegrityError, InvalidDigestError, NotFoundError

from memcube.store.files import (
    PIECE_BYTES,
    copy_hashed,
    make_folder,
    open_file,
    storage_errors,
    sync_folder,
    write_all,
)
from memcube.store.ingest import Ingest
from memcube.store.marks import Marks

_WAIT_S: Final = 600.0
_WRITABLE_BY_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH


class Blobs:
    """The blobs below one folder.

        blobs/<algorithm>/<first two digits>/<hex>      verified when they were written
        partial/<algorithm>-<hex>                       arriving
        marks/<algorithm>-<first two digits>            see `marks`

    `strict` hashes a blob each time it is asked for, whatever the marks say. Where marks end with the
    boot, writing does not wait for the disk: what a power cut damages is found before it is used.
    """

    def __init__(self, root: Path, *, strict: bool = False) -> None:
        self._folder = root / "blobs"
        self.partial = root / "partial"
        self._marks = Marks(root / "marks")
        self._strict = strict
        self._root = root

    def has(self, digest: Digest, size: int | None = None) -> bool:
        """Whether the right bytes of `digest` are here. Damaged ones are removed.

        Raises:
            StorageError: the file cannot be read, or damaged and not removed.
        """
        try:
            self.path(digest, size)
        except NotFoundError:
            return False
        except IntegrityError:
            self.remove(digest)
            return False
        return True

    def path(self, digest: Digest, size: int | None = None, *, strict: bool = False) -> Path:
        """File of `digest`, verified now or earlier: to be read or mapped, never changed.

        Raises:
            NotFoundError: the store holds no such blob.
            SizeMismatchError, DigestMismatchError: the file is damaged.
            StorageError: it cannot be read.
        """
        path = self._path(digest)
        descriptor = self._open(digest)
        try:
            looks = os.fstat(descriptor)
            trusted = _is_private(self._root) and not (strict or self._strict)
            wrong_size = size is not None and looks.st_size != size
            if wrong_size or not (trusted and self._marks.holds(digest, looks)):
                self._verify(descriptor, Expected(digest, size))
                self._marks.add(digest, os.fstat(descriptor))
        finally:
            os.close(descriptor)
        return path

    def read(self, digest: Digest, *, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """See `content.BlobReader.read`.

        Raises:
            NotFoundError: the store holds no such blob.
            StorageError: it cannot be read.
        """
        with os.fdopen(self._open(digest), "rb", buffering=0) as file:
            file.seek(start)
            left = PIECE_BYTES if stop is None else max(stop - start, 0)
            while left > 0:
                with storage_errors(f"blob {digest} cannot be read"):
                    piece = file.read(min(PIECE_BYTES, left))
                if not piece:
                    return
                yield piece
                left -= 0 if stop is None else len(piece)

    def held_bytes(self, digest: Digest) -> int:
        """Bytes of `digest` on the disk, unverified, of a download under way too: for planning."""
        for path in (self._path(digest), self._partial(Expected(digest))):
            try:
                return path.lstat().st_size
            except OSError:
                continue
        return 0

    def ingest(self, expected: Expected, *, wait_s: float = _WAIT_S) -> Ingest:
        """A writer for `expected` content, which goes on from what an earlier one left.

        Raises:
            ConflictError: another process has been writing the same blob for `wait_s` seconds.
            DiskFullError, ReadOnlyError, StorageError: it cannot be written.
        """
        return Ingest(self._partial(expected), expected, self._keep, wait_s=wait_s)

    def add(
        self, content: bytes | Iterable[bytes], algorithm: str = "sha256"
    ) -> tuple[Digest, int]:
        """Keep `content`, whole or in pieces, under the digest that it turns out to have.

        Returns:
            The digest and the size in bytes.

        Raises:
            DiskFullError, ReadOnlyError, StorageError: nothing was kept.
        """
        hasher, size = new_hasher(algorithm), 0
        with self._new() as (path, descriptor):
            for piece in (content,) if isinstance(content, bytes) else content:
                hasher.update(piece)
                write_all(descriptor, piece)
                size += len(piece)
            digest = Digest.finish(algorithm, hasher)
            self._keep(path, digest)
        return digest, size

    def add_copy(self, file: BinaryIO, algorithm: str = "sha256") -> tuple[Digest, int]:
        """Keep a copy of the regular `file`, from its first byte; see `add`.

        It shares the file's blocks where the file system can. The digest is that of the copy: whatever is
        written to the file meanwhile, what is kept is what was hashed.
        """
        with self._new() as (path, descriptor):
            hasher = new_hasher(algorithm)
            size = copy_hashed(file.fileno(), descriptor, hasher)
            digest = Digest.finish(algorithm, hasher)
            self._keep(path, digest)
        return digest, size

    @contextmanager
    def _new(self) -> Iterator[tuple[Path, int]]:
        """A file of a content whose digest is not known yet; removed where it was not kept."""
        path = make_folder(self.partial) / f"new-{secrets.token_hex(16)}"
        with storage_errors(f"{path} cannot be written"):
            descriptor = open_file(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
            try:
                yield path, descriptor
            except BaseException:
                path.unlink(missing_ok=True)
                raise
            finally:
                os.close(descriptor)

    def remove(self, digest: Digest) -> None:
        """Remove the blob, if it is there.

        Raises:
            ReadOnlyError, StorageError: it is still there.
        """
        path = self._path(digest)
        with storage_errors(f"{path} cannot be removed"):
            path.unlink(missing_ok=True)

    def make_old(self, digest: Digest) -> None:
        """Make the blob, if it is there, look as old as files can be: nobody is about to name it.

        Raises:
            ReadOnlyError, StorageError: the store cannot be written.
        """
        path = self._path(digest)
        with storage_errors(f"{path} cannot be changed"):
            if path.exists():
                os.utime(path, (0, 0))

    def __iter__(self) -> Iterator[tuple[Digest, os.stat_result]]:
        """Every blob with what its file looks like; names that are no digest are passed over."""
        for algorithm in HEX_CHARS:
            for path in (self._folder / algorithm).glob("??/*"):
                try:
                    yield Digest(algorithm, path.name), path.lstat()
                except (InvalidDigestError, FileNotFoundError):
                    continue

    def _keep(self, source: Path, digest: Digest) -> None:
        target = self._path(digest)
        for folder in (self._folder, target.parent.parent, target.parent):
            make_folder(folder)
        with storage_errors(f"blob {digest} cannot be written"):
            descriptor = open_file(source)
            try:
                if not self._marks.end_with_boot:
                    os.fdatasync(descriptor)
                source.replace(target)
                if not self._marks.end_with_boot:
                    sync_folder(target.parent)
                looks = os.fstat(descriptor)
            finally:
                os.close(descriptor)
        self._marks.add(digest, looks)

    def _open(self, digest: Digest) -> int:
        with storage_errors(f"blob {digest} cannot be read"):
            try:
                return open_file(self._path(digest))
            except FileNotFoundError:
                raise NotFoundError(
                    f"the local store holds no blob {digest}", hint="pull the cube first"
                ) from None

    def _verify(self, descriptor: int, expected: Expected) -> None:
        verifier = expected.verifier()
        with storage_errors(f"blob {expected.identity} cannot be read"):
            while piece := os.read(descriptor, PIECE_BYTES):
                verifier.update(piece)
        verifier.finish()

    def _partial(self, expected: Expected) -> Path:
        return self.partial / str(expected.identity).replace(":", "-").replace("/", "-")

    def _path(self, digest: Digest) -> Path:
        return self._folder / digest.algorithm / digest.hex[:2] / digest.hex


def _is_private(root: Path) -> bool:
    """Whether only this user can change files below `root`: else no mark of a past check counts."""
    try:
        looks = root.stat()
    except OSError:
        return False
    return looks.st_uid == os.geteuid() and not looks.st_mode & _WRITABLE_BY_OTHERS
