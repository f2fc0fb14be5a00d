"""The folder of one index: built beside its place, then renamed into it; one builder at a time.

<root>/[<variant>-]<algorithm>-<hex>/
    index.json     what the index was built from, and how
    records.jsonl  and its arrays: see `lines`
    shard/         of the embedded engine
    embedder.safetensors   the embedder that was fitted, or the probe of the one that was named
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Final, Self
from zlib import crc32

from memcube_protocol.errors import StorageError
from memcube_protocol.values import frozen

from memcube.store import files

FORMAT: Final = 7
SHARD: Final = "shard"
_NOTE: Final = "index.json"
_NOTE_BYTES: Final = 64 * 1024
_REWRITTEN: Final = (".json", "_journal.dat")
"""What the engine writes anew at every opening and checks itself, and what its first opening takes away."""
_BELIEVED: Final = "id_tracker"
"""What the engine reads whole and takes as it is: a bit more or less hides records, or ends the process."""


@frozen(kw_only=True)
class Note:
    """What an index says of itself: of which cube it is, and what its build found.

    `held` are the fields that any of its entries has, `width` that of its vectors, and `embedded` how
    many of these the cube did not carry. `seal` is that of its files; see `seal_of`.
    """

    cube: str
    records: int
    held: frozenset[str] = frozenset()
    width: int = 0
    embedded: int = 0
    seal: str = ""
    format: int = FORMAT

    @classmethod
    def read(cls, place: Path) -> Self | None:
        """The note at `place`; nothing where there is none, or one that this version cannot use."""
        content = files.read_file(place / _NOTE, _NOTE_BYTES)
        try:
            values = json.loads(content or b"")
            note = cls(**values | {"held": frozenset(map(str, values["held"]))})
            counts = (note.records, note.width, note.embedded)
            sound = all(type(count) is int and count >= 0 for count in counts)
            return note if note.format == FORMAT and sound else None
        except (ValueError, TypeError, KeyError):
            return None

    def write(self, place: Path) -> None:
        """Put it into `place`."""
        files.replace_file(
            place / _NOTE, json.dumps(asdict(self) | {"held": sorted(self.held)}).encode()
        )


def seal_of(place: Path) -> str:
    """A hash of the names and sizes of the files at `place`, and of what the engine believes unchecked.

    So a file that was cut, emptied or lost since, by a disk or a loss of power, is noticed before the
    engine is asked; what stands in the larger ones is checked where it is read, or changes a score.

    Raises:
        StorageError: a file cannot be read.
    """
    sealed = sha256()
    with files.storage_errors(f"{place} cannot be read"):
        for path in sorted(place.rglob("*")):
            if path.is_file() and not path.name.endswith(_REWRITTEN):
                content = path.read_bytes() if _BELIEVED in path.name else b""
                named = f"{path.relative_to(place)} {path.stat().st_size} {crc32(content)}\n"
                sealed.update(named.encode())
    return sealed.hexdigest()


@contextmanager
def building(root: Path, name: str) -> Iterator[None]:
    """One builder at a time of the index `name`; what a killed one left is removed."""
    with files.storage_errors(f"{root} cannot be locked"):
        descriptor = files.open_file(root / f".{name}.lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        for left in root.glob(f".{name}.*"):
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left, ignore_errors=True)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def made_whole(place: Path) -> Iterator[Path]:
    """A new folder to fill, which becomes `place` at the end; if anything fails, nothing is left of it."""
    temporary = place.with_name(f".{place.name}.{secrets.token_hex(8)}")
    try:
        files.make_folder(temporary)
        files.make_folder(temporary / SHARD)
        yield temporary
        with files.storage_errors(f"{place} cannot be made"):
            shutil.rmtree(place, ignore_errors=True)
            temporary.rename(place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def require_own(place: Path) -> None:
    """Refuse an index that others could have put there: the engine trusts what it opens.

    Raises:
        StorageError: it is a link, belongs to somebody else, or others may write it.
    """
    status = place.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise StorageError(
            f"{place} is not a private folder of yours, so it is not opened",
            hint="delete it: the index is built anew",
        )


def exists(place: Path) -> bool:
    """Whether something is at `place`, be it a link that leads nowhere."""
    return place.is_symlink() or place.exists()
