"""Scanning text: every rule over it, and over the same text with its disguises taken off."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from memcube.scanning import injection, personal, secrets
from memcube.scanning.rule import Rule, Span

RULES: Final = (*secrets.RULES, *personal.RULES, *injection.RULES, *injection.MARKUP)
_PLAIN: Final = tuple(rule for rule in RULES if not rule.folded)
_FOLDED: Final = tuple(rule for rule in RULES if rule.folded)
_TOKENS: Final = tuple(
    rule
    for rule in secrets.RULES
    if rule.severity == "high" and min(map(len, rule.needles), default=0) >= 3
)
"""Rules that a search for a few letters decides: the others would cost more than what they find."""
_LETTERS: Final = tuple(needle.encode() for rule in _TOKENS for needle in rule.needles)
_DISGUISES: Final = re.compile("[\u00ad\u180e\u200b-\u200f\u2060-\u2064\ufe00-\ufe0f\ufeff]")
PlaceOf = Callable[[int], str]
"""Names a line, counted from 0, for people."""


class Match(NamedTuple):
    """A rule that found something, and the place for people."""

    rule: Rule
    place: str


def scan_text(text: str, place_of: PlaceOf | None = None) -> Iterator[Match]:
    """Matches of every rule in `text`, each with its place: by default the line."""
    name = place_of or _line
    yield from _each(_PLAIN, text, name)
    # Escaped ends of lines become white space of the same length, so that phrases go on behind them.
    folded = text.casefold().replace("\\n", " \r").replace("\\t", "  ")
    if not text.isascii():
        if injection.HIDDEN_CHARACTERS.search(text):
            yield from _each(injection.HIDDEN, text, name)
        folded = _undisguised(folded)
    yield from _each(_FOLDED, folded, name)


def scan_lines(raw: bytes) -> Iterator[Match]:
    """Matches in JSON Lines; a place is the record's id. Escapes do not hide anything."""
    text = raw.decode("utf-8", "replace")
    if "\\u" in text:
        text = "\n".join(_unescaped(line) for line in text.split("\n"))
    return scan_text(text, _Records(text))


def scan_sample(raw: bytes) -> Iterator[Match]:
    """Secrets of known form in data that is no text, as in the metadata of an image."""
    if not any(needle in raw for needle in _LETTERS):
        return iter(())
    return _each(_TOKENS, raw.decode("latin-1"), lambda _: "")


class _Records:
    """Names lines of JSON by the id of their record; the lines are split when the first is asked for."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._lines: list[str] | None = None

    def __call__(self, line: int) -> str:
        if self._lines is None:
            self._lines = self._text.split("\n")
        try:
            return f"record {json.loads(self._lines[line])['id']}"
        except (ValueError, TypeError, LookupError):
            return _line(line)


def _line(line: int) -> str:
    return f"line {line + 1}"


def _each(rules: Iterable[Rule], text: str, place_of: PlaceOf) -> Iterator[Match]:
    shared: dict[re.Pattern[str] | None, list[Span]] = {}
    for rule in rules:
        if rule.within is None:
            spans = rule.spans(text)
        elif rule.within in shared:
            spans = shared[rule.within]
        else:
            spans = shared[rule.within] = rule.spans(text)
        line, seen = 0, 0
        for offset in rule.matches(text, spans):
            line += text.count("\n", seen, offset)
            seen = offset
            yield Match(rule, place_of(line))


def _undisguised(folded: str) -> str:
    return _DISGUISES.sub("", unicodedata.normalize("NFKC", folded)).casefold()


def _unescaped(line: str) -> str:
    r"""A line of JSON with every `\u` escape written as the character that it means."""
    if "\\u" not in line:
        return line
    try:
        return json.dumps(json.loads(line), ensure_ascii=False)
    except ValueError:
        return line
