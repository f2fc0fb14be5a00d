"""Telling text from other data by its bytes."""

from __future__ import annotations

import codecs
from typing import Final

_SAMPLE_BYTES: Final = 16 * 1024
_BROKEN_SHARE: Final = 1 / 4
"""A text in an 8-bit encoding breaks UTF-8 at its accents; other data at every other byte."""
_WIDE: Final = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def decoded(raw: bytes) -> str | None:
    """`raw` as text, what cannot be read replaced; None for data that is no text."""
    for mark, encoding in _WIDE.items():
        if raw.startswith(mark):
            return raw.decode(encoding, "replace")
    if b"\x00" in raw:
        return None
    sample = raw[:_SAMPLE_BYTES].decode("utf-8", "replace")
    if sample.count("\ufffd") > len(sample) * _BROKEN_SHARE:
        return None
    return sample if len(raw) <= _SAMPLE_BYTES else raw.decode("utf-8", "replace")
