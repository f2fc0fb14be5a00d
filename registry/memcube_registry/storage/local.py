"""A blob store in local files: durable before acknowledged, one rename from upload to object."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from memcube_protocol.errors import (
    ConflictError,
    DiskFullError,
    NotFoundError,
    RangeMismatchError,
    ReadOnlyError,
    SizeMismatchError,
    StorageError,
)

from memcube_registry.storage.interface import PIECE_BYTES, Object, Pieces, Sink

PLACE_BEFORE: Final = "/.memcube-blobs/"
_NAME: Final = re.compile(r"[0-9a-f]{32}")
_WRITE_BYTES: Final = 256 * 1024
"""Larger writes ask Linux for runs of free memory that it may have to move other pages to make."""
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NO_WAIT: Final = getattr(os, "RWF_NOWAIT", 0)  # Linux alone can ask the page cache
_READ_ONLY: Final = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


class LocalFiles:
    """A `BlobStore` below one folder, which is made if it is absent.

    Uploads and objects share a file system, so that finishing an upload moves no bytes.

    Raises:
        ReadOnlyError, StorageError: the folder cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self._objects = folder.absolute() / "blobs"
        self._uploads = folder.absolute() / "uploads"
        with translated("the blob store"):
            for shard in (f"{number:02x}" for number in range(256)):
                (self._objects / shard).mkdir(parents=True, exist_ok=True)
            self._uploads.mkdir(exist_ok=True)
            sync_folder(self._objects)
            sync_folder(folder)

    def read(self, location: str, *, start: int = 0, stop: int | None = None) -> Pieces:
        """See `Reader.read`."""
        with translated(f"object {location}"):
            handle = os.open(self._object(location), os.O_RDONLY | os.O_CLOEXEC)
        return FilePieces(handle, start, stop)

    def url(self, location: str, *, media_type: str) -> str | None:  # noqa: ARG002 - part of the interface
        """See `Direct.url`: files are sent by the server itself."""
        return None

    def open(self, upload: str, *, size: int) -> Sink:
        """See `Uploads.open`."""
        handle = self._locked(upload)
        try:
            _stand_at_end(handle, size)
        except BaseException:
            os.close(handle)
            raise
        return _FileSink(handle, size)

    def size(self, upload: str) -> int:
        """See `Uploads.size`."""
        try:
            return self._upload(upload).stat().st_size
        except FileNotFoundError:
            return 0

    def abort(self, upload: str) -> None:
        """See `Uploads.abort`."""
        with translated("the upload"):
            self._upload(upload).unlink(missing_ok=True)

    def finish(self, upload: str, *, size: int) -> str:
        """See `Finisher.finish`: fsync the file, rename it, fsync its new folder."""
        with self.held(upload, size=size) as source, translated("the blob"):
            location = self._free_location(upload)
            target = self._object(location)
            source.chmod(0o440)
            source.rename(target)
            sync_folder(target.parent)
        return location

    @contextmanager
    def held(self, upload: str, *, size: int) -> Iterator[Path]:
        """The file of an upload that holds `size` bytes, durable; nobody else can write to it meanwhile.

        For this store, and for those whose uploads are staged here.

        Raises:
            ConflictError, SizeMismatchError, DiskFullError, ReadOnlyError, StorageError: as `finish`.
        """
        handle = self._locked(upload)
        try:
            with translated("the blob"):
                _require_size(handle, size)
                os.utime(handle)  # an object counts from now, or garbage collection might take it
                os.fsync(handle)
            yield self._upload(upload)
        finally:
            os.close(handle)

    def _free_location(self, upload: str) -> str:
        """Where the upload goes: to its own name, unless an earlier file of that name was finished.

        So whoever knows the upload knows the object before it is there, and takes it for no orphan,
        whatever the clock says of its age.
        """
        return uuid.uuid4().hex if self._object(upload).exists() else upload

    def delete(self, location: str) -> None:
        """See `Sweeper.delete`."""
        with translated(f"object {location}"):
            self._object(location).unlink(missing_ok=True)

    def objects(self) -> Iterator[Object]:
        """See `Sweeper.objects`."""
        for shard in sorted(self._objects.iterdir()):
            yield from _listed(shard)

    def uploads(self) -> Iterator[Object]:
        """See `Sweeper.uploads`."""
        return _listed(self._uploads)

    def check(self) -> None:
        """See `BlobStore.check`: writes, syncs and removes a small file."""
        probe = self._upload(uuid.uuid4().hex)
        with translated("the blob store"):
            try:
                handle = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    os.write(handle, bytes(4096))
                finally:
                    os.close(handle)
            finally:
                probe.unlink(missing_ok=True)

    def _locked(self, upload: str) -> int:
        with translated("the upload"):
            handle = os.open(self._upload(upload), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            raise ConflictError(
                "another request is writing to this upload", hint="wait for it to end"
            ) from error
        if not _is_still_at(handle, self._upload(upload)):
            os.close(handle)
            raise ConflictError("the upload has just ended", hint="start a new upload")
        return handle

    def _object(self, location: str) -> Path:
        _require_name(location)
        return self._objects / location[:2] / location

    def _upload(self, upload: str) -> Path:
        _require_name(upload)
        return self._uploads / upload


class FilesBehindNginx(LocalFiles):
    """The same, beneath an nginx that has the objects' folder at `PLACE_BEFORE`, as an internal location."""

    def place_before(self, location: str) -> str:
        """See `HandsOver.place_before`."""
        _require_name(location)
        return f"{PLACE_BEFORE}{location[:2]}/{location}"


class _FileSink:
    """Appends to an upload's file and holds its lock.

    A request that is cancelled closes its sink while a thread may still be writing: `close` waits
    for it, for the number of a closed file may by then name another one.
    """

    def __init__(self, handle: int, opened_at: int) -> None:
        self._handle: int | None = handle
        self._opened_at = opened_at
        self._in_use = threading.Lock()

    def write(self, pieces: Sequence[bytes], /) -> None:
        """See `Sink.write`."""
        with self._in_use, translated("the upload"):
            if self._handle is None:
                raise StorageError("the upload was closed", hint="resume the upload")
            for piece in pieces:
                _write_all(self._handle, piece)

    def undo(self) -> None:
        """See `Sink.undo`."""
        with self._in_use, translated("the upload"):
            if self._handle is not None:
                os.ftruncate(self._handle, self._opened_at)
                os.lseek(self._handle, 0, os.SEEK_END)

    def close(self) -> None:
        """See `Sink.close`."""
        with self._in_use:
            handle, self._handle = self._handle, None
            if handle is not None:
                os.close(handle)


def _write_all(handle: int, piece: bytes) -> None:
    with memoryview(piece) as rest:
        written = 0
        while written < len(rest):
            written += os.write(handle, rest[written : written + _WRITE_BYTES])


def _is_still_at(handle: int, path: Path) -> bool:
    """Whether the file was neither finished nor removed between its opening and its locking."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _stand_at_end(handle: int, size: int) -> None:
    with translated("the upload"):
        held = os.lseek(handle, 0, os.SEEK_END)
    if held != size:
        raise RangeMismatchError(
            f"the upload holds {held} bytes, not {size}",
            hint="ask for the upload's status and go on from there",
        )


def _require_size(handle: int, size: int) -> None:
    if (held := os.fstat(handle).st_size) != size:
        raise SizeMismatchError(
            f"the upload holds {held} bytes, not {size}", hint="start the upload again"
        )


class FilePieces:
    """See `Pieces`. Owns `handle`."""

    def __init__(self, handle: int, start: int, stop: int | None) -> None:
        end = os.fstat(handle).st_size
        self._handle: int | None = handle
        self._position = start
        self._stop = end if stop is None else min(stop, end)
        self.size = max(0, self._stop - start)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        """See `Pieces`."""
        wanted = min(PIECE_BYTES, self._stop - self._position)
        if self._handle is None or wanted <= 0:
            self.close()
            raise StopIteration
        with translated("an object"):
            piece = os.pread(self._handle, wanted, self._position)
        if not piece:  # somebody cut the file meanwhile
            self.close()
            raise StopIteration
        self._position += len(piece)
        return piece

    def at_hand(self) -> bool:
        """Whether the piece's last byte lies in the page cache: reading ahead, the kernel comes to it last."""
        last = min(self._position + PIECE_BYTES, self._stop) - 1
        if self._handle is None or last < self._position:
            return True
        if not _NO_WAIT:
            return False
        try:
            return os.preadv(self._handle, [bytearray(1)], last, _NO_WAIT) == 1
        except OSError:  # not in the cache, or a file system that cannot say
            return False

    def close(self) -> None:
        """See `Pieces.close`."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def _listed(folder: Path) -> Iterator[Object]:
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                written = entry.stat(follow_symlinks=False).st_mtime
            except FileNotFoundError:
                continue
            if _NAME.fullmatch(entry.name):
                yield Object(entry.name, datetime.fromtimestamp(written, UTC))


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _require_name(name: str) -> None:
    # Names are made by this registry; anything else would be a path.
    if not _NAME.fullmatch(name):
        raise StorageError(
            f"{name[:64]!r} is not the name of an object", hint="look at the server's log"
        )


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turns the operating system's refusals into memcube's errors."""
    try:
        yield
    except FileNotFoundError as error:
        raise NotFoundError(f"the store holds no {what}", hint="push the blob again") from error
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFullError(
                f"no space is left for {what}",
                hint="free space on the registry's disk, or collect garbage",
            ) from error
        if error.errno in _READ_ONLY:
            raise ReadOnlyError(
                f"{what} cannot be written: the store is read only",
                hint="check the mount and the permissions of the registry's data folder",
            ) from error
        raise StorageError(
            f"the disk failed for {what}: {error.strerror}", hint="look at the server's log"
        ) from error
