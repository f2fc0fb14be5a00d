"""Which jobs this version of the registry knows, and who does each."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from memcube_registry.blobs import removing
from memcube_registry.countersigning import queue
from memcube_registry.countersigning.service import Countersigner
from memcube_registry.database import Database
from memcube_registry.jobs.worker import Worker
from memcube_registry.log.service import ASK_WITNESSES, TransparencyLog
from memcube_registry.manifests import collecting
from memcube_registry.observability.metrics import Metrics
from memcube_registry.observability.operations import is_draining
from memcube_registry.settings import Settings
from memcube_registry.storage import BlobStore

WITNESSES_EVERY: Final = timedelta(minutes=1)


def worker_of(
    settings: Settings,
    database: Database,
    blobs: BlobStore,
    log: TransparencyLog,
    countersigner: Countersigner,
    metrics: Metrics,
) -> Worker:
    """The worker of one process that serves."""
    return Worker(
        database,
        {
            collecting.KIND: collecting.collector(
                database,
                blobs,
                grace=timedelta(seconds=settings.gc_grace_s),
                upload_life=timedelta(seconds=settings.upload_expiry_s),
            ),
            removing.KIND: removing.remover(database, blobs),
            queue.KIND: countersigner.handle,
            ASK_WITNESSES: log.ask_again,
        },
        every={
            collecting.KIND: timedelta(seconds=settings.gc_interval_s),
            ASK_WITNESSES: WITNESSES_EVERY if log.has_witnesses else timedelta(0),
        },
        lease=timedelta(seconds=settings.job_lease_s),
        poll_s=settings.job_poll_s,
        seen=metrics.count_job,
        is_wanted=lambda: not is_draining(),
    )
