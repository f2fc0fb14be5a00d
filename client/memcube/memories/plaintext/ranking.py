"""The order of what was found: two rankings made one, and near-duplicates and crowds thinned out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from memcube_protocol import text
from memcube_protocol.errors import InvalidError
from memcube_protocol.records import Record
from memcube_protocol.values import frozen

from memcube.memories.plaintext.engine import Match

CANDIDATES: Final = 50
"""Entries that each ranking gives to be fused; more measured no better."""
_COMPARED_CHARS: Final = 8192
"""Of a text, so much is compared with others: a hundred of a mebibyte would take minutes, and gigabytes."""
_SPARE: Final = 14
_WIDER: Final = 8
_WIDEST: Final = 8192
"""Of more that answer alike an engine's choice is taken: to look at a million of them takes a quarter of a minute."""


@frozen(kw_only=True)
class Diversity:
    """How much what is found may repeat itself.

    `weight`, 0 to 1, is what likeness to what stands above costs (maximal marginal relevance: 0 ranks by
    relevance alone). At most `per_source` records come from one conversation, document or system.

    Raises:
        InvalidError: a number out of its bounds.
    """

    weight: float = 0.0
    per_source: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1 or (self.per_source is not None and self.per_source < 1):
            raise InvalidError(
                f"a diversity of {self.weight} with {self.per_source} a source is refused",
                hint="the weight lies between 0 and 1, and at least one record a source is allowed",
            )


def best(ask: Callable[[int], Sequence[Match]], limit: int, total: int) -> list[Match]:
    """The best `limit` of `total` entries that `ask` ranks, those of one score by number.

    An engine orders these by chance, differently in each index that is built, and chooses among them
    where they do not all fit. So it is asked for more until the last of them is in, up to a bound.
    """
    wide, widest = limit + _SPARE, min(total, _WIDEST)
    while True:
        found = ask(wide)
        if len(found) < wide or wide >= widest or found[limit - 1].score > found[-1].score:
            break
        wide = min(wide * _WIDER, widest)
    return sorted(found, key=lambda match: (-match.score, match.number))[:limit]


def fuse(by_terms: Sequence[Match], by_vector: Sequence[Match], share: float) -> list[Match]:
    """Both rankings as one, the vectors counting `share`: each score is divided by the best of its ranking.

    An entry that only one ranking holds gets what the last of the other has, if that one was full: it
    came no higher there, and nothing more is known. Measured in docs/adr/0034 against reciprocal ranks.
    """
    words, meanings = _Scale.of(by_terms), _Scale.of(by_vector)
    numbers = words.scores.keys() | meanings.scores.keys()
    fused = [
        Match(number, (1 - share) * words.of_entry(number) + share * meanings.of_entry(number))
        for number in numbers
    ]
    return sorted(fused, key=lambda match: (-match.score, match.number))


@frozen
class _Scale:
    """Scores between 0 and 1 by entry; `floor` is that of entries which the ranking does not hold."""

    scores: dict[int, float]
    floor: float = 0.0

    @classmethod
    def of(cls, matches: Sequence[Match]) -> _Scale:
        best = max((match.score for match in matches), default=0.0)
        if best <= 0:
            return cls({})
        scores = {match.number: max(match.score, 0.0) / best for match in matches}
        return cls(scores, min(scores.values()) if len(scores) >= CANDIDATES else 0.0)

    def of_entry(self, number: int) -> float:
        return self.scores.get(number, self.floor)


def diversify(
    matches: Sequence[Match], record_of: Callable[[int], Record], diversity: Diversity, limit: int
) -> list[Match]:
    """The first `limit` of `matches` in the order that `diversity` gives them.

    Of long texts the beginnings are compared.
    """
    records = {match.number: record_of(match.number) for match in matches}
    terms = {
        number: frozenset(text.terms(record.text[:_COMPARED_CHARS]))
        for number, record in records.items()
    }
    best = max((match.score for match in matches), default=0.0) or 1.0
    waiting, chosen = list(matches), list[Match]()
    alike = dict.fromkeys(records, 0.0)
    crowd: Counter[str] = Counter()
    while waiting and len(chosen) < limit:
        top = max(
            waiting,
            key=lambda one: (
                (1 - diversity.weight) * one.score / best - diversity.weight * alike[one.number]
            ),
        )
        waiting.remove(top)
        source = _source_of(records[top.number])
        if source and diversity.per_source and crowd[source] >= diversity.per_source:
            continue
        crowd[source] += 1
        chosen.append(top)
        for one in waiting:
            likeness = _likeness(terms[top.number], terms[one.number])
            alike[one.number] = max(alike[one.number], likeness)
    return chosen


def _likeness(one: frozenset[str], other: frozenset[str]) -> float:
    """The terms that both texts hold, out of all (Jaccard)."""
    return len(one & other) / (len(one | other) or 1)


def _source_of(record: Record) -> str:
    source = record.source
    return (source.conversation or source.uri or source.system or "") if source else ""
