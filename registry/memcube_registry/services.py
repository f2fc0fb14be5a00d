"""What the routes of one process share: its settings, database, blobs, authentication and figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from memcube_registry.accounts.authentication import Authenticator
from memcube_registry.accounts.handshake import Issuer
from memcube_registry.accounts.identity_tokens import IdentityTokens
from memcube_registry.blobs.proving import Prover
from memcube_registry.countersigning.service import Countersigner
from memcube_registry.database import Database
from memcube_registry.jobs.worker import Worker
from memcube_registry.log.service import TransparencyLog
from memcube_registry.observability.metrics import Metrics
from memcube_registry.observability.probes import Probes
from memcube_registry.settings import Settings
from memcube_registry.storage.interface import BlobStore

if TYPE_CHECKING:
    from litestar.connection import ASGIConnection


@dataclass(frozen=True, slots=True)
class Services:
    """Made once by `app.create_app`, kept in the application's state."""

    settings: Settings
    database: Database
    blobs: BlobStore
    issuer: Issuer
    authenticator: Authenticator
    metrics: Metrics
    probes: Probes
    log: TransparencyLog
    countersigner: Countersigner
    worker: Worker
    identities: IdentityTokens
    prover: Prover | None = None


def services_of(connection: ASGIConnection[Any, Any, Any, Any]) -> Services:
    """The services of the application that `connection` reached."""
    services = connection.app.state["services"]
    assert isinstance(services, Services), "create_app puts them there"
    return services
