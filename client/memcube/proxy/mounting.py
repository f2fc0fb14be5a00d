"""What a mounted memory adds to the prompts of a proxy."""

from __future__ import annotations

from functools import partial
from typing import Final

from memcube.mounting import MountedMemory
from memcube.mounting.planning import PREFIX_SHARE
from memcube.proxy.addition import Addition

RECORDS_TOKENS: Final = 1024


def mount_budget(prefix_tokens: int) -> int:
    """The budget to mount with: of it the planner gives its share to the beginning of prompts."""
    return int(prefix_tokens / PREFIX_SHARE)


def addition_of(memory: MountedMemory, records_tokens: int = RECORDS_TOKENS) -> Addition:
    """What `memory`, mounted without a model, adds: its text, and at most so many tokens of records."""
    return Addition(memory.prefix_text, partial(memory.context, budget_tokens=records_tokens))
