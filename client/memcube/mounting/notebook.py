"""What notebooks show: tables of escaped text, nothing that runs.

Names and records come from whoever published the cube. They are escaped, hidden characters are
shown, and nothing in them becomes a link, a style or a script.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

from memcube.memories.plaintext.context import neutralise

TEXT_CHARS: Final = 400
"""Of a longer text the beginning is shown."""

ROWS: Final = 100
_CELL: Final = '<td style="text-align:left;white-space:pre-wrap">'


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """HTML of the first hundred `rows` below `head`."""
    heads = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows[:ROWS])
    left_out = f"<p>and {len(rows) - ROWS} more</p>" if len(rows) > ROWS else ""
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>{left_out}"


def _cell(text: str) -> str:
    cut = text if len(text) <= TEXT_CHARS else f"{text[:TEXT_CHARS]} …"
    return f"{_CELL}{escape(neutralise(cut))}</td>"
