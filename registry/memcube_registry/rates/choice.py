"""Which buckets the processes of a registry count in: those that all of them share."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from memcube_registry.accounts.handshake import load_key
from memcube_registry.database import Database
from memcube_registry.rates.buckets import Buckets, MemoryBuckets
from memcube_registry.rates.mapped import MappedBuckets
from memcube_registry.rates.shared import SharedBuckets
from memcube_registry.settings import BUCKETS_VARIABLE, Settings


def buckets_of(settings: Settings, database: Database) -> Buckets:
    """Buckets in PostgreSQL where that is the database; else in the file of this server's workers."""
    if not database.is_sqlite:
        seed = load_key(settings.token_key_file)
        return SharedBuckets(database.url, hashlib.sha256(b"memcube-rate-limits\n" + seed).digest())
    file = os.environ.get(BUCKETS_VARIABLE)
    return MappedBuckets(Path(file)) if file else MemoryBuckets()
