"""The indicators: values that the sidecar is asked for."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Final, Self

from memcube_protocol.values import frozen

MEMORY: Final = "memory "
HALF_LIFE_DAYS: Final = 30.0
"""After so many days without use a memory counts half."""


@frozen
class Use:
    """A record of `cube` (a location: host and repository) that was found with `score`."""

    cube: str
    record: str
    score: float = 0.0

    @classmethod
    def of_memory(cls, cube: str, memory: str) -> Self:
        """The use of a whole KV or LoRA memory. No record is called so: their ids hold no space."""
        return cls(cube, f"{MEMORY}{memory}")


@frozen
class RecordUse:
    """How one record is used: found `accesses` times, put before a model in `answers` of them.

    `score` is how well it fitted, averaged with more weight on the last twenty times; scores of two
    cubes cannot be compared.
    """

    record: str
    accesses: int
    answers: int
    score: float
    last_used_at: datetime

    def strength(self, now: datetime) -> float:
        """How much this record is in use: grows with the logarithm of its uses, fades with time."""
        return strength(self.accesses + self.answers, self.last_used_at, now)


@frozen
class Version:
    """A version of a cube that was mounted, by the digest of its manifest."""

    digest: str
    mounts: int
    first_mounted_at: datetime
    last_mounted_at: datetime


@frozen
class CubeUse:
    """How one cube is used; `records` is how many of its records ever were."""

    cube: str
    mounts: int
    accesses: int
    answers: int
    records: int
    last_used_at: datetime

    def strength(self, now: datetime) -> float:
        """How much this cube is in use; see `RecordUse.strength`."""
        return strength(self.mounts + self.accesses + self.answers, self.last_used_at, now)


@frozen
class Answered:
    """Which records one answer was given with."""

    number: int
    at: datetime
    used: tuple[Use, ...]


def strength(uses: int, last_used_at: datetime, now: datetime) -> float:
    """log2(1 + uses), halved for every `HALF_LIFE_DAYS` since the last one; 0 for what was never used."""
    days = max((now - last_used_at).total_seconds(), 0.0) / 86_400
    return math.log2(1 + uses) * math.exp2(-days / HALF_LIFE_DAYS)
