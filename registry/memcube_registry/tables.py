"""Every table of the registry, so that the metadata is whole where all of it matters (migrations)."""

from __future__ import annotations

from memcube_registry.accounts import models as accounts
from memcube_registry.blobs import models as blobs
from memcube_registry.catalog import models as catalog
from memcube_registry.countersigning import models as countersigning
from memcube_registry.jobs import models as jobs
from memcube_registry.log import models as log
from memcube_registry.manifests import models as manifests
from memcube_registry.rates import models as rates
from memcube_registry.storage import claim_table as claims

__all__ = [
    "accounts",
    "blobs",
    "catalog",
    "claims",
    "countersigning",
    "jobs",
    "log",
    "manifests",
    "rates",
]
