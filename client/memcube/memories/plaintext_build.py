"""Building the search index of a cube's records: a Qdrant shard with BM25 weights, on this disk.

The weights follow Robertson's BM25 (k1 1.2, b 0.75) over the terms of `memcube_protocol.text`; the
engine multiplies by the inverse document frequency when it searches.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from memcube_protocol import text, timestamps
from memcube_protocol.errors import MissingDependencyError, StorageError
from memcube_protocol.governance import SENSITIVITIES
from memcube_protocol.records import Record, write_record

if TYPE_CHECKING:
    from qdrant_edge import EdgeShard, Point

Records = Callable[[], Iterable[Record]]
"""Gives a cube's records anew each time: the index reads them twice and keeps none."""

VECTOR: Final = "bm25"
FOREVER: Final = 1e15
"""Seconds that no record reaches: the end of what has no end, negative for the beginning."""

_K1: Final = 1.2
_B: Final = 0.75
_BATCH: Final = 1000
_HIDDEN: Final = frozenset({"archived", "deleted"})


@dataclass(frozen=True, slots=True)
class Statistics:
    """What the build found: records indexed, and their average number of terms."""

    records: int
    average_terms: float
    timed: bool


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


def build(folder: Path, records: Records) -> Statistics:
    """Index `records` into the empty `folder`; archived and deleted ones are left out."""
    edge = engine()
    statistics = _survey(records)
    with engine_failures("built"):
        shard = edge.EdgeShard.create(str(folder), _config(edge))
    try:
        points = _points(edge, records, statistics.average_terms)
        for batch in _batches(points, _BATCH):
            with engine_failures("built"):
                shard.update(edge.UpdateOperation.upsert_points(batch))
        with engine_failures("built"):
            _index_fields(edge, shard)
            shard.optimize()
            shard.flush()
    finally:
        shard.close()
    return statistics


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


def checksum(line: bytes) -> int:
    """CRC-32 of a record's line: the index is a copy that is not hashed when it is opened."""
    return zlib.crc32(line)


def indexed_text(record: Record) -> str:
    """What `record` is found by: its text, subject, tags and entities."""
    return "\n".join((record.text, record.subject or "", *record.tags, *record.entities))


def merge_terms(weights: Iterable[tuple[str, float]]) -> tuple[list[int], list[float]]:
    """Dimensions and values of a sparse vector; terms that share a dimension are added up."""
    vector: dict[int, float] = {}
    for term, weight in weights:
        dimension = text.term_id(term)
        vector[dimension] = vector.get(dimension, 0.0) + weight
    return list(vector), list(vector.values())


def _config(edge: Any) -> Any:
    # The index is a copy that can be built anew, and is never changed: no write-ahead log, so that
    # several processes can open it at once.
    sparse = edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf, memory=edge.Memory.Cached)
    return edge.EdgeConfig(sparse_vectors={VECTOR: sparse}, wal_enabled=False)


def _survey(records: Records) -> Statistics:
    count = total = 0
    timed = False
    for record in _visible(records):
        count += 1
        total += len(text.terms(indexed_text(record)))
        timed = timed or any((record.valid_from, record.valid_to, record.expires_at))
    return Statistics(count, max(total / count, 1.0) if count else 1.0, timed)


def _visible(records: Records) -> Iterator[Record]:
    return (record for record in records() if record.status not in _HIDDEN)


def _points(edge: Any, records: Records, average: float) -> Iterator[Point]:
    for position, record in enumerate(_visible(records)):
        counts = Counter(text.terms(indexed_text(record)))
        damping = _K1 * (1 - _B + _B * counts.total() / average)
        dimensions, values = merge_terms(
            (term, count * (_K1 + 1) / (count + damping)) for term, count in counts.items()
        )
        vector = {VECTOR: edge.SparseVector(dimensions, values)}
        yield edge.Point(position, vector, _payload(record, dimensions))


def _payload(record: Record, dimensions: list[int]) -> dict[str, Any]:
    ends = [_seconds(time) for time in (record.valid_to, record.expires_at) if time]
    line = write_record(record)
    return {
        "line": line.decode(),
        "checksum": checksum(line),
        "terms": dimensions,
        "type": record.type,
        "subject": record.subject or "",
        "tags": list(record.tags),
        "sensitivity": SENSITIVITIES.index(record.sensitivity or SENSITIVITIES[0]),
        "from": _seconds(record.valid_from) if record.valid_from else -FOREVER,
        "until": min(ends, default=FOREVER),
    }


def _index_fields(edge: Any, shard: EdgeShard) -> None:
    lookup = edge.IntegerIndexParams(lookup=True, range=False)
    ranges = edge.IntegerIndexParams(lookup=False, range=True)
    indexes = {
        "terms": lookup,
        "type": edge.KeywordIndexParams(),
        "subject": edge.KeywordIndexParams(),
        "tags": edge.KeywordIndexParams(),
        "sensitivity": ranges,
        "from": edge.FloatIndexParams(),
        "until": edge.FloatIndexParams(),
    }
    for name, parameters in indexes.items():
        shard.update(edge.UpdateOperation.create_field_index(name, parameters))


def _seconds(time: str) -> float:
    return timestamps.moment(time).timestamp()


def _batches(points: Iterable[Point], size: int) -> Iterator[list[Point]]:
    batch: list[Point] = []
    for point in points:
        batch.append(point)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
