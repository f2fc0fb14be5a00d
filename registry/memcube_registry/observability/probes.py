"""What `/readyz` and `/metrics` look at: a few times a second at most, however many ask.

They have no rate limit. A balancer may ask from an address that it shares with strangers, and one who
was told to wait would take the replica out.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, Self, TypeVar

from sqlmodel import func, select, text

from memcube_registry.batching import Batches
from memcube_registry.blobs.models import Upload
from memcube_registry.database import Database
from memcube_registry.jobs.service import figures
from memcube_registry.observability.metrics import Metrics
from memcube_registry.storage.interface import BlobStore

APART_S: Final = 0.1
"""From the end of one look to the next."""
_AT_ONCE: Final = 100_000

Seen = TypeVar("Seen")


class Shared(Generic[Seen]):
    """One `look` for all who ask while another one is made; nobody is told what was seen before they asked."""

    def __init__(self, look: Callable[[], Seen]) -> None:
        self._look = look
        self._next_s = 0.0
        self._asked: Batches[None, Seen] = Batches(self._look_once, _AT_ONCE)

    async def take(self) -> Seen:
        """What is seen.

        Raises:
            MemcubeError: as `look`.
        """
        return await asyncio.wrap_future(self._asked.submit(None))

    def _look_once(self, batch: Sequence[None]) -> list[Seen]:
        time.sleep(max(0.0, self._next_s - time.monotonic()))
        try:
            return [self._look()] * len(batch)
        finally:
            self._next_s = time.monotonic() + APART_S


@dataclass(frozen=True, slots=True)
class Probes:
    """Whether this process is ready, which raises where it is not, and its figures for Prometheus."""

    ready: Shared[None]
    figures: Shared[bytes]

    @classmethod
    def of(cls, database: Database, blobs: BlobStore, metrics: Metrics) -> Self:
        """The probes of a process with these parts."""

        def look() -> None:
            with database.read() as session:
                session.connection().execute(text("SELECT 1"))
            blobs.check()

        def count() -> bytes:
            with database.read() as session:
                open_uploads = session.exec(select(func.count()).select_from(Upload)).one()
                jobs = figures(session, database.now(session))
            return metrics.exposition(uploads_open=open_uploads, jobs=jobs)

        return cls(Shared(look), Shared(count))
