"""Making a shard of the embedded engine (qdrant-edge): filled in portions, so that memory does not grow with it.

What the engine was given it holds in memory until it writes it for good, as a segment that is read from the
disk. A portion is one segment. Each is searched for itself, so there are few of them, and an index of
ordinary size is one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from memcube_protocol.errors import (
    DiskFullError,
    LimitExceededError,
    MissingDependencyError,
    StorageError,
)

from memcube.closing import Closing
from memcube.memories import machine_memory
from memcube.memories.plaintext.engine import Entry
from memcube.memories.plaintext.filters import NAMES, SENSITIVITY, TIMES
from memcube.store import files

if TYPE_CHECKING:
    from qdrant_edge import EdgeShard

TERMS: Final = "bm25"
VECTOR: Final = "dense"
_PORTION_RECORDS: Final = 50_000
_PORTION_BYTES: Final = 128 << 20
"""Most that a portion may have; what is in memory meanwhile is a small multiple."""
_TERM_BYTES: Final = 16
_NUMBER_BYTES: Final = 4
_WRITTEN_FROM_KB: Final = 10_000
"""Terms or vectors of fewer KB than this stay in a segment that could still be added to: its files are smaller."""
_MOST_SEGMENTS: Final = 1_000_000
"""So many are never brought together: that would take the memory of all of them."""
_SPARE_BYTES: Final = 64 << 20
"""Free space, and memory, left while an index is built: more than one batch of ordinary records takes."""
_HELD_ONE_OF: Final = 2
"""Of what a portion takes on the disk, so much is in memory while it is written for good."""


class Filling(Closing):
    """A new shard in `folder`, with vectors of `width` numbers (0: none). Use `close` after use.

    Raises:
        MissingDependencyError: qdrant-edge-py is not installed.
        DiskFullError, LimitExceededError: the disk, or memory, has too little room for an index.
        StorageError: the engine failed.
    """

    def __init__(self, folder: Path, width: int) -> None:
        self._edge = engine()
        self._folder = folder
        self._width = width
        self._indexed: set[str] = set()
        self._records = self._bytes = self._written_bytes = 0
        require_space(folder, _SPARE_BYTES)
        with engine_failures("built"):
            self._shard: EdgeShard = self._edge.EdgeShard.create(
                str(folder), _config(self._edge, width)
            )

    def add(self, batch: Sequence[Entry], held: Set[str]) -> None:
        """Take a batch of entries, which have the fields `held` together with those before.

        Raises:
            DiskFullError, LimitExceededError, StorageError: as of the shard itself.
        """
        points = [_point(self._edge, entry) for entry in batch]
        require_space(self._folder, _SPARE_BYTES)
        require_memory(_SPARE_BYTES)
        with engine_failures("built"):
            self._shard.update(self._edge.UpdateOperation.upsert_points(points))
        self._records += len(batch)
        self._bytes += sum(len(entry.terms.dimensions) for entry in batch) * _TERM_BYTES
        self._bytes += len(batch) * self._width * _NUMBER_BYTES
        if self._records >= _PORTION_RECORDS or self._bytes >= _PORTION_BYTES:
            self.finish(held)
            self._open_anew()

    def finish(self, held: Set[str]) -> None:
        """Write what was taken for good, and index the fields that entries have, `held`.

        Raises:
            DiskFullError, LimitExceededError, StorageError: as of the shard itself.
        """
        taken = files.disk_bytes_below(self._folder) - self._written_bytes
        require_space(self._folder, _SPARE_BYTES + taken)
        require_memory(_SPARE_BYTES + taken // _HELD_ONE_OF)
        with engine_failures("built"):
            self._index(held)
            self._shard.optimize()
            self._shard.flush()
        self._records = self._bytes = 0
        self._written_bytes = files.disk_bytes_below(self._folder)

    def close(self) -> None:
        """Close the files; a second time does nothing."""
        self._shard.close()

    def _open_anew(self) -> None:
        """Free the memory of what was written: the engine keeps it as long as the shard is open."""
        with engine_failures("built"):
            self._shard.close()
            self._shard = self._edge.EdgeShard.load(str(self._folder))

    def _index(self, held: Set[str]) -> None:
        # An index of nothing costs time at every mount; and graphs of vectors are made for what is indexed.
        for name, parameters in _fields(self._edge).items():
            if name in held - self._indexed:
                self._shard.update(self._edge.UpdateOperation.create_field_index(name, parameters))
        self._indexed |= held


def require_space(folder: Path, size_bytes: int) -> None:
    """Refuse to go on without `size_bytes` of free space on the disk of `folder`.

    The engine writes through maps of its files: a disk that is full kills the process, without an error.

    Raises:
        DiskFullError: there is less.
    """
    with files.storage_errors(f"{folder} cannot be looked at"):
        disk = os.statvfs(folder)
    free = disk.f_bavail * disk.f_frsize
    if free < size_bytes:
        raise DiskFullError(
            f"the index needs {size_bytes >> 20} MiB more on its disk, and {free >> 20} are free",
            hint="free some space (`memcube prune`), then mount again",
        )


def require_memory(size_bytes: int) -> None:
    """Refuse to go on without `size_bytes` of free memory: where it ends, the system kills a process unasked.

    Raises:
        LimitExceededError: there is less.
    """
    free = machine_memory.free_bytes()
    if free is not None and free < size_bytes:
        raise LimitExceededError(
            f"the index needs {size_bytes >> 20} MiB more of memory, and {free >> 20} are free",
            hint="close other programs, choose a part of the cube with --filter, or search with a Qdrant server "
            "(--search-server)",
        )


def engine() -> ModuleType:
    """The module `qdrant_edge`.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import qdrant_edge
    except ImportError:
        raise MissingDependencyError(
            "searching records needs qdrant-edge-py, which is not installed",
            hint="pip install 'memcube[plaintext]'",
        ) from None
    return qdrant_edge


@contextmanager
def engine_failures(done: str) -> Iterator[None]:
    """Turns what the engine raises into our error; `done` says what was being done to the index.

    Raises:
        StorageError: the engine failed: a full disk, or a damaged index.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        # Its errors are bare exceptions, and a panic derives from BaseException only.
        raise damaged(f"the index cannot be {done} ({str(error)[:200]})") from error


def damaged(what: str) -> StorageError:
    """The error of an index that cannot be used."""
    return StorageError(
        what, hint="free some space, delete the folder `indexes` of the store, and mount again"
    )


def _config(edge: Any, width: int) -> Any:
    # The index is a copy that can be built anew, and is never changed: no write-ahead log, so that
    # several processes can open it at once. Nothing is read before it is asked for: a mount is short.
    cold = edge.Memory.Cold
    sparse = edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf, memory=cold)
    dense = edge.EdgeVectorParams(width, edge.Distance.Cosine, memory=cold) if width else None
    return edge.EdgeConfig(
        vectors={VECTOR: dense} if dense else None,
        sparse_vectors={TERMS: sparse},
        wal_enabled=False,
        optimizers=edge.EdgeOptimizersConfig(
            default_segment_number=_MOST_SEGMENTS, indexing_threshold=_WRITTEN_FROM_KB
        ),
    )


def _point(edge: Any, entry: Entry) -> Any:
    terms = edge.SparseVector(entry.terms.dimensions, entry.terms.values)
    vectors = {TERMS: terms} if entry.vector is None else {TERMS: terms, VECTOR: entry.vector}
    return edge.Point(entry.number, vectors, entry.fields)


def _fields(edge: Any) -> dict[str, Any]:
    """How each field is indexed that conditions ask for."""
    cold = edge.Memory.Cold
    indexes = {name: edge.KeywordIndexParams(memory=cold) for name in NAMES}
    indexes |= {name: edge.FloatIndexParams(memory=cold) for name in TIMES}
    indexes[SENSITIVITY] = edge.IntegerIndexParams(lookup=False, range=True, memory=cold)
    return indexes
