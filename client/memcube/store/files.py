"""Files of the local store: private modes, no symbolic links, atomic replacement, errors by name."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from memcube_protocol.digest import Hasher
from memcube_protocol.errors import DiskFullError, ReadOnlyError, StorageError

FOLDER_MODE: Final = 0o700
FILE_MODE: Final = 0o600
PIECE_BYTES: Final = 512 * 1024
"""Bytes per read: stays in the cache between reading, hashing and writing; smaller ones cost more calls."""
_WRITE_BYTES: Final = 256 * 1024
"""Larger writes ask Linux for runs of free memory that it may have to move other pages to make."""
_FICLONE: Final = 0x40049409
"""`FICLONE` of Linux (ioctl_ficlonerange(2)); no request of other systems."""
_HASH_BYTES: Final = 256 * 1024

_BLOCK_BYTES: Final = 512
"""The unit of `st_blocks`, whatever the blocks of the file system are."""

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_READ_ONLY: Final = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


def storage_error(what: str, error: OSError) -> StorageError:
    """Our error for `error`, which hindered `what`."""
    reason = f"{what}: {error.strerror or error}"
    if error.errno in _FULL:
        return DiskFullError(
            reason, hint="free some space (`memcube prune`), then run the command again: it resumes"
        )
    if error.errno in _READ_ONLY:
        return ReadOnlyError(
            reason, hint="set MEMCUBE_HOME to a folder of yours that can be written"
        )
    return StorageError(reason, hint="`memcube doctor` looks for the cause")


@contextmanager
def storage_errors(what: str) -> Iterator[None]:
    """Turns an OSError inside into our error.

    Raises:
        DiskFullError, ReadOnlyError, StorageError: by the cause.
    """
    try:
        yield
    except OSError as error:
        raise storage_error(what, error) from error


def disk_bytes(looks: os.stat_result) -> int:
    """What a file takes on its disk: whole blocks, and nothing for its holes."""
    return looks.st_blocks * _BLOCK_BYTES


def disk_bytes_below(folder: Path) -> int:
    """What lies below `folder` takes on its disk; files that go meanwhile count nothing."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            total += disk_bytes(path.lstat())
    return total


def make_folder(path: Path) -> Path:
    """`path` as a private folder, made where it is absent.

    Raises:
        StorageError: it is a link or a file, or it cannot be made.
    """
    with storage_errors(f"folder {path} cannot be made"):
        try:
            looks = path.lstat()
        except FileNotFoundError:
            path.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            path.mkdir(mode=FOLDER_MODE, exist_ok=True)
            looks = path.lstat()
        if not stat.S_ISDIR(looks.st_mode):
            raise StorageError(
                f"{path} is not a folder", hint="the store follows no symbolic links: remove it"
            )
    return path


def open_file(path: Path, flags: int = os.O_RDONLY) -> int:
    """Descriptor of the regular file `path`; new files are private, links are refused.

    Raises:
        OSError: as `os.open`.
        StorageError: it is a link, a device or a folder.
    """
    try:
        # A pipe in the place of a file would be waited for without an end.
        wanted = flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = os.open(path, wanted, FILE_MODE)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise _not_regular(path) from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _not_regular(path)
    return descriptor


def write_all(descriptor: int, piece: bytes | bytearray | memoryview) -> None:
    """Write the whole of `piece`.

    Raises:
        OSError: as `os.write`.
    """
    with memoryview(piece) as rest:
        written = 0
        while written < len(rest):
            written += os.write(descriptor, rest[written : written + _WRITE_BYTES])


def copy_hashed(source: int, target: int, hasher: Hasher) -> int:
    """Copy all of the regular file `source` into the empty `target`; its size in bytes.

    `hasher` is fed with what `target` holds, whatever is written to `source` meanwhile. Where the file
    system can, both share their blocks; else each piece is hashed and written while the processor's cache
    holds it.

    Raises:
        OSError: as `os.preadv` and `os.write`.
    """
    if _share_blocks(source, target):
        return hash_file(target, hasher)
    buffer, at = bytearray(_HASH_BYTES), 0
    with memoryview(buffer) as view:
        while count := os.preadv(source, [buffer], at):
            hasher.update(view[:count])
            write_all(target, view[:count])
            at += count
    return at


def _share_blocks(source: int, target: int) -> bool:
    """Make `target` a copy of `source` that takes no room; returns whether the file system can do that."""
    with suppress(OSError):
        fcntl.ioctl(target, _FICLONE, source)
        return True
    return False


def hash_file(descriptor: int, hasher: Hasher) -> int:
    """Feed `hasher` with all of a regular file; its size in bytes.

    Raises:
        OSError: as `os.preadv`.
    """
    buffer, at = bytearray(_HASH_BYTES), 0
    with memoryview(buffer) as view:
        while count := os.preadv(descriptor, [buffer], at):
            hasher.update(view[:count])
            at += count
    return at


@contextmanager
def replacing(path: Path, mode: int = FILE_MODE, *, lasting: bool = True) -> Iterator[int]:
    """A new file to write, which takes the place of `path` once the body is done; where it raises, nothing changes.

    Its bytes are on the disk before that, unless it need not be `lasting`; its name is so after `sync_folder`.

    Raises:
        OSError: as `os.open`, `os.fsync` and `os.replace`.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        yield descriptor
        if lasting:
            os.fsync(descriptor)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def replace_file(path: Path, *pieces: bytes | memoryview, lasting: bool = True) -> None:
    """Put `pieces`, one after the other, at `path` so that a reader sees the old bytes or the new ones, nothing between.

    What need not be `lasting`, because it can be found out again, does not wait for the disk: a power cut may
    leave nothing of it, or an empty file.

    Raises:
        DiskFullError, ReadOnlyError, StorageError: nothing changed.
    """
    with storage_errors(f"{path} cannot be written"):
        with replacing(path, lasting=lasting) as descriptor:
            for piece in pieces:
                write_all(descriptor, piece)
        if lasting:
            sync_folder(path.parent)


def replace_files(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Put each content at its name in `folder`, as `replace_file`; the folder is synced once for all.

    Raises:
        DiskFullError, ReadOnlyError, StorageError: some may be replaced, each whole.
    """
    with storage_errors(f"{folder} cannot be written"):
        for name, content in contents.items():
            with replacing(folder / name) as descriptor:
                write_all(descriptor, content)
        sync_folder(folder)


def read_file(path: Path, limit: int) -> bytes | None:
    """Content of `path`, or nothing if it is absent.

    Raises:
        StorageError: it cannot be read, is no regular file, or holds more than `limit` bytes.
    """
    with storage_errors(f"{path} cannot be read"):
        try:
            descriptor = open_file(path)
        except FileNotFoundError:
            return None
        with os.fdopen(descriptor, "rb") as file:
            content = file.read(limit + 1)
    if len(content) > limit:
        raise StorageError(f"{path} is larger than {limit} bytes", hint="delete the file")
    return content


def read_own_file(path: Path, limit: int, *, folder: bool = True) -> bytes | None:
    """As `read_file`, of a file that decides whom to trust: others must not be able to change it.

    Its folder must not either, unless `folder` is false.

    Raises:
        StorageError: another user owns it, or everybody may write it; as `read_file`.
    """
    if folder:
        require_ours(path.parent)
    require_ours(path)
    return read_file(path, limit)


def require_ours(path: Path) -> None:
    """Refuse a file that decides what is believed, and that others can change; an absent one is fine.

    Root may own it too; and to root it does not matter in whose home it works.

    Raises:
        StorageError: another user owns it, or everybody may write it.
    """
    with storage_errors(f"{path} cannot be read"):
        try:
            looks = path.lstat()
        except FileNotFoundError:
            return
    user = os.geteuid()
    is_link = stat.S_ISLNK(looks.st_mode)  # its mode says nothing; who follows it refuses it
    if user and looks.st_uid not in (user, 0):
        raise _not_ours(path, "belongs to another user")
    if looks.st_mode & stat.S_IWOTH and not is_link:
        raise _not_ours(path, "can be written by everybody")


def _not_ours(path: Path, why: str) -> StorageError:
    return StorageError(
        f"{path} decides what you believe, and {why}",
        hint=f"see what it holds; then make it yours alone: chmod o-w {path}",
    )


def sync_folder(path: Path) -> None:
    """Make renames in `path` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def try_lock(descriptor: int, *, exclusive: bool = True) -> bool:
    """Lock the open file against other processes and other descriptors; says whether it worked."""
    kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _not_regular(path: Path) -> StorageError:
    return StorageError(
        f"{path} is not a regular file", hint="the store follows no symbolic links: remove it"
    )
