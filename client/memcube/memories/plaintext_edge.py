"""The embedded engine: a Qdrant shard on this disk, opened in this process (qdrant-edge)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
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

from memcube.memories import machine_memory
from memcube.memories.plaintext_engine import Engine, Entry, Match, SparseVector, batches
from memcube.memories.plaintext_filters import (
    NAMES,
    SENSITIVITY,
    TIMES,
    AtMost,
    Condition,
    Conditions,
    OneOf,
)
from memcube.store import files

if TYPE_CHECKING:
    from qdrant_edge import EdgeShard

TERMS: Final = "bm25"
VECTOR: Final = "dense"
_BATCH: Final = 1000
_SPARE_BYTES: Final = 64 << 20
"""Free space, and memory, left while an index is built: more than one batch of ordinary records takes."""
_HELD_ONE_OF: Final = 2
"""Of what lies on the disk, so much is in memory while the segments are brought together."""


class EdgeEngine:
    """A shard that was built by `build`; several processes may open it at once."""

    def __init__(self, folder: Path) -> None:
        """Open the shard in `folder`.

        Raises:
            MissingDependencyError: qdrant-edge-py is not installed.
            StorageError: it is damaged.
        """
        self._edge = engine()
        with engine_failures("opened"):
            self._shard: EdgeShard = self._edge.EdgeShard.load(str(folder))

    def by_terms(self, terms: SparseVector, conditions: Conditions, limit: int) -> list[Match]:
        """See `Engine.by_terms`."""
        sparse = self._edge.SparseVector(terms.dimensions, terms.values)
        return self._nearest(sparse, TERMS, conditions, limit)

    def by_vector(self, vector: list[float], conditions: Conditions, limit: int) -> list[Match]:
        """See `Engine.by_vector`."""
        return self._nearest(vector, VECTOR, conditions, limit)

    def holding(self, conditions: Conditions, limit: int) -> list[int]:
        """See `Engine.holding`."""
        request = self._edge.ScrollRequest(limit=limit, filter=self._filter(conditions))
        with engine_failures("searched"):
            points, _ = self._shard.scroll(request)
        return sorted(int(point.id) for point in points)

    def close(self) -> None:
        """Let go of the files."""
        self._shard.close()

    def _nearest(self, asked: Any, using: str, conditions: Conditions, limit: int) -> list[Match]:
        request = self._edge.QueryRequest(
            limit=limit,
            query=self._edge.Query.Nearest(asked, using=using),
            filter=self._filter(conditions),
            with_payload=False,
        )
        with engine_failures("searched"):
            points = self._shard.query(request)
        return [Match(int(point.id), point.score) for point in points]

    def _filter(self, conditions: Conditions) -> Any:
        if not conditions.must and not conditions.must_not:
            return None
        return self._edge.Filter(
            must=[self._condition(one) for one in conditions.must],
            must_not=[self._condition(one) for one in conditions.must_not],
        )

    def _condition(self, condition: Condition) -> Any:
        edge = self._edge
        if isinstance(condition, OneOf):
            values = list(condition.values)
            match = edge.MatchAny(values) if len(values) > 1 else edge.MatchValue(values[0])
            return edge.FieldCondition(condition.field, match=match)
        if isinstance(condition, AtMost):
            return edge.FieldCondition(condition.field, range=edge.RangeFloat(lte=condition.value))
        return edge.FieldCondition(condition.field, range=edge.RangeFloat(gt=condition.value))


class EdgeEngines:
    """Makes and opens shards on this disk."""

    variant: str = ""
    said: str = ""

    def has(self, name: str) -> bool:  # noqa: ARG002
        """See `Engines.has`: what lies on this disk lies in the index's own folder."""
        return False

    def build(
        self,
        name: str,  # noqa: ARG002
        folder: Path,
        entries: Iterable[Entry],
        width: int,
    ) -> frozenset[str]:
        """See `Engines.build`; a full disk raises StorageError, full memory LimitExceededError."""
        edge = engine()
        require_space(folder, _SPARE_BYTES)
        with engine_failures("built"):
            shard = edge.EdgeShard.create(str(folder), _config(edge, width))
        held: set[str] = set()
        try:
            for batch in batches(entries, _BATCH):
                points = [_point(edge, entry) for entry in batch]
                held.update(field for entry in batch for field in entry.fields)
                require_space(folder, _SPARE_BYTES)
                require_memory(_SPARE_BYTES)
                with engine_failures("built"):
                    shard.update(edge.UpdateOperation.upsert_points(points))
            # Its segments are written once more when they are brought together.
            require_space(folder, _SPARE_BYTES + files.disk_bytes_below(folder))
            require_memory(_SPARE_BYTES + files.disk_bytes_below(folder) // _HELD_ONE_OF)
            with engine_failures("built"):
                _index_fields(edge, shard, held)
                shard.optimize()
                shard.flush()
        finally:
            shard.close()
        return frozenset(held)

    def open(self, name: str, folder: Path) -> Engine:  # noqa: ARG002
        """See `Engines.open`."""
        return EdgeEngine(folder)


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
    )


def _point(edge: Any, entry: Entry) -> Any:
    terms = edge.SparseVector(entry.terms.dimensions, entry.terms.values)
    vectors = {TERMS: terms} if entry.vector is None else {TERMS: terms, VECTOR: entry.vector}
    return edge.Point(entry.number, vectors, entry.fields)


def _index_fields(edge: Any, shard: EdgeShard, held: set[str]) -> None:
    """Index the fields that any entry has; an index of nothing costs time at every mount."""
    cold = edge.Memory.Cold
    indexes = {name: edge.KeywordIndexParams(memory=cold) for name in NAMES}
    indexes |= {name: edge.FloatIndexParams(memory=cold) for name in TIMES}
    indexes[SENSITIVITY] = edge.IntegerIndexParams(lookup=False, range=True, memory=cold)
    for name, parameters in indexes.items():
        if name in held:
            shard.update(edge.UpdateOperation.create_field_index(name, parameters))
