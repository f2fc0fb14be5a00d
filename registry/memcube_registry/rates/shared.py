"""Buckets that all replicas share, in PostgreSQL, whose clock counts for all of them.

One statement takes from several buckets. So that not every request waits for it, a process takes a
little ahead: what a key may use in `LEASE_S`, which it hands out itself for `KEPT_S` at most. Slow
limits, as that of failed logins, have no lease: each one is asked for. In any time t at most
`burst + rate·t` pass, and `rate·LEASE_S` more for each process.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from memcube_registry.batching import Batches
from memcube_registry.database import postgres
from memcube_registry.observability.requests import log
from memcube_registry.rates.buckets import BUCKETS_MAX, MemoryBuckets, Rate

LEASE_S: Final = 0.05
KEPT_S: Final = 10.0
AT_ONCE: Final = 256
_SWEEP_S: Final = 60.0
_OPTIONS: Final = postgres.Options(connections=1, statement_timeout_s=2, lock_timeout_s=2)

# A row's clock never runs backwards, except where the server's own was set back.
_TAKE: Final = text("""\
INSERT INTO rate_bucket AS b (key, tokens, granted, per_s, burst, at)
SELECT key, burst - asked, asked, per_s, burst, statement_timestamp()
FROM unnest(CAST(:keys AS text[]), CAST(:asked AS int[]), CAST(:rates AS float8[]), CAST(:bursts AS float8[]))
  AS wanted (key, asked, per_s, burst)
ORDER BY key
ON CONFLICT (key) DO UPDATE SET (tokens, granted, per_s, burst, at) = (
  SELECT held - least(excluded.granted, floor(held)), least(excluded.granted, floor(held)),
    excluded.per_s, excluded.burst,
    CASE WHEN b.at > excluded.at + interval '1 second' THEN excluded.at ELSE greatest(b.at, excluded.at) END
  FROM (SELECT least(excluded.burst, b.tokens
    + greatest(0, extract(epoch FROM excluded.at - b.at)::float8) * excluded.per_s) AS held) AS now)
RETURNING key, granted, tokens
""")
_SWEEP: Final = text(
    "DELETE FROM rate_bucket WHERE at < statement_timestamp() - interval '10 minutes'"
)


@dataclass(frozen=True, slots=True)
class _Ask:
    """One token of a bucket, asked for by one request."""

    key: str
    rate: Rate
    now_s: float

    @property
    def ahead(self) -> int:
        """How many more are taken with it."""
        return int(self.rate.per_s * LEASE_S)


@dataclass(slots=True)
class _Lease:
    """What this process may hand out by itself until `ends_s`; refused until `refused_s`."""

    tokens: int
    ends_s: float
    refused_s: float


@dataclass(slots=True)
class _Portion:
    """What was granted of one bucket and is left, what the bucket holds, and whether that was too little."""

    left: int
    tokens: float
    refused: bool

    def wait_s(self, rate: Rate) -> float:
        """0 while something is left, else the seconds until there is."""
        return 0.0 if self.left else (1.0 - self.tokens) / rate.per_s


class SharedBuckets:
    """Buckets in the database at `url`. `secret` is the same in every replica.

    Where the database does not answer within seconds, each process counts by itself.
    """

    def __init__(self, url: URL, secret: bytes) -> None:
        # A connection of its own: requests that wait for the pool must not hold up the gate.
        self._engine = postgres.engine(url, _OPTIONS).execution_options(**postgres.ALONE)
        self._secret = secret
        self._alone = MemoryBuckets()
        self._leases: OrderedDict[str, _Lease] = OrderedDict()
        self._lock = threading.Lock()
        self._swept_s = time.monotonic()
        self._asking: Batches[_Ask, float] = Batches(self._ask_all, AT_ONCE)

    async def take(self, key: str, rate: Rate, *, now_s: float) -> float:
        """See `Buckets`."""
        if rate.per_s <= 0:
            return 0.0
        hidden = hmac.new(self._secret, key.encode(), hashlib.sha256).hexdigest()[:32]
        known = self._from_lease(hidden, now_s)
        if known is not None:
            return known
        return await asyncio.wrap_future(self._asking.submit(_Ask(hidden, rate, now_s)))

    def close(self) -> None:
        """See `Buckets`."""
        self._engine.dispose()

    def _from_lease(self, key: str, now_s: float) -> float | None:
        """0 or seconds to wait, where this process knows it by itself."""
        with self._lock:
            lease = self._leases.get(key)
            if lease is None:
                return None
            if lease.refused_s > now_s:
                return lease.refused_s - now_s
            if lease.tokens > 0 and lease.ends_s > now_s:
                lease.tokens -= 1
                return 0.0
        return None

    def _ask_all(self, batch: Sequence[_Ask]) -> list[float]:
        """What each of `batch` has to wait."""
        try:
            granted = self._granted(batch)
        except DBAPIError as error:
            log.warning("rate limits are counted by this process alone", error=str(error.orig))
            return [self._alone.take_now(one.key, one.rate, one.now_s) for one in batch]
        waits = []
        for one in batch:
            portion = granted[one.key]
            waits.append(portion.wait_s(one.rate))
            portion.left = max(0, portion.left - 1)
        for one in {one.key: one for one in batch}.values():
            self._keep(one, granted[one.key])
        return waits

    def _granted(self, batch: Sequence[_Ask]) -> dict[str, _Portion]:
        """By key, what this process may hand out."""
        asked = Counter(one.key for one in batch)
        rates = {one.key: (one.rate, one.ahead) for one in batch}
        keys = list(rates)
        values: dict[str, Any] = {
            "keys": keys,
            "asked": [min(asked[key] + rates[key][1], int(rates[key][0].burst)) for key in keys],
            "rates": [rates[key][0].per_s for key in keys],
            "bursts": [rates[key][0].burst for key in keys],
        }
        with self._engine.connect() as connection:
            rows = connection.execute(_TAKE, values).all()
            if time.monotonic() > self._swept_s + _SWEEP_S:
                self._swept_s = time.monotonic()
                connection.execute(_SWEEP)
        return {
            row.key: _Portion(row.granted, row.tokens, row.granted < asked[row.key]) for row in rows
        }

    def _keep(self, one: _Ask, portion: _Portion) -> None:
        """Make what is left of `portion` the lease of `one`'s key."""
        refused_s = one.now_s + portion.wait_s(one.rate) if portion.refused else 0.0
        with self._lock:
            before = self._leases.pop(one.key, None)
            kept = before.tokens if before and before.ends_s > one.now_s else 0
            self._leases[one.key] = _Lease(kept + portion.left, one.now_s + KEPT_S, refused_s)
            if len(self._leases) > BUCKETS_MAX:
                self._leases.popitem(last=False)
