"""The records of an index as lines on this disk, each read from its place when it is needed.

records.jsonl    canonical lines, in the order of their numbers
offsets.npy      int64 [n + 1]   where each line begins, and where the last one ends
checksums.npy    uint32 [n]      CRC-32 of each line
ids.npy          uint64 [n]      the first 8 bytes of SHA-256 of each id, ascending
numbers.npy      uint32 [n]      the number of the record of each of `ids`

What is shown of a cube comes from here, and never from a search engine, which may be elsewhere. The
files are a copy of verified records that is not hashed again when it is opened; a line that was damaged
since is found by its checksum when it is read. Nothing is mapped: a file that is cut while it is in use is
an error, not the end of the process.
"""

from __future__ import annotations

import os
import zlib
from array import array
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Self

from memcube_protocol import limits
from memcube_protocol.errors import MemcubeError, NotFoundError
from memcube_protocol.records import Record, parse_record, write_record

from memcube.memories.plaintext.shard import damaged
from memcube.store import files

LINES: Final = "records.jsonl"
_ARRAYS: Final = ("offsets", "checksums", "ids", "numbers")
_BUFFER_BYTES: Final = 1 << 20


class LineWriter:
    """Writes the lines of an index into `folder`, one record after the other."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._offsets = array("q", [0])
        self._checksums = array("I")
        self._ids = array("Q")
        with files.storage_errors(f"{folder} cannot be written"):
            self._stream = (folder / LINES).open("wb", buffering=_BUFFER_BYTES)

    def add(self, record: Record) -> None:
        """Keep `record` under the next number.

        Raises:
            DiskFullError, StorageError: it cannot be written.
        """
        line = write_record(record) + b"\n"
        with files.storage_errors(f"{self._folder} cannot be written"):
            self._stream.write(line)
        self._offsets.append(self._offsets[-1] + len(line))
        self._checksums.append(zlib.crc32(line))
        self._ids.append(_hash_of(record.id))

    def close(self) -> None:
        """Finish the files.

        Raises:
            DiskFullError, StorageError: they cannot be written.
        """
        import numpy as np

        ids = np.array(self._ids, dtype=np.uint64)
        order = np.argsort(ids, kind="stable")
        arrays: dict[str, Any] = {
            "offsets": np.array(self._offsets, dtype=np.int64),
            "checksums": np.array(self._checksums, dtype=np.uint32),
            "ids": ids[order],
            "numbers": order.astype(np.uint32),
        }
        with files.storage_errors(f"{self._folder} cannot be written"):
            self._stream.close()
            for name in _ARRAYS:
                np.save(self._folder / f"{name}.npy", arrays[name], allow_pickle=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # What a full disk did not take cannot be written at the end either.
        with suppress(OSError):
            self._stream.close()


class Lines:
    """The records that a `LineWriter` kept in `folder`. Use `close` after use.

    Raises:
        StorageError: the files are not those of one index.
    """

    def __init__(self, folder: Path) -> None:
        import numpy as np

        try:
            loaded: list[Any] = [
                np.load(folder / f"{name}.npy", allow_pickle=False) for name in _ARRAYS
            ]
        except (OSError, ValueError, EOFError) as error:
            raise damaged(f"the index at {folder} is damaged") from error
        self._offsets, self._checksums, self._ids, self._numbers = loaded
        if [one.shape for one in loaded[1:]] != [(len(self._offsets) - 1,)] * 3:
            raise damaged(f"the index at {folder} is damaged")
        with files.storage_errors(f"{folder / LINES} cannot be read"):
            self._descriptor = files.open_file(folder / LINES)

    def __len__(self) -> int:
        return len(self._checksums)

    def __iter__(self) -> Iterator[Record]:
        return map(self.at, range(len(self)))

    def at(self, number: int) -> Record:
        """The record of `number`.

        Raises:
            StorageError: its line was changed, or there is no such number.
        """
        if not 0 <= number < len(self):
            raise damaged("the index names a record that it does not hold")
        start, stop = int(self._offsets[number]), int(self._offsets[number + 1])
        if not 0 <= stop - start <= limits.RECORD_BYTES + 1:
            raise damaged("a record of the index is damaged")
        with files.storage_errors("the index cannot be read"):
            line = os.pread(self._descriptor, stop - start, start)
        if zlib.crc32(line) != int(self._checksums[number]):
            raise damaged("a record of the index is damaged")
        try:
            return parse_record(line.removesuffix(b"\n"))
        except MemcubeError as error:
            raise damaged("a record of the index is damaged") from error

    def find(self, record_id: str) -> Record:
        """The record called `record_id`.

        Raises:
            NotFoundError: there is none.
            StorageError: its line was changed.
        """
        wanted = _hash_of(record_id)
        place = int(self._ids.searchsorted(self._ids.dtype.type(wanted)))
        while place < len(self) and int(self._ids[place]) == wanted:
            record = self.at(int(self._numbers[place]))
            if record.id == record_id:
                return record
            place += 1
        raise NotFoundError(
            f"no record {record_id[:200]!r}", hint="search for it: ids are those of this cube alone"
        )

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1


def _hash_of(record_id: str) -> int:
    return int.from_bytes(sha256(record_id.encode("utf-8", "replace")).digest()[:8], "little")
