"""Scanning text: every rule over it, and over the same text with its disguises taken off."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from ahocorasick_rs import BytesAhoCorasick

from memcube.scanning import injection, personal, secrets
from memcube.scanning.rule import Rule
from memcube.scanning.search import Search

RULES: Final = (*secrets.RULES, *personal.RULES, *injection.RULES, *injection.MARKUP)
_PLAIN: Final = Search(rule for rule in RULES if not rule.folded)
_FOLDED: Final = Search(rule for rule in RULES if rule.folded)
_HIDDEN: Final = Search(injection.HIDDEN)
_TOKENS: Final = tuple(
    rule
    for rule in secrets.RULES
    if rule.severity == "high" and min(map(len, rule.needles), default=0) >= 3
)
"""Rules that a search for a few letters decides: the others would cost more than what they find."""
_OF_TOKENS: Final = Search(_TOKENS)
_LETTERS: Final = BytesAhoCorasick([needle.encode() for rule in _TOKENS for needle in rule.needles])
_DISGUISES: Final = re.compile("[\u00ad\u180b-\u180f\u200b-\u200f\u2060-\u2064\ufe00-\ufe0f\ufeff]")
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
            yield from _each(_HIDDEN, text, name)
        folded = _undisguised(folded)
    yield from _each(_FOLDED, folded, name)


def scan_lines(raw: bytes) -> Iterator[Match]:
    """Matches in JSON Lines; a place is the record's id. Escapes do not hide anything."""
    text = raw.decode("utf-8", "replace")
    if "\\u" in text:
        text = "\n".join(_unescaped(line) for line in text.split("\n"))
    place_of = _Records(text)
    for part in _parted(text):
        yield from scan_text(part, place_of)


def scan_sample(raw: bytes) -> Iterator[Match]:
    """Secrets of known form in data that is no text, as in the metadata of an image."""
    if not _LETTERS.find_matches_as_indexes(raw):
        return iter(())
    return _each(_OF_TOKENS, raw.decode("latin-1"), lambda _: "")


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


def _parted(text: str) -> list[str]:
    """`text` as lines in ASCII, which are searched several times as fast, and the others.

    Each keeps the number of its line. No line goes on in the next: a record is one.
    """
    if text.isascii():
        return [text]
    lines = text.split("\n")
    kept = [[line if line.isascii() == plain else "" for line in lines] for plain in (True, False)]
    return ["\n".join(lines) for lines in kept]


def _line(line: int) -> str:
    return f"line {line + 1}"


def _each(search: Search, text: str, place_of: PlaceOf) -> Iterator[Match]:
    last, line, seen = None, 0, 0
    for rule, offset in search.matches(text):
        if rule is not last:
            last, line, seen = rule, 0, 0
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
