"""Which files a folder holds, and whether they may enter a cube.

Hidden files and folders stay out. Links, devices, unsafe or colliding names and pickles are
refused: a cube holds plain files that every machine can create and nothing ever executes.
"""

from __future__ import annotations

import fnmatch
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

from memcube_protocol import limits, paths
from memcube_protocol.errors import ForbiddenMediaTypeError, NotFoundError, UnsafePathError
from memcube_protocol.values import frozen

FILES: Final = 100_000
_PICKLE_SUFFIXES: Final = frozenset(
    (".pickle", ".pkl", ".pt", ".pth", ".ckpt", ".joblib", ".dill", ".cloudpickle", ".bin")
)
_PARSED_SUFFIXES: Final = frozenset((".safetensors", ".u32"))
"""Binary formats whose own parsers refuse pickles: a length or a token id may look like one's start."""

_SNIFF_BYTES: Final = 4096
_SAFETENSORS_HINT: Final = (
    "save it as safetensors: model.save_pretrained(folder, safe_serialization=True), "
    "or memcube.dump_kv() for a KV cache"
)


@frozen
class FoundFile:
    """A plain file of a folder: its path below the folder, where it lies, its size in bytes."""

    path: str
    location: Path
    size: int

    def open(self) -> BinaryIO:
        """The file, open for reading, never through a link.

        Raises:
            UnsafePathError: it was replaced by a link or a device since it was found.
            NotFoundError: it is gone.
        """
        return open_plain(self.location)

    def read(self, limit: int) -> bytes:
        """The content of a small file.

        Raises:
            LimitExceededError: more than `limit` bytes.
        """
        limits.require_at_most(self.path, self.size, limit)
        with self.open() as stream:
            content = stream.read(limit + 1)
        limits.require_at_most(self.path, len(content), limit)
        return content


def open_plain(location: Path) -> BinaryIO:
    """The plain file at `location`, open for reading.

    Raises:
        UnsafePathError: it is a link or not a plain file.
        NotFoundError: there is none.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(location, flags)
    except FileNotFoundError:
        raise NotFoundError(f"no file {location}", hint="check the path") from None
    except OSError as error:
        raise UnsafePathError(
            f"{location} cannot be read as a plain file: {error.strerror}",
            hint="put the file itself in its place and make it readable",
        ) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _not_plain(location)
    return os.fdopen(descriptor, "rb")


def scan(folder: Path, *, ignore: Iterable[str] = ()) -> tuple[FoundFile, ...]:
    """All files below `folder`, sorted by path; paths that match a pattern of `ignore` stay out.

    Raises:
        NotFoundError: there is no such folder.
        UnsafePathError: a link, a device, an unsafe name, or names that collide.
        ForbiddenMediaTypeError: a pickle, by its name or by its first bytes.
        LimitExceededError: more than 100 000 files.
    """
    if not folder.is_dir():
        raise NotFoundError(f"no folder {folder}", hint="`memcube init DIR` makes one")
    patterns = tuple(ignore)
    found: list[FoundFile] = []
    for file in _walk(folder, "", patterns):
        found.append(file)
        limits.require_at_most(str(folder), len(found), FILES, unit="files")
    paths.require_distinct(file.path for file in found)
    return tuple(sorted(found, key=lambda file: file.path))


def refuse_pickle(file: FoundFile) -> None:
    """Refuse a file whose name or first bytes are those of a pickle or a PyTorch archive.

    Raises:
        ForbiddenMediaTypeError: with the safe format to use instead.
    """
    suffix = Path(file.path).suffix.lower()
    if suffix in _PICKLE_SUFFIXES:
        raise _refused(
            f"{file.path} has a name that pickles use ({suffix}; its content is not looked at); "
            "loading a pickle runs whatever code it holds"
        )
    if suffix in _PARSED_SUFFIXES:
        return
    with file.open() as stream:
        start = stream.read(_SNIFF_BYTES)
    if _looks_pickled(start):
        raise _refused(
            f"{file.path} is a pickle (its first bytes say so); loading one runs whatever code it holds"
        )


def _looks_pickled(start: bytes) -> bool:
    protocol = len(start) > 2 and start[0] == 0x80 and start[1] <= 5
    return protocol or (start.startswith(b"PK\x03\x04") and b"data.pkl" in start)


def _walk(folder: Path, prefix: str, ignore: tuple[str, ...]) -> Iterator[FoundFile]:
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            path = prefix + entry.name
            if entry.name.startswith(".") or any(fnmatch.fnmatchcase(path, p) for p in ignore):
                continue
            paths.require_safe(path)
            if entry.is_symlink():
                raise _not_plain(Path(entry.path))
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(Path(entry.path), path + "/", ignore)
                continue
            status = entry.stat(follow_symlinks=False)
            if not stat.S_ISREG(status.st_mode):
                raise _not_plain(Path(entry.path))
            file = FoundFile(path, Path(entry.path), status.st_size)
            refuse_pickle(file)
            yield file


def _not_plain(location: Path) -> UnsafePathError:
    return UnsafePathError(
        f"{location} is a link or a device, not a plain file",
        hint="put the file itself in its place, or name it in `ignore` of memcube.toml",
    )


def _refused(what: str) -> ForbiddenMediaTypeError:
    return ForbiddenMediaTypeError(what, hint=_SAFETENSORS_HINT)
