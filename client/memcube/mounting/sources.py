"""Where a mounted memory finds records: the index of a cube, and the overlay of its user."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from heapq import merge
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from memcube_protocol.errors import NotFoundError
from memcube_protocol.records import Record

from memcube.memories.plaintext.hit import Hit
from memcube.memories.turns import Shared, unmounted
from memcube.mounting.forgotten import ForgottenRecord
from memcube.mounting.hits import gather

if TYPE_CHECKING:
    from memcube.memories.plaintext.index import Filters, PlaintextIndex
    from memcube.memories.plaintext.relations import Neighbour


class Findable(Protocol):
    """Records that may be shown; `name` is what their hits call the cube."""

    @property
    def name(self) -> str:
        """The reference's text, or another name where there is no reference."""
        ...

    def search(self, query: str, limit: int, filters: Filters | None) -> list[Hit]:
        """Up to `limit` records that answer `query`, best first."""
        ...

    def read(self, record_id: str) -> Record:
        """The record of this id.

        Raises:
            NotFoundError: there is none that may be shown.
        """
        ...

    def records(self) -> Iterator[Record]:
        """All that may be shown, in order of id."""
        ...


@runtime_checkable
class Related(Protocol):
    """Records that name one another."""

    def neighbours(
        self,
        record_id: str,
        *,
        types: Collection[str],
        depth: int,
        limit: int,
        filters: Filters | None,
    ) -> list[Neighbour]:
        """Records around one by their relations, in both directions, nearest first."""
        ...


class RecordSource(Findable, Protocol):
    """Records that lie in files."""

    def close(self) -> None:
        """Close the files."""
        ...


class Overlay(RecordSource, Protocol):
    """A cube of the user's own that grows beside those that were mounted."""

    def remember(self, text: str, **fields: Any) -> Record:
        """Keep `text` with further `fields` of a record; those that are None are left to the overlay.

        Says what was kept.
        """
        ...

    def forget(self, record_id: str) -> ForgottenRecord:
        """Never show the record of this id again; returns where copies of it remain.

        Raises:
            NotFoundError: there is none.
        """
        ...


class Joined:
    """What one cube has in several places: its records, then passages of texts that it carries."""

    def __init__(self, sources: Sequence[Findable]) -> None:
        self.name = sources[0].name
        self._sources = tuple(sources)

    def search(self, query: str, limit: int, filters: Filters | None) -> list[Hit]:
        """See `Findable.search`; the places take turns."""
        searches = [(1, partial(one.search, query, filters=filters)) for one in self._sources]
        return gather(searches, limit)

    def read(self, record_id: str) -> Record:
        """See `Findable.read`."""
        for source in self._sources[:-1]:
            with suppress(NotFoundError):
                return source.read(record_id)
        return self._sources[-1].read(record_id)

    def records(self) -> Iterator[Record]:
        """See `Findable.records`."""
        return merge(*(source.records() for source in self._sources), key=attrgetter("id"))

    def neighbours(self, record_id: str, **how: Any) -> list[Neighbour]:
        """See `Related.neighbours`; a passage of a text has none."""
        for source in self._sources:
            if isinstance(source, Related):
                with suppress(NotFoundError):
                    return source.neighbours(record_id, **how)
        return []


class CubeRecords:
    """The records of one cube, from its index, which is closed while nobody reads it.

    Raises:
        ConflictError: the cube was unmounted; whatever is asked.
    """

    def __init__(self, name: str, index: PlaintextIndex) -> None:
        self.name = name
        self._index: PlaintextIndex | None = index
        self._shared = Shared()

    def __len__(self) -> int:
        with self._opened() as index:
            return len(index)

    @property
    def searched_with(self) -> str:
        """See `PlaintextIndex.searched_with`."""
        with self._opened() as index:
            return index.searched_with

    def search(self, query: str, limit: int, filters: Filters | None) -> list[Hit]:
        """See `Findable.search`."""
        with self._opened() as index:
            found = index.search(query, limit, filters)
        return [replace(hit, cube=self.name) for hit in found]

    def read(self, record_id: str) -> Record:
        """See `Findable.read`."""
        with self._opened() as index:
            return index.read(record_id)

    def records(self) -> Iterator[Record]:
        """See `Findable.records`; it may be unmounted between two of them."""
        with self._opened() as index:
            records = index.records()
        yield from self._shared.each(records, self._require_open)

    def neighbours(self, record_id: str, **how: Any) -> list[Neighbour]:
        """See `Related.neighbours`."""
        with self._opened() as index:
            return index.neighbours(record_id, **how)

    def close(self) -> None:
        """See `RecordSource.close`."""
        with self._shared.changing():
            index, self._index = self._index, None
            if index is not None:
                index.close()

    @contextmanager
    def _opened(self) -> Iterator[PlaintextIndex]:
        with self._shared.using():
            yield self._require_open()

    def _require_open(self) -> PlaintextIndex:
        if self._index is None:
            raise unmounted()
        return self._index
