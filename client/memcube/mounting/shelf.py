"""The records of several cubes and of the user's overlay, searched and read as one."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from memcube_protocol.errors import NotFoundError
from memcube_protocol.governance import SENSITIVITIES
from memcube_protocol.records import Record
from memcube_protocol.values import frozen

from memcube.memories.plaintext.hit import Hit
from memcube.mounting.hits import gather, spread
from memcube.mounting.sources import Findable, Related

if TYPE_CHECKING:
    from memcube.memories.plaintext.index import Filters
    from memcube.memories.plaintext.ranking import Diversity
    from memcube.memories.plaintext.relations import Neighbour

_CANDIDATES: Final = 100
"""Hits among which a search that may not repeat itself chooses."""


@frozen
class Shelf:
    """`sources` of records, each with its priority; none above the sensitivity `ceiling` is shown."""

    sources: tuple[tuple[int, Findable], ...]
    ceiling: str

    def search(
        self, query: str, limit: int, filters: Filters | None, diversity: Diversity | None = None
    ) -> list[Hit]:
        """The records that answer `query`, best first, of all sources in fair shares."""
        capped = self.capped(filters)
        wide = limit if diversity is None else max(limit, _CANDIDATES)
        searches = [
            (share, partial(source.search, query, filters=capped)) for share, source in self.sources
        ]
        hits = gather(searches, wide)
        return hits if diversity is None else spread(hits, diversity, limit)

    def read(self, record_id: str, cube: str | None) -> Hit:
        """The record of this id: of `cube`, or of the first source that has it.

        Raises:
            NotFoundError: no source has it, or there is no such cube.
        """
        for _, source in self.sources:
            if cube in (None, source.name):
                with suppress(NotFoundError):
                    record = source.read(record_id)
                    if not self._is_above(record):
                        return Hit(record, 1.0, source.name)
        names = ", ".join(source.name for _, source in self.sources) or "no cube with records"
        where = "" if cube is None else f" in {cube[:200]}"
        raise NotFoundError(
            f"there is no record {record_id[:200]!r}{where} that may be shown",
            hint=f"mounted: {names}",
        )

    def neighbours(
        self, hit: Hit, *, types: Collection[str], depth: int, limit: int, filters: Filters | None
    ) -> list[Neighbour]:
        """Records around that of `hit` by their relations; none where its source keeps no relations."""
        capped = self.capped(filters)
        for _, source in self.sources:
            if source.name == hit.cube and isinstance(source, Related):
                return source.neighbours(
                    hit.record.id, types=types, depth=depth, limit=limit, filters=capped
                )
        return []

    def records(self) -> Iterator[Hit]:
        """All records that may be shown, source by source, each in order of id."""
        for _, source in self.sources:
            yield from self.records_of(source)

    def records_of(self, source: Findable) -> Iterator[Hit]:
        """As `records`, of one source alone."""
        for record in source.records():
            if not self._is_above(record):
                yield Hit(record, 1.0, source.name)

    def capped(self, filters: Filters | None) -> Filters | None:
        """`filters` that ask for nothing above the ceiling."""
        if self.ceiling == SENSITIVITIES[-1]:
            return filters
        from memcube.memories.plaintext.filters import Filters

        asked = filters or Filters()
        lower = min(asked.sensitivity, self.ceiling, key=SENSITIVITIES.index)
        return replace(asked, sensitivity=lower)

    def _is_above(self, record: Record) -> bool:
        label = record.sensitivity or SENSITIVITIES[0]
        return SENSITIVITIES.index(label) > SENSITIVITIES.index(self.ceiling)
