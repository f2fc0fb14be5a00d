"""Building the index of a cube's records: their lines on this disk, and entries for a search engine.

The weights follow Robertson's BM25 (k1 1.2, b 0.75) over the terms of `memcube_protocol.text`; the
engine multiplies by the inverse document frequency when it searches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Final
from zlib import crc32

from memcube_protocol import text
from memcube_protocol.governance import SENSITIVITIES
from memcube_protocol.records import Record
from memcube_protocol.values import frozen
from memcube_protocol.vectors import indexed_text

from memcube.memories.plaintext.embedding import Embedding
from memcube.memories.plaintext.engine import Entry, SparseVector
from memcube.memories.plaintext.filters import HIDDEN, fields_of
from memcube.memories.plaintext.lines import LineWriter

Records = Callable[[], Iterable[Record]]
"""Gives a cube's records anew each time: the index reads them more than once and keeps none."""

_K1: Final = 1.2
_B: Final = 0.75
_BATCH: Final = 64
_COUNTED: Final = 20_000
_ONE_OF: Final = 16


@dataclass(slots=True)
class _Lengths:
    """Lengths in terms, of which the average is wanted."""

    count: int = 0
    total: int = 0

    def add(self, length: int) -> None:
        self.count += 1
        self.total += length

    @property
    def average(self) -> float:
        return max(self.total / self.count, 1.0) if self.count else 1.0


@frozen
class Survey:
    """What a first reading finds: records to index, and their average length in terms.

    Of more than 20 000 records the average is that of one in sixteen, chosen by their ids.
    """

    records: int
    average_length: float

    @classmethod
    def of(cls, records: Records) -> Survey:
        """The survey of `records`."""
        count, every, some = 0, _Lengths(), _Lengths()
        for record in visible(records):
            count += 1
            is_sampled = crc32(record.id.encode()) % _ONE_OF == 0
            if count <= _COUNTED or is_sampled:
                _, length = text.measured_terms(indexed_text(record))
                every.add(length)
                if is_sampled:
                    some.add(length)
        return cls(count, (every if count <= _COUNTED else some).average)


@dataclass(slots=True)
class Entries:
    """The entries of `records` for an engine, one reading; their lines go into `folder` on the way.

    Afterwards `embedded` says how many vectors were made here, and `width` how wide they are.
    """

    records: Records
    survey: Survey
    embedding: Embedding
    folder: Path
    width: int
    embedded: int = 0

    def __iter__(self) -> Iterator[Entry]:
        with LineWriter(self.folder) as lines:
            waiting = enumerate(visible(self.records))
            while batch := list(islice(waiting, _BATCH)):
                for _, record in batch:
                    lines.add(record)
                yield from self._entries(batch)
            lines.close()

    def _entries(self, batch: list[tuple[int, Record]]) -> Iterator[Entry]:
        texts = [indexed_text(record) for _, record in batch]
        vectors: list[list[float] | None] = [None] * len(batch)
        if self.width:
            made, missing = self.embedding.vectors(texts, self.width)
            vectors = [None if one is None else one.tolist() for one in made]
            self.embedded += missing
        for (number, record), its_text, vector in zip(batch, texts, vectors, strict=True):
            terms = self._weights(its_text)
            yield Entry(number, terms, vector, fields_of(record))

    def _weights(self, its_text: str) -> SparseVector:
        terms, length = text.measured_terms(its_text)
        counts = Counter(map(text.term_id, terms))
        damping = _K1 * (1 - _B + _B * length / self.survey.average_length)
        values = [count * (_K1 + 1) / (count + damping) for count in counts.values()]
        return SparseVector(list(counts), values)


def visible(records: Records) -> Iterator[Record]:
    """Those of `records` that may ever be retrieved."""
    return (record for record in records() if record.status not in HIDDEN)


def labelled(records: Records, sensitivity: str) -> Iterable[Record]:
    """`records` of a cube of this `sensitivity`: one without a label of its own has that of the cube."""
    if sensitivity == SENSITIVITIES[0]:
        return records()
    return (
        record if record.sensitivity else replace(record, sensitivity=sensitivity)
        for record in records()
    )
