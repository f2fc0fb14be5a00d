"""The one retry policy: bounded, exponential with jitter, and `Retry-After` wins (RFC 9110, 10.2.3)."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from memcube_protocol.errors import MemcubeError, RateLimitedError
from memcube_protocol.values import frozen

RETRIED_STATUSES: Final = frozenset({408, 429, 500, 502, 503, 504})


@frozen
class RetryPolicy:
    """How often and after how many seconds to try again.

    `attempts` counts the first one. A server that asks for more than `longest_wait_s` gets no
    further attempt: the caller is told how long to wait.
    """

    attempts: int = 5
    first_wait_s: float = 0.5
    longest_wait_s: float = 60.0
    sleep: Callable[[float], None] = time.sleep
    jitter: Callable[[], float] = random.random

    def wait_s(self, failures: int, retry_after_s: float | None = None) -> float | None:
        """Seconds to wait after `failures` failed attempts in a row; None: give up."""
        if failures >= self.attempts:
            return None
        if retry_after_s is not None:
            return retry_after_s if retry_after_s <= self.longest_wait_s else None
        longest = min(self.first_wait_s * 2.0 ** (failures - 1), self.longest_wait_s)
        return longest * (0.5 + self.jitter() / 2)

    def wait(self, error: MemcubeError, failures: int, *, least_s: float = 0.0) -> None:
        """Wait before another attempt after `error`, for at least `least_s` seconds.

        Raises:
            MemcubeError: `error`, where it was tried often enough.
        """
        asked_s = error.retry_after_s if isinstance(error, RateLimitedError) else None
        wait_s = self.wait_s(failures, asked_s)
        if wait_s is None:
            raise error
        self.sleep(max(wait_s, least_s))


def retry_after_s(value: str | None, now: datetime | None = None) -> float | None:
    """Seconds that a `Retry-After` header asks for, as a number or as a date; None if malformed."""
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdecimal():
        return float(value[:9])
    try:
        at = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return max((at - (now or datetime.now(UTC))).total_seconds(), 0.0)
