"""The forms in which bytes leave the registry."""

from __future__ import annotations

from enum import StrEnum


class Form(StrEnum):
    """How a blob is delivered: to everybody alike, encrypted, or in a copy made for one buyer."""

    OPEN = "open"
    SEALED = "sealed"
    MARKED = "marked"
