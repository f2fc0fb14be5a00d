"""The embedded engine: a Qdrant shard on this disk, opened in this process (qdrant-edge)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from memcube.memories.plaintext.engine import Engine, Entry, Match, SparseVector, batches
from memcube.memories.plaintext.filters import AtMost, Condition, Conditions, OneOf
from memcube.memories.plaintext.shard import TERMS, VECTOR, Filling, engine, engine_failures

if TYPE_CHECKING:
    from qdrant_edge import EdgeShard

_BATCH: Final = 1000


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
        """Close the files."""
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
        held: set[str] = set()
        with Filling(folder, width) as filling:
            for batch in batches(entries, _BATCH):
                held.update(field for entry in batch for field in entry.fields)
                filling.add(batch, held)
            filling.finish(held)
        return frozenset(held)

    def open(self, name: str, folder: Path) -> Engine:  # noqa: ARG002
        """See `Engines.open`."""
        return EdgeEngine(folder)
