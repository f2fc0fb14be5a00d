"""The records of an overlay on disk: JSON Lines in `plaintext/`, each file replaced as a whole.

    my-notes/
      memcube.toml
      plaintext/memory-000001.jsonl      at most 256 KiB each, so that a change writes little
      .memcube-overlay.lock, .turn       held by whoever changes something, and by who is next

Every change is one atomic, synced replacement of one file: killed anywhere, a process leaves the
files of before or of after, and both pack. What other processes, or a person with an editor,
changed is seen at the next look; of a changed file only the lines that are new are parsed.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple

from memcube_protocol import limits
from memcube_protocol.errors import InvalidConfigError, InvalidRecordError, MemcubeError
from memcube_protocol.records import Record, parse_record, write_record
from memcube_protocol.values import frozen

from memcube.store import files
from memcube.store.locks import hold_lock

FOLDER: Final = "plaintext"
SEGMENT_BYTES: Final = 256 * limits.KIB
"""A file that would exceed this gets no more records; the next one is begun."""
FILE_BYTES: Final = 64 * limits.MIB
"""A file of records, whoever wrote it."""

_LOCK: Final = ".memcube-overlay.lock"
_TURN: Final = ".memcube-overlay.turn"
"""Held by who waits for the lock: who has just given it back cannot take it again before."""

_LOCK_WAIT_S: Final = 30.0
_OURS: Final = re.compile(r"memory-(\d{6,})\.jsonl", re.ASCII)
_LEFT: Final = re.compile(r"\..+\.jsonl\.[0-9a-f]{16}")
_LEFT_S: Final = 60.0
_RACY_S: Final = 0.1
"""A file changed so short a time ago may change again with the same inode, size and times."""

Signature = tuple[int, int, int, int]


@frozen
class Segment:
    """One file as it was read: its status (None: look again), size, hash, the record in each line."""

    signature: Signature | None
    size_bytes: int
    digest: bytes
    records: Mapping[bytes, Record]


class Change(NamedTuple):
    """What a look found: records that are new or changed, and ids that are gone."""

    fresh: list[Record]
    gone: list[str]


class Segments:
    """The files of records below the cube folder `root`. Who changes something holds `changing`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folder = root / FOLDER
        self._segments: dict[str, Segment] = {}
        self._places: dict[str, str] = {}

    @property
    def size_bytes(self) -> int:
        """What the files held at the last look."""
        return sum(segment.size_bytes for segment in self._segments.values())

    @contextmanager
    def changing(self) -> Iterator[None]:
        """One process at a time; what a killed one left half-written is removed.

        Raises:
            ConflictError: others held the lock for half a minute.
        """
        with ExitStack() as held:
            with self._holding(_TURN):
                held.enter_context(self._holding(_LOCK))
            make_durable(self._folder)
            self._sweep()
            yield

    def look(self) -> Change:
        """What is different from the last look.

        Raises:
            InvalidRecordError, InvalidJsonError, LimitExceededError: a line is no record, or an id
                stands twice; what was known stays known.
            InvalidConfigError: records are compressed.
            StorageError: a file cannot be read, or others can write it.
        """
        before, after = self._segments, self._read_all()
        changed = {
            name
            for name in before.keys() | after.keys()
            if name not in before
            or name not in after
            or before[name].records is not after[name].records
        }
        self._segments = self._segments if changed else after
        if not changed:
            return Change([], [])
        old = {
            record.id: record
            for name in changed & before.keys()
            for record in before[name].records.values()
        }
        new: dict[str, tuple[str, Record]] = {}
        for name in sorted(changed & after.keys()):
            for record in after[name].records.values():
                elsewhere = self._places.get(record.id, name)
                if record.id in new or elsewhere not in changed:
                    raise _twice(record.id, name)
                new[record.id] = name, record
        gone = [one for one in old if one not in new]
        for one in gone:
            del self._places[one]
        self._places |= {one: name for one, (name, _) in new.items()}
        self._segments = after
        fresh = [record for one, (_, record) in new.items() if old.get(one) is not record]
        return Change(fresh, gone)

    def append(self, record: Record) -> None:
        """Write `record` behind the others; it is on the disk when this returns.

        Raises:
            InvalidRecordError: half a surrogate pair, which is no character.
            LimitExceededError: more than 1 MiB.
            DiskFullError, ReadOnlyError, StorageError: nothing changed.
        """
        line = _line(record)
        path = self._folder / self._open_segment(len(line))
        content = files.read_file(path, FILE_BYTES) or b""
        gap = b"" if content.endswith(b"\n") or not content else b"\n"
        files.replace_file(path, b"".join((content, gap, line)))

    def replace(self, record_id: str, record: Record) -> None:
        """Write `record` in the place of `record_id`: a crash leaves the one or the other.

        Raises:
            KeyError: the last look saw no record of this id.
            LimitExceededError: more than 1 MiB, or the file would be larger than can be read again.
            InvalidRecordError, StorageError: as `append`; nothing changed.
        """
        self._rewrite(record_id, [_line(record)[:-1]])

    def remove(self, record_id: str) -> None:
        """Take the line of `record_id` out of its file; an empty file goes.

        Raises:
            KeyError: the last look saw no record of this id.
            DiskFullError, ReadOnlyError, StorageError: nothing changed.
        """
        self._rewrite(record_id, [])

    def _rewrite(self, record_id: str, by: list[bytes]) -> None:
        """Put the lines `by` in the place of the one of `record_id`."""
        name = self._places[record_id]
        path, known = self._folder / name, self._segments[name].records
        lines: list[bytes] = []
        for line in (files.read_file(path, FILE_BYTES) or b"").split(b"\n"):
            is_it = line in known and known[line].id == record_id
            lines += by if is_it else [line] if line.strip() else []
        if lines:
            content = b"\n".join([*lines, b""])
            limits.require_at_most(str(path), len(content), FILE_BYTES)
            files.replace_file(path, content)
            return
        with files.storage_errors(f"{path} cannot be removed"):
            path.unlink()
            files.sync_folder(self._folder)

    def _holding(self, name: str) -> AbstractContextManager[None]:
        path, what = self._root / name, str(self._root)
        return hold_lock(path, exclusive=True, wait_s=_LOCK_WAIT_S, what=what)

    def _read_all(self) -> dict[str, Segment]:
        segments: dict[str, Segment] = {}
        for name, signature in self._listed().items():
            known = self._segments.get(name)
            if known is None or known.signature != signature:
                known = self._read(name, signature, known)
            if known is not None:
                segments[name] = known
        return segments

    def _listed(self) -> dict[str, Signature]:
        """Status of every file of records, by name in order."""
        listed: dict[str, Signature] = {}
        with files.storage_errors(f"{self._folder} cannot be read"):
            try:
                entries = sorted(os.scandir(self._folder), key=lambda entry: entry.name)
            except FileNotFoundError:
                return {}
            for entry in entries:
                if entry.name.startswith(".") or not entry.name.endswith((".jsonl", ".zst")):
                    continue
                if entry.name.endswith(".zst"):
                    raise InvalidConfigError(
                        f"{entry.path} is compressed, so nothing can be added beside it",
                        hint="decompress it in its place: zstd -d --rm FILE",
                    )
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                listed[entry.name] = (
                    *(status.st_ino, status.st_size),
                    *(status.st_mtime_ns, status.st_ctime_ns),
                )
        return listed

    def _read(self, name: str, signature: Signature, known: Segment | None) -> Segment | None:
        """The file `name` as it is now; None where it has just gone."""
        content = files.read_own_file(self._folder / name, FILE_BYTES)
        if content is None:
            return None
        is_settled = abs(time.time() - signature[2] / 1e9) > _RACY_S
        digest = sha256(content).digest()
        if known is not None and known.digest == digest:
            records = known.records
        else:
            records = _parsed(content, name, known.records if known else {})
        return Segment(signature if is_settled else None, len(content), digest, records)

    def _open_segment(self, more_bytes: int) -> str:
        """Name of the file that takes `more_bytes` more."""
        sizes = {name: signature[1] for name, signature in self._listed().items()}
        numbers = {int(match[1]): name for name in sizes if (match := _OURS.fullmatch(name))}
        last = max(numbers, default=0)
        if last and sizes[numbers[last]] + more_bytes <= SEGMENT_BYTES:
            return numbers[last]
        return f"memory-{last + 1:06d}.jsonl"

    def _sweep(self) -> None:
        """Remove what a killed process left half-written. An editor's files may be in use still."""
        with (
            files.storage_errors(f"{self._folder} cannot be read"),
            os.scandir(self._folder) as left,
        ):
            for entry in left:
                if _LEFT.fullmatch(entry.name):
                    age_s = time.time() - entry.stat(follow_symlinks=False).st_mtime
                    if age_s > _LEFT_S:
                        Path(entry.path).unlink(missing_ok=True)


def make_durable(folder: Path) -> None:
    """Make `folder` where it is absent, so that it outlives a loss of power.

    Raises:
        StorageError: it is a link or a file, or it cannot be made.
    """
    made = [one for one in (folder, *folder.parents) if not one.exists()]
    files.make_folder(folder)
    for one in made:
        with files.storage_errors(f"{one.parent} cannot be written"):
            files.sync_folder(one.parent)


def _line(record: Record) -> bytes:
    try:
        return write_record(record) + b"\n"
    except UnicodeEncodeError:
        raise InvalidRecordError(
            "the memory holds half a surrogate pair, which is no character",
            hint="send it as UTF-8",
        ) from None


def _parsed(content: bytes, name: str, known: Mapping[bytes, Record]) -> dict[bytes, Record]:
    """The record of each line, parsed unless it is `known`."""
    records: dict[bytes, Record] = {}
    seen: set[str] = set()
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            record = known.get(line) or parse_record(line)
        except MemcubeError as error:
            raise type(error)(f"{name}, line {number}: {error}", hint=error.hint) from None
        if record.id in seen:
            raise _twice(record.id, name)
        seen.add(record.id)
        records[line] = record
    return records


def _twice(record_id: str, name: str) -> InvalidRecordError:
    return InvalidRecordError(
        f"{FOLDER}/{name}: id {record_id!r} stands in the folder twice",
        hint="give every record an id of its own",
    )
