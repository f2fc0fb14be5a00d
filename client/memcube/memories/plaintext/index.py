"""Searching the records of a pulled cube, by words and, where there are vectors, by meaning.

    index = PlaintextIndex.open(root, cube.digest, lambda: records_of(cube.manifest, store))
    index.searched_with      # BM25 alone: the cube carries no vectors, and no embedder is named
    index.search("Which backups are there?")

An index belongs to one cube digest and one embedder. It is built beside its place, then renamed into
it, so that readers see a whole one or none; it can be deleted at any time and is built anew.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Final, Self

from memcube_protocol.content import BlobReader
from memcube_protocol.digest import Digest
from memcube_protocol.errors import NotFoundError
from memcube_protocol.media_types import RECORDS, VECTORS
from memcube_protocol.oci import Descriptor, Manifest
from memcube_protocol.records import Record
from memcube_protocol.shards import announced_bytes, read_shards

from memcube.closing import Closing
from memcube.memories.plaintext import context as plaintext_context
from memcube.memories.plaintext.build import Records
from memcube.memories.plaintext.edge import EdgeEngines
from memcube.memories.plaintext.embedders import checked
from memcube.memories.plaintext.embedding import Embedding
from memcube.memories.plaintext.engine import Engines, Match, SparseVector
from memcube.memories.plaintext.filters import (
    RELATES,
    Conditions,
    Filters,
    OneOf,
    allows,
    require_several,
)
from memcube.memories.plaintext.hit import Hit
from memcube.memories.plaintext.opening import Opener, Parts
from memcube.memories.plaintext.plugins import embedder_of
from memcube.memories.plaintext.question import weights_of
from memcube.memories.plaintext.ranking import CANDIDATES, Diversity, best, diversify, fuse
from memcube.memories.plaintext.relations import Neighbour, neighbours
from memcube.memories.plaintext.shard import engine
from memcube.memories.plaintext.vectors import CarriedVectors
from memcube.settings import Settings
from memcube.store import Store

__all__ = [
    "Diversity",
    "Filters",
    "Hit",
    "Neighbour",
    "PlaintextIndex",
    "records_bytes_of",
    "records_of",
    "vector_files",
]

_LIMIT: Final = 1000
_POINTING: Final = 1000


def records_of(manifest: Manifest, blobs: BlobReader) -> Iterator[Record]:
    """Records of a cube, shard by shard, each checked before its first record is given.

    Raises:
        NotFoundError: a shard has not been pulled.
        IntegrityError, InvalidRecordError, LimitExceededError: a shard is damaged or hostile.
    """
    return read_shards((blobs.read(layer.digest), layer) for layer in _record_layers(manifest))


def records_bytes_of(manifest: Manifest) -> int:
    """How long the lines of a cube's records are together, by what its layers say.

    Raises:
        InvalidRecordError: a layer does not say it.
    """
    return announced_bytes(_record_layers(manifest))


def _record_layers(manifest: Manifest) -> Iterator[Descriptor]:
    return (layer for layer in manifest.layers if layer.media_type == RECORDS)


def vector_files(manifest: Manifest, store: Store) -> list[Path]:
    """The files of vectors of a cube that `store` holds, each checked; those not pulled are left out.

    Raises:
        IntegrityError: one is damaged.
    """
    layers = [layer for layer in manifest.layers if layer.media_type == VECTORS]
    return [store.path(one.digest, one.size) for one in layers if store.has(one.digest)]


class PlaintextIndex(Closing):
    """The records of one cube, ready to be searched. Use `open`; close it after use."""

    def __init__(self, parts: Parts) -> None:
        self._engine = parts.engine
        self._lines = parts.lines
        self._note = parts.note
        self._embedding = parts.embedding
        self._place = parts.place

    @classmethod
    def open(
        cls,
        root: Path,
        cube: Digest,
        records: Records,
        *,
        vectors: Sequence[Path] = (),
        embedder: object = None,
        server: Engines | str | None = None,
        settings: Settings | None = None,
        records_bytes: int = 0,
    ) -> Self:
        """The index of `cube` below the folder `root`, built from `records` where it is absent.

        `vectors` are the files of vectors that the cube carries. `embedder` is an embedder, or what
        `plugins.embedder_of` takes; without one the cube's own serves, if it carries it.
        `server` is the address of a Qdrant server that a team shares, instead of the engine in this
        process; what it is told of the records stands in `server`. `settings` say which hosts
        may be asked, and how. `records_bytes` is how long the lines of the records are together, where
        that is known. The rules of the cube are asked before, by whoever mounts it.

        Raises:
            MissingDependencyError: qdrant-edge-py, or what the embedder needs, is not installed.
            DiskFullError, StorageError: the disk refuses, or the folder belongs to somebody else.
            InvalidTensorsError: a file of vectors is damaged or hostile.
            InvalidError: the embedder makes no vectors, or those of different widths.
            MemcubeError: whatever reading the records raises; nothing is left behind then.
        """
        with ExitStack() as opened:
            carried = [opened.enter_context(CarriedVectors(path)) for path in vectors]
            named = embedder_of(embedder, settings)
            embedding = Embedding.choose(carried, named)
            opener = Opener(root, cube, _engines(server, settings), embedding, records_bytes)
            return cls(opener.open(records))

    def close(self) -> None:
        """Close the files."""
        self._engine.close()
        self._lines.close()

    def __len__(self) -> int:
        return len(self._lines)

    @property
    def searched_with(self) -> str:
        """What a search goes by, in words for people: with vectors or without, whose, and why."""
        made = self._note.embedded
        some = self._embedding.carried is not None and made
        more = (
            f"; {made} records were embedded here, the cube has no vectors of them" if some else ""
        )
        return self._embedding.said + more + self._place

    def search(
        self,
        query: str,
        limit: int = 10,
        filters: Filters | None = None,
        *,
        now: datetime | None = None,
        diversity: Diversity | None = None,
    ) -> list[Hit]:
        """Up to `limit` records, at most 1000, best first.

        Records that are archived, deleted, expired, or not valid at `now` are left out.

        Raises:
            StorageError: the index is damaged.
            MemcubeError: the embedder fails.
        """
        limit = min(limit, _LIMIT)
        if limit < 1:
            return []
        asked = (filters or Filters()).conditions(now or datetime.now(UTC))
        conditions = asked.within(self._note.held)
        if conditions is None:
            return []
        ranked = self._ranked(query, conditions, max(limit, CANDIDATES))
        if diversity is not None:
            ranked = diversify(ranked, self._lines.at, diversity, limit)
        hits = (Hit(self._lines.at(match.number), match.score) for match in ranked)
        # An engine may be a server of somebody else: what it says is checked against the record.
        return list(islice((hit for hit in hits if asked.allow(hit.record)), limit))

    def context(
        self,
        query: str,
        budget_tokens: int,
        *,
        filters: Filters | None = None,
        now: datetime | None = None,
        limit: int = 50,
        diversity: Diversity | None = None,
        count_tokens: plaintext_context.CountTokens | None = None,
    ) -> str:
        """The best records for `query` as text for a prompt, in at most `budget_tokens` tokens.

        Between delimiters that no record can close, with ids to cite; empty if nothing is found.
        """
        hits = self.search(query, limit, filters, now=now, diversity=diversity)
        return plaintext_context.render((hit.record for hit in hits), budget_tokens, count_tokens)

    def read(
        self, record_id: str, *, filters: Filters | None = None, now: datetime | None = None
    ) -> Record:
        """The record called `record_id`, if it may be shown.

        Raises:
            NotFoundError: there is none, or it has expired, is not valid, or is kept back by `filters`.
        """
        record = self._lines.find(record_id)
        if not allows(filters or Filters(), record, now or datetime.now(UTC)):
            raise NotFoundError(
                f"record {record_id!r} is not to be shown",
                hint="it is outside of its time, or the filters keep it back",
            )
        return record

    def records(
        self, filters: Filters | None = None, *, now: datetime | None = None
    ) -> Iterator[Record]:
        """All records that may be shown, in the cube's order."""
        asked = (filters or Filters()).conditions(now or datetime.now(UTC))
        return filter(asked.allow, self._lines)

    def neighbours(
        self,
        record_id: str,
        *,
        types: Collection[str] = (),
        depth: int = 1,
        limit: int = 50,
        filters: Filters | None = None,
        now: datetime | None = None,
    ) -> list[Neighbour]:
        """Up to `limit` records around one by their relations, in both directions, nearest first.

        `types` are the relations to follow, all if empty; `depth` is at most 8. Cycles end where they
        began.

        Raises:
            NotFoundError: there is no such record, or it may not be shown.
            InvalidError: `types` is one text.
        """
        require_several("types", types)
        at = now or datetime.now(UTC)
        asked = (filters or Filters()).conditions(at)
        conditions = asked.within(self._note.held)

        def pointing(target: str) -> Iterator[Record]:
            if conditions is None or RELATES not in self._note.held:
                return iter(())
            must = (OneOf(RELATES, (target,)), *conditions.must)
            found = Conditions(must, conditions.must_not)
            return map(self._lines.at, self._engine.holding(found, _POINTING))

        around = neighbours(
            self.read(record_id, filters=filters, now=at),
            self._lines.find,
            pointing,
            allowed=asked.allow,
            now=at,
            types=types,
            depth=depth,
        )
        return list(islice(around, max(limit, 0)))

    def _ranked(self, query: str, conditions: Conditions, limit: int) -> list[Match]:
        """The best entries for `query` by words, or by words and vectors."""
        weights = weights_of(query, len(self))
        if not weights:
            return []
        terms, total = SparseVector.of(weights.items()), len(self)
        by_terms = best(lambda wide: self._engine.by_terms(terms, conditions, wide), limit, total)
        embedder = self._embedding.embedder
        if embedder is None:
            return by_terms
        vector = checked(embedder.query(query), 1, embedder.name, width=self._note.width)[0]
        if not vector.any():
            return by_terms
        meaning = vector.tolist()
        by_vector = best(
            lambda wide: self._engine.by_vector(meaning, conditions, wide), limit, total
        )
        return fuse(by_terms, by_vector, embedder.share)


def _engines(server: Engines | str | None, settings: Settings | None) -> Engines:
    """The engine in this process, or those of a server.

    Raises:
        MissingDependencyError: what it needs is not installed.
    """
    if server is None:
        engine()
        return EdgeEngines()
    if isinstance(server, str):
        from memcube.memories.plaintext.server import ServerEngines

        return ServerEngines.at(server, settings)
    return server
