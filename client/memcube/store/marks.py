"""Marks: which blobs were verified, and what their files looked like then.

A mark is a line `hex size inode mtime_ns ctime_ns boot` in `marks/<algorithm>-<first two digits>`,
appended in one write. A blob whose file still looks as its mark says is not hashed again, unless
the machine has been started anew since: damage that a crash or a bad disk did is then found. Marks are a cache:
a line that is missing, torn or wrong costs one more hashing and nothing else.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Final

from memcube_protocol.digest import Digest
from memcube_protocol.errors import ReadOnlyError, StorageError

from memcube.store.files import make_folder, open_file, read_file, replace_file, storage_errors

_FIELDS: Final = 6
_UNKNOWN_BOOT: Final = "-"
_BUCKET_BYTES: Final = 16 * 1024 * 1024
_COMPACT_BYTES: Final = 1024 * 1024


class Marks:
    """The marks of one store."""

    def __init__(self, folder: Path, boot: str | None = None) -> None:
        self._folder = folder
        self._boot = boot_id() if boot is None else boot
        self._buckets: dict[Path, tuple[tuple[int, int], dict[str, list[str]]]] = {}

    @property
    def end_with_boot(self) -> bool:
        """Whether every blob is hashed anew after the machine was started anew."""
        return self._boot != _UNKNOWN_BOOT

    def holds(self, digest: Digest, looks: os.stat_result) -> bool:
        """Whether `digest` was verified while its file looked like `looks`, since the last boot."""
        marked = self._bucket(self._path(digest)).get(digest.hex)
        return marked == self._line(looks)

    def add(self, digest: Digest, looks: os.stat_result) -> None:
        """Remember that `digest` was verified; a store that cannot be written forgets it.

        Raises:
            DiskFullError, StorageError: the mark cannot be written for another reason.
        """
        try:
            self._append(self._path(digest), " ".join([digest.hex, *self._line(looks)]))
        except ReadOnlyError:
            return  # a store shared read-only is hashed at each use: slower, never wrong

    def _append(self, path: Path, line: str) -> None:
        make_folder(self._folder)
        with storage_errors(f"{path} cannot be written"):
            descriptor = open_file(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            try:
                os.write(descriptor, f"{line}\n".encode())
                size = os.fstat(descriptor).st_size
            finally:
                os.close(descriptor)
        if size > _COMPACT_BYTES:
            self._compact(path)

    def _compact(self, path: Path) -> None:
        """Keep the last line of each blob; one that another process adds meanwhile may get lost."""
        lines = (" ".join([name, *looks]) for name, looks in self._bucket(path).items())
        replace_file(path, "".join(f"{line}\n" for line in lines).encode())

    def _bucket(self, path: Path) -> dict[str, list[str]]:
        try:
            looks = path.lstat()
        except OSError:
            return {}
        version = (looks.st_mtime_ns, looks.st_size)
        known = self._buckets.get(path)
        if known is None or known[0] != version:
            known = (version, _read_bucket(path))
            self._buckets[path] = known
        return known[1]

    def _line(self, looks: os.stat_result) -> list[str]:
        numbers = (looks.st_size, looks.st_ino, looks.st_mtime_ns, looks.st_ctime_ns)
        return [*map(str, numbers), self._boot]

    def _path(self, digest: Digest) -> Path:
        return self._folder / f"{digest.algorithm}-{digest.hex[:2]}"


@cache
def boot_id() -> str:
    """What names the time since this machine was started; `-` where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return _UNKNOWN_BOOT


def _read_bucket(path: Path) -> dict[str, list[str]]:
    try:
        content = read_file(path, _BUCKET_BYTES) or b""
    except StorageError:
        return {}
    lines = (line.split(" ") for line in content.decode("ascii", "replace").splitlines())
    return {fields[0]: fields[1:] for fields in lines if len(fields) == _FIELDS}
