"""The one tokenizer of search: what a text is found by, in every language (docs/spec/records.md, "Search").

    "Check the CPU 温度传感器" → check the cpu 温 度 传 感 器 温度 度传 传感 感器

Text is put into NFKC, case-folded and put into NFKC again. Letters, digits and their marks form
words. In scripts written without spaces (Han, kana, Thai, Lao, Khmer, Burmese, Tibetan), and in
Hangul, where particles cling to words, a run gives its single characters and its pairs instead; a
character takes the marks above and below it along. Queries for such runs ask for the pairs only. English
plurals lose their ending.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from typing import Final

TERM_CHARS: Final = 64
"""Longer words are cut: nobody searches for them, and hostile text cannot fill the index."""
PAIR_WEIGHT: Final = 0.5
"""What a pair counts in a query: neighbouring pairs share a character, words share nothing."""

_PLURAL_CHARS: Final = 4
"""Shorter words are left as they are: `is`, `as`, `dns`."""
_ASCII_WORD: Final = re.compile(r"[a-z0-9]+")
_RUN: Final = re.compile("w[wm]*|c[cm]*")
"""A run in a text of classes (`_class_of`)."""
_UNSEGMENTED: Final = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x0F00, 0x109F),  # Tibetan, Burmese
    (0x1100, 0x11FF),  # Hangul jamo
    (0x1780, 0x17FF),  # Khmer
    (0x3005, 0x3007),  # iteration mark, zero
    (0x3040, 0x318F),  # kana, bopomofo, Hangul compatibility jamo
    (0x31A0, 0x31FF),  # bopomofo and kana extensions
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xAC00, 0xD7FF),  # Hangul
    (0xF900, 0xFAFF),
    (0x1B000, 0x1B16F),  # kana
    (0x20000, 0x3FFFF),  # Han
)


def normalise(text: str) -> str:
    """`text` in the form that terms are taken from: NFKC, case-folded, NFKC."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def words(text: str) -> list[str]:
    """Words of `text`, in order and whole; of scripts written without spaces, single characters."""
    found: list[str] = []
    for run, is_word in _runs(normalise(text)):
        found += [run] if is_word else _clusters(run)
    return found


def terms(text: str) -> list[str]:
    """Terms that an index keeps of `text`, in order, repeated as often as they occur."""
    return measured_terms(text)[0]


def measured_terms(text: str) -> tuple[list[str], int]:
    """The `terms` of `text`, and its length: how many words and pairs it has, and characters alone."""
    if text.isascii():
        words = [_term(word) for word in _ASCII_WORD.findall(text.lower())]
        return words, len(words)
    found: list[str] = []
    length = 0
    for run, is_word in _runs(normalise(text)):
        if is_word:
            found.append(_term(run))
            length += 1
        else:
            clusters = _clusters(run)
            found += clusters
            found += _pairs(clusters)
            length += max(len(clusters) - 1, 1)
    return found, length


def query_weights(text: str) -> dict[str, float]:
    """Distinct terms to look `text` up by, in order, and what each counts.

    Of an unsegmented run only the pairs: they imply its characters.
    """
    found: dict[str, float] = {}
    for run, is_word in _runs(normalise(text)):
        if is_word:
            found[_term(run)] = 1.0
        else:
            clusters = _clusters(run)
            pairs = _pairs(clusters)
            found.update(dict.fromkeys(pairs, PAIR_WEIGHT) if pairs else {clusters[0]: 1.0})
    return found


def query_terms(text: str) -> list[str]:
    """The terms of `query_weights`."""
    return list(query_weights(text))


@lru_cache(maxsize=1 << 16)
def term_id(term: str) -> int:
    """Dimension of `term` in a sparse vector: the first 4 bytes of SHA-256, big-endian."""
    return int.from_bytes(hashlib.sha256(term.encode("utf-8", "replace")).digest()[:4], "big")


@lru_cache(maxsize=1 << 16)
def _term(word: str) -> str:
    """The term of `word`: cut, and without the ending of an English plural (after Harman's S-stemmer)."""
    if len(word) < _PLURAL_CHARS or not (word.isascii() and word.isalpha()):
        return word[:TERM_CHARS]
    if word.endswith("ies") and word[-4] not in "ae":
        word = word[:-3] + "y"
    elif word.endswith("s") and word[-2] not in "us":
        word = word[:-1]
    return word[:TERM_CHARS]


def _runs(text: str) -> Iterator[tuple[str, bool]]:
    """Maximal runs of one class in normalised text, and whether each is a word."""
    classes = "".join(map(_class_of, text))
    for run in _RUN.finditer(classes):
        yield text[run.start() : run.end()], run[0][0] == "w"


@lru_cache(maxsize=1 << 14)
def _class_of(char: str) -> str:
    """`w` word, `c` character of an unsegmented script, `m` mark on the one before, or a space."""
    category = unicodedata.category(char)
    if category[0] == "M" or char in "\u200c\u200d":
        return "m"
    if category[0] not in "LN":
        return " "
    point = ord(char)
    return "c" if any(low <= point <= high for low, high in _UNSEGMENTED) else "w"


def _clusters(run: str) -> list[str]:
    """Characters of `run`, each with the marks that follow it."""
    clusters: list[str] = []
    for char in run:
        if clusters and _class_of(char) == "m":
            clusters[-1] = (clusters[-1] + char)[:TERM_CHARS]
        else:
            clusters.append(char)
    return clusters


def _pairs(clusters: list[str]) -> list[str]:
    return [first + second for first, second in pairwise(clusters)]
