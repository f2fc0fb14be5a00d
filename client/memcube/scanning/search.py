"""The parts of a text that can hold a match: found for many rules in one pass, before any pattern is tried."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from string import ascii_lowercase, ascii_uppercase, digits
from typing import Final

from ahocorasick_rs import AhoCorasick

from memcube.scanning.rule import Rule, Span

_BEYOND: Final = 60
"""How much text around a shape is searched: a shape may have been found where a match does not begin."""
_SHAPES: Final = bytes.maketrans(
    f"{digits}{ascii_uppercase}{ascii_lowercase}".encode() + bytes(range(0x80, 0x100)),
    b"0" * len(digits) + b"A" * 26 + b"a" * 26 + b"?" * 0x80,
)


def shape_of(text: str) -> bytes:
    """`text` with `0` for each digit, `A` and `a` for each letter, and `?` for each character beyond ASCII."""
    return text.encode("latin-1", "replace").translate(_SHAPES)


class Search:
    """Finds matches of `rules`. Safe for several threads."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._rules = tuple(rules)
        needles = sorted({needle for rule in self._rules for needle in rule.needles})
        self._automaton = AhoCorasick(needles)
        self._holders = [
            [at for at, rule in enumerate(self._rules) if needle in rule.needles]
            for needle in needles
        ]
        self._shapes = {
            at: re.compile(rule.shape.encode())
            for at, rule in enumerate(self._rules)
            if rule.shape is not None
        }

    def matches(self, text: str) -> Iterator[tuple[Rule, int]]:
        """Each match: its rule and where it begins, in characters; ascending for each rule."""
        places = self._places(text)
        for at, rule in enumerate(self._rules):
            if rule.needles or at in self._shapes:
                spans = _merged(places[at], rule, len(text))
            else:
                spans = [(0, len(text))]
            for offset in rule.matches(text, spans):
                yield rule, offset

    def _places(self, text: str) -> Sequence[list[Span]]:
        """For each rule where its needles (each as its beginning) and its shapes lie."""
        places: list[list[Span]] = [[] for _ in self._rules]
        for needle, start, _ in self._automaton.find_matches_as_indexes(text, overlapping=True):
            for at in self._holders[needle]:
                places[at].append((start, start))
        if self._shapes:
            shape = shape_of(text)
            for at, pattern in self._shapes.items():
                places[at].extend(match.span() for match in pattern.finditer(shape))
        return places


def _merged(places: list[Span], rule: Rule, length: int) -> list[Span]:
    """The parts of the text around `places`, ascending; those that touch are one."""
    before, after = (_BEYOND, _BEYOND) if rule.shape else (rule.before, rule.after)
    merged: list[Span] = []
    for start, stop in sorted(places):
        begin, end = max(start - before, 0), min(stop + after, length)
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return merged
