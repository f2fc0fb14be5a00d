"""Which rules these are: raised with every change of a rule, and part of every signed scan."""

from __future__ import annotations

from typing import Final

RULES_VERSION: Final = "2026.11.5"
