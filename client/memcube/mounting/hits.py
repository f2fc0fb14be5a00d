"""Records found in several cubes, brought into one order.

Scores of two cubes cannot be compared: each was reckoned over that cube's own records. So ranks are
fused, in shares by priority (virtual time, as fair queues do): the r-th hit of a cube of priority p
stands at r / p. A cube of twice the priority gives two hits for one of the other, and the best hit
of every cube comes after at most ceil(q / p) hits of each other cube, of priority q.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from memcube_protocol.values import frozen

from memcube.memories.plaintext.hit import Hit

if TYPE_CHECKING:
    from memcube.memories.plaintext.ranking import Diversity

_MOST: Final = 1000
"""Hits that one cube gives at most; what it is asked for is never more for its duplicates' sake."""
_WIDER: Final = 4


class Hits(list[Hit]):
    """Hits in their order; a notebook shows them as a table."""

    def _repr_html_(self) -> str:
        from memcube.mounting.notebook import table

        rows = [(f"{hit.score:.3g}", hit.cube, hit.record.id, hit.record.text) for hit in self]
        return table(("score", "cube", "id", "text"), rows)


@frozen
class Ranking:
    """The hits of one cube, best first, and the cube's priority, 1 or more."""

    priority: int
    hits: Sequence[Hit]


def fuse(rankings: Sequence[Ranking], limit: int) -> list[Hit]:
    """The first `limit` hits of all `rankings` in fair shares; the same text is given once.

    Where two stand at the same place, the cube of the higher priority comes first, then the one
    that was named first.
    """
    queue = sorted(
        (
            (rank / ranking.priority, -ranking.priority, position, hit)
            for position, ranking in enumerate(rankings)
            for rank, hit in enumerate(ranking.hits, 1)
        ),
        key=lambda entry: entry[:3],
    )
    told: dict[str, Hit] = {}
    for *_, hit in queue:
        told.setdefault(hit.record.text, hit)
    return list(told.values())[: max(limit, 0)]


def gather(sources: Sequence[tuple[int, Callable[[int], Sequence[Hit]]]], limit: int) -> list[Hit]:
    """The first `limit` hits of `sources`, each a priority and what searches it; see `fuse`.

    A text that stands in a cube often takes one place: where that leaves places free, more is asked for.
    """
    wide = limit
    while True:
        rankings = [Ranking(priority, search(wide)) for priority, search in sources]
        hits = fuse(rankings, limit)
        has_more = any(len(ranking.hits) >= wide for ranking in rankings)
        if len(hits) >= limit or not has_more or wide >= _MOST:
            return hits
        wide = min(wide * _WIDER, _MOST)


def spread(hits: Sequence[Hit], diversity: Diversity, limit: int) -> list[Hit]:
    """The first `limit` of `hits` that repeat one another no more than `diversity` allows.

    Their places stand for relevance, since scores of two cubes cannot be compared.
    """
    from memcube.memories.plaintext.engine import Match
    from memcube.memories.plaintext.ranking import diversify

    matches = [Match(place, 1 - place / len(hits)) for place in range(len(hits))]
    chosen = diversify(matches, lambda place: hits[place].record, diversity, limit)
    return [hits[match.number] for match in chosen][: max(limit, 0)]
