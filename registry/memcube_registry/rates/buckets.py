"""Rate limits: one token bucket for each account, or for each address without a login.

Processes that answer for one registry share their buckets: those of one machine in a file
(`rates.mapped`), replicas in PostgreSQL (`rates.shared`). A single process keeps them itself.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock
from typing import Final, Protocol

BUCKETS_MAX: Final = 100_000
BURST_S: Final = 10
"""A bucket holds what may be used in this many seconds."""


@dataclass(frozen=True, slots=True)
class Rate:
    """How often something may happen. `per_s` 0: as often as you like."""

    per_s: float

    @property
    def burst(self) -> float:
        """What may happen at once after a pause."""
        return max(1.0, self.per_s * BURST_S)


class Buckets(Protocol):
    """Counts what was used."""

    async def take(self, key: str, rate: Rate, *, now_s: float) -> float:
        """Take one from the bucket of `key`; returns 0, or the seconds until there is one.

        `now_s` is this machine's monotonic clock.
        """
        ...

    def close(self) -> None:
        """Let go of what holds the buckets."""
        ...


@dataclass(frozen=True, slots=True)
class Level:
    """What a bucket held at some time."""

    tokens: float
    at_s: float

    def taken(self, rate: Rate, now_s: float) -> tuple[Level, float]:
        """The bucket after one was asked for, and the seconds to wait; 0 where it was had."""
        tokens = min(rate.burst, self.tokens + max(0.0, now_s - self.at_s) * rate.per_s)
        if tokens >= 1.0:
            return Level(tokens - 1.0, now_s), 0.0
        return Level(tokens, now_s), (1.0 - tokens) / rate.per_s


class MemoryBuckets:
    """Buckets of this process; the one used longest ago makes room for a new one."""

    def __init__(self, capacity: int = BUCKETS_MAX) -> None:
        self._capacity = capacity
        self._buckets: OrderedDict[str, Level] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._buckets)

    async def take(self, key: str, rate: Rate, *, now_s: float) -> float:
        """See `Buckets`."""
        return self.take_now(key, rate, now_s)

    def take_now(self, key: str, rate: Rate, now_s: float) -> float:
        """As `take`, where nothing has to be waited for."""
        if rate.per_s <= 0:
            return 0.0
        with self._lock:
            level = self._buckets.pop(key, Level(rate.burst, now_s))
            self._buckets[key], wait_s = level.taken(rate, now_s)
            if len(self._buckets) > self._capacity:
                self._buckets.popitem(last=False)
        return wait_s

    def close(self) -> None:
        """See `Buckets`."""


def whole_seconds(wait_s: float) -> int:
    """`wait_s` as Retry-After writes it: whole, rounded up, at least one."""
    return max(1, math.ceil(wait_s))
