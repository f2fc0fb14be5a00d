"""Rate limits: one token bucket for each account, or for each address without a login.

The buckets live in this process. Replicas that must share them put another `Buckets` here.
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

    def take(self, key: str, rate: Rate, *, now_s: float) -> float:
        """Take one from the bucket of `key`; returns 0, or the seconds until there is one."""
        ...


class MemoryBuckets:
    """Buckets of this process; the one used longest ago makes room for a new one."""

    def __init__(self, capacity: int = BUCKETS_MAX) -> None:
        self._capacity = capacity
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, key: str, rate: Rate, *, now_s: float) -> float:
        """See `Buckets`. `now_s` is a monotonic clock."""
        if rate.per_s <= 0:
            return 0.0
        with self._lock:
            level, then_s = self._buckets.pop(key, (rate.burst, now_s))
            level = min(rate.burst, level + max(0.0, now_s - then_s) * rate.per_s)
            allowed = level >= 1.0
            self._buckets[key] = (level - 1.0 if allowed else level, now_s)
            if len(self._buckets) > self._capacity:
                self._buckets.popitem(last=False)
        return 0.0 if allowed else (1.0 - level) / rate.per_s


def whole_seconds(wait_s: float) -> int:
    """`wait_s` as Retry-After writes it: whole, rounded up, at least one."""
    return max(1, math.ceil(wait_s))
