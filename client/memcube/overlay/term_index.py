"""Searching a few thousand records that change at every call: BM25 in memory, one record at a time.

Terms and scores are those of a cube's own index (docs/spec/records.md, "Search"), so that hits of
both can be ranked together.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Final

from memcube_protocol import text

_K1: Final = 1.2
_B: Final = 0.75


class TermIndex:
    """Which of the texts added so far hold which terms. Ids are the caller's."""

    def __init__(self) -> None:
        self._terms: dict[str, tuple[str, ...]] = {}
        self._lengths: dict[str, int] = {}
        self._holders: defaultdict[str, dict[str, int]] = defaultdict(dict)
        self._total = 0

    def __len__(self) -> int:
        return len(self._lengths)

    def add(self, name: str, content: str) -> None:
        """Index `content` as `name`, in place of what was there."""
        self.remove(name)
        terms, length = text.measured_terms(content)
        counts = Counter(terms)
        self._terms[name] = tuple(counts)
        self._lengths[name] = length
        self._total += self._lengths[name]
        for term, count in counts.items():
            self._holders[term][name] = count

    def remove(self, name: str) -> None:
        """Find `name` no longer; nothing happens if it is not there."""
        if name not in self._lengths:
            return
        self._total -= self._lengths.pop(name)
        for term in self._terms.pop(name):
            holders = self._holders[term]
            del holders[name]
            if not holders:
                del self._holders[term]

    def ranked(self, weights: Mapping[str, float]) -> Iterator[tuple[str, float]]:
        """Names with any of the weighted terms, best first; who wants the first few pays for few."""
        scores: dict[str, float] = {}
        lengths, known = self._lengths, scores.get
        slope = _K1 * _B / max(self._total / max(len(self), 1), 1.0)
        for term, weight in weights.items():
            holders = self._holders.get(term, {})
            most = weight * self._rarity(len(holders)) * (_K1 + 1)
            for name, count in holders.items():
                damping = _K1 * (1 - _B) + slope * lengths[name]
                scores[name] = known(name, 0.0) + most * count / (count + damping)
        order = [(-score, name) for name, score in scores.items()]
        heapq.heapify(order)
        while order:
            score, name = heapq.heappop(order)
            yield name, -score

    def _rarity(self, holders: int) -> float:
        return math.log(1 + (len(self) - holders + 0.5) / (holders + 0.5))
