"""The source text of a KV cache where it serves instead of the cache: looked up, or before every prompt."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from typing import Final

from memcube_protocol.records import Record

PASSAGE_CHARS: Final = 1200
_BREAK: Final = re.compile(r"\n\s*\n")
_SENTENCE: Final = re.compile(r"(?<=[.!?。！？\n])\s*")


def passages_of(text: str, memory_id: str) -> Iterator[Record]:
    """`text` in passages of at most 1200 characters, cut between paragraphs, else between sentences.

    Their ids are `<memory_id>.1`, `<memory_id>.2`, …
    """
    for number, passage in enumerate(_packed(_pieces(text)), 1):
        yield Record(id=f"{memory_id}.{number}", text=passage, type="context")


def prefix_text(texts: Sequence[tuple[str, str]]) -> str:
    """`texts` by the ids of their memories, as data: between delimiters that they cannot close."""
    if not texts:
        return ""
    from memcube.memories.plaintext.context import render

    records = [Record(id=memory, text=text, type="context") for memory, text in texts]
    return render(records, sys.maxsize)


def _pieces(text: str) -> Iterator[str]:
    for paragraph in _BREAK.split(text):
        if len(paragraph) <= PASSAGE_CHARS:
            yield f"{paragraph.strip()}\n\n"
            continue
        for sentence in _SENTENCE.split(paragraph):
            for at in range(0, len(sentence), PASSAGE_CHARS):
                yield f"{sentence[at : at + PASSAGE_CHARS].strip()} "


def _packed(pieces: Iterator[str]) -> Iterator[str]:
    """`pieces` put together as long as they fit; what holds nothing is left out."""
    held = ""
    for piece in pieces:
        if len(held) + len(piece) > PASSAGE_CHARS and held.strip():
            yield held.strip()
            held = ""
        held += piece
    if held.strip():
        yield held.strip()
