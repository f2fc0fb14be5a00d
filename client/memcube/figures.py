"""Figures as people read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")
_MADE: Final = {"indexes": "indexes", "folders": "unpacked memories", "builds": "caches"}
"""What lies in folders of the user's home that are made of cubes (`memcube.consuming.holdings`)."""


def bytes_text(size_bytes: int) -> str:
    """`size_bytes` with a binary unit: `1.5 MiB`."""
    size = float(size_bytes)
    for unit in _UNITS[:-1]:
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} {_UNITS[-1]}"


def rate_text(bytes_per_s: float) -> str:
    """A bandwidth: `1.5 GiB/s`."""
    return f"{bytes_text(int(bytes_per_s))}/s"


def seconds_text(seconds: float) -> str:
    """A time to wait: `4 ms`, `1.3 s`."""
    return f"{seconds * 1000:.2g} ms" if seconds < 0.1 else f"{seconds:.3g} s"


def count_text(count: int, noun: str) -> str:
    """`1 record`, `2 records`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def made_text(made_bytes: Mapping[str, int]) -> str:
    """What was made of cubes takes on the disk: `184.0 KiB of indexes, 1.2 GiB of caches`."""
    taken = {_MADE[folder]: size for folder, size in made_bytes.items()}
    return ", ".join(f"{bytes_text(size)} of {what}" for what, size in taken.items())


def table_text(rows: Sequence[Sequence[str]]) -> str:
    """`rows` in columns as wide as their widest cell."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
    return "\n".join(lines)
