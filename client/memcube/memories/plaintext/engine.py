"""What an index asks of a search engine: to take entries, and to rank them by terms or by a vector.

Entries are numbered from 0; the engine knows numbers, terms, vectors and fields, never a record's text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import field
from pathlib import Path
from typing import Any, Final, Protocol

from memcube_protocol import text
from memcube_protocol.values import frozen

from memcube.memories.plaintext.filters import Conditions

_BATCH_TERMS: Final = 1_000_000


@frozen
class SparseVector:
    """Weights of terms, by the numbers of the terms (`memcube_protocol.text.term_id`)."""

    dimensions: list[int]
    values: list[float]

    @classmethod
    def of(cls, weights: Iterable[tuple[str, float]]) -> SparseVector:
        """The vector of weighted terms; terms that share a number are added up."""
        vector: dict[int, float] = {}
        for term, weight in weights:
            number = text.term_id(term)
            vector[number] = vector.get(number, 0.0) + weight
        return cls(list(vector), list(vector.values()))


@frozen
class Entry:
    """One record as an engine takes it; `vector` is None where the index has none for it."""

    number: int
    terms: SparseVector
    vector: list[float] | None = None
    fields: dict[str, Any] = field(default_factory=dict[str, Any])


@frozen
class Match:
    """The number of an entry, and how well it answers; higher is better."""

    number: int
    score: float


class Engine(Protocol):
    """Ranks the entries of one index. Scores of terms are multiplied by their rarity (IDF) here."""

    def by_terms(self, terms: SparseVector, conditions: Conditions, limit: int) -> list[Match]:
        """The best `limit` entries by the sum of products with `terms`, best first.

        Raises:
            StorageError: the engine failed.
        """
        ...

    def by_vector(self, vector: list[float], conditions: Conditions, limit: int) -> list[Match]:
        """The best `limit` entries by the cosine with `vector`, best first.

        Raises:
            StorageError: the engine failed.
        """
        ...

    def holding(self, conditions: Conditions, limit: int) -> list[int]:
        """Numbers of the first `limit` entries of which `conditions` hold, ascending.

        Raises:
            StorageError: the engine failed.
        """
        ...

    def close(self) -> None:
        """Close files and connections."""
        ...


class Engines(Protocol):
    """Makes and opens indexes by name: in a folder on this machine, or on a server."""

    @property
    def variant(self) -> str:
        """What tells indexes that are kept there from others of the same cube; empty for this disk."""
        ...

    @property
    def said(self) -> str:
        """What people are told of it, behind what a search goes by."""
        ...

    def has(self, name: str) -> bool:
        """Whether the index `name` is there already, made by somebody else."""
        ...

    def build(
        self, name: str, folder: Path, entries: Iterable[Entry], width: int
    ) -> frozenset[str]:
        """Make the index `name` of `entries`; says which fields they have.

        Its files go into `folder`. `width` is that of vectors, 0 without them.

        Raises:
            StorageError, NetworkError: it could not be made; nothing of it can be seen.
        """
        ...

    def open(self, name: str, folder: Path) -> Engine:
        """The index `name`, whose files lie in `folder`.

        Raises:
            StorageError: it is damaged, or not there.
            NetworkError: a server does not answer.
        """
        ...


def batches(entries: Iterable[Entry], size: int) -> Iterator[list[Entry]]:
    """`entries` in lists of `size`, or of fewer that have a million terms together."""
    batch: list[Entry] = []
    terms = 0
    for entry in entries:
        batch.append(entry)
        terms += len(entry.terms.dimensions)
        if len(batch) == size or terms >= _BATCH_TERMS:
            yield batch
            batch, terms = [], 0
    if batch:
        yield batch
