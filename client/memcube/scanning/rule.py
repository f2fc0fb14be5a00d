"""A rule for text: what every match contains, the pattern, and a check beyond the pattern."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from memcube_signing.predicates.scan import CHECKS, SEVERITIES

Span = tuple[int, int]
DIGITS: Final = re.compile(r"\d{2}(?:[ .()-]{0,2}[0-9A-Z]){6}")
"""What every number of a person holds: eight digits or capitals, at most two marks between them."""
LONG_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{20}")
"""What every token without a prefix of its own holds."""
_MARGIN: Final = 60


@dataclass(frozen=True, slots=True)
class Rule:
    """Finds text of one kind. Every match holds one of `needles` at most `before` characters in.

    A rule without a needle says `within` which text its matches lie. With `folded` both are looked for
    in case-folded text. `accept` decides about one match where the pattern alone finds too much. A
    match has at most `after` characters behind its needle.
    """

    check: str
    name: str
    severity: str
    needles: tuple[str, ...]
    pattern: str
    accept: Callable[[re.Match[str]], bool] | None = None
    folded: bool = False
    before: int = 0
    after: int = 500
    within: re.Pattern[str] | None = None
    compiled: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        assert self.check in CHECKS
        assert self.severity in SEVERITIES
        assert not (self.needles and self.within)
        object.__setattr__(self, "compiled", re.compile(self.pattern))

    def matches(self, text: str, spans: Iterable[Span]) -> Iterator[int]:
        """Where this rule finds something within `spans` of `text`: offsets in characters."""
        for start, stop in spans:
            for match in self.compiled.finditer(text, start, stop):
                if self.accept is None or self.accept(match):
                    yield match.start()

    def spans(self, text: str) -> list[Span]:
        """The parts of `text` that can hold a match: around each needle, or all of it."""
        if not self.needles:
            return spans_within(text, self.within) if self.within else [(0, len(text))]
        found = sorted(at for needle in self.needles for at in _occurrences(text, needle))
        return _merged(((at - self.before, at + self.after) for at in found), len(text))


def spans_within(text: str, pattern: re.Pattern[str]) -> list[Span]:
    """The parts of `text` around what `pattern` finds."""
    around = ((m.start() - _MARGIN, m.end() + _MARGIN) for m in pattern.finditer(text))
    return _merged(around, len(text))


def _occurrences(text: str, needle: str) -> Iterator[int]:
    at = text.find(needle)
    while at >= 0:
        yield at
        at = text.find(needle, at + 1)


def _merged(spans: Iterable[Span], length: int) -> list[Span]:
    """Ascending `spans` within the text, those that touch made one."""
    merged: list[Span] = []
    for start, stop in spans:
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], min(max(stop, merged[-1][1]), length))
        else:
            merged.append((max(start, 0), min(stop, length)))
    return merged
