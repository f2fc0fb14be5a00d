"""A rule for text: what every match contains, the pattern, and a check beyond the pattern."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from memcube_protocol.values import frozen
from memcube_signing.predicates.scan import CHECKS, SEVERITIES

Span = tuple[int, int]


@frozen
class Rule:
    """Finds text of one kind. Every match holds one of `needles` at most `before` characters in.

    A match of a rule without needles begins with what the pattern `shape` finds in the shape of the
    text (`search.shape_of`). With `folded` both are looked for in case-folded text. `accept`
    decides about one match where the pattern alone finds too much. A match ends at most `after`
    characters behind the beginning of its needle.
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
    shape: str | None = None

    def __post_init__(self) -> None:
        assert self.check in CHECKS
        assert self.severity in SEVERITIES
        assert not (self.needles and self.shape)

    @property
    def compiled(self) -> re.Pattern[str]:
        """The pattern, compiled when a text first calls for it (and kept by `re`): few texts call for many."""
        return re.compile(self.pattern)

    def matches(self, text: str, spans: Iterable[Span]) -> Iterator[int]:
        """Where this rule finds something within `spans` of `text`: offsets in characters."""
        for start, stop in spans:
            for match in self.compiled.finditer(text, start, stop):
                if self.accept is None or self.accept(match):
                    yield match.start()
