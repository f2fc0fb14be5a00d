"""What every act of the client works with: settings, local store, pins, keys and registries."""

from __future__ import annotations

from dataclasses import field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from memcube_protocol.reference import HUB_HOST, Reference
from memcube_protocol.selection import Selection
from memcube_protocol.values import frozen
from memcube_signing.keys import Signer

from memcube.settings import Settings
from memcube.speeds import SpeedStore
from memcube.store import Store
from memcube.trust import Acceptance, AuthorityStore, KeyStore, Mode, PinStore
from memcube.trust.log_state import LogStore
from memcube.trust.policy import Policy
from memcube.trust.policy_file import load_effective
from memcube.trust.withdrawals import StatusStore

if TYPE_CHECKING:
    from memcube_signing.job import Job

    from memcube.accounts.credentials import Credentials
    from memcube.http import HttpClient
    from memcube.hub import HubRemote
    from memcube.remote import Registry
    from memcube.remote.interface import Remote
    from memcube.transfer import Progress


@frozen
class Trust:
    """How strictly a cube is judged, and what the user accepts against an alarm."""

    mode: Mode = Mode.ENFORCE
    accept: Acceptance = field(default_factory=Acceptance)


NORMAL_TRUST: Final = Trust()
EVERYTHING: Final = Selection()
CONTEXT_TOKENS: Final = 1024
"""Tokens of text that mounted memories give for one prompt, unless the user says how many."""


class Context:
    """The places of one user. Connections are opened when a registry is first asked."""

    def __init__(
        self,
        settings: Settings,
        *,
        progress: Progress | None = None,
        keys: KeyStore | None = None,
    ) -> None:
        self.settings = settings
        self.progress = progress
        self.store = Store(settings.store_path)
        self.pins = PinStore(settings.home / "trust")
        self.logs = LogStore(settings.home / "trust")
        self.authorities = AuthorityStore(settings.home / "trust")
        self.statuses = StatusStore(settings.home / "trust")
        self.speeds = SpeedStore(settings.home)
        self.keys = keys or KeyStore.of(settings)
        self._http: HttpClient | None = None
        self._hub: HubRemote | None = None
        self._policy: Policy | None = None
        self._jobs: dict[str, tuple[Job, datetime]] = {}

    def remote(self, host: str) -> Remote:
        """The place for cubes at `host`: a registry, or the Hub; empty: the default registry."""
        return self.hub() if host == HUB_HOST else self.registry(host)

    def registry(self, host: str) -> Registry:
        """The registry at `host`; empty: the default one.

        Raises:
            UnsupportedError: `host` is the Hub's, which is none.
        """
        # Here and not above: what only reads the local store need not load an HTTP client.
        from memcube.remote import Registry

        return Registry(host, self._client(), self.settings)

    def hub(self) -> HubRemote:
        """The Hugging Face Hub; the same one each time, since it collects what is published together."""
        from memcube.hub import HubRemote, Site

        if self._hub is None:
            self._hub = HubRemote(
                Site.of(self.settings), self._client(), parallel=self.settings.parallel
            )
        return self._hub

    def _client(self) -> HttpClient:
        from memcube.http import HttpClient

        if self._http is None:
            self._http = HttpClient(self.settings)
        return self._http

    def act_as_job(
        self, place: Reference, credentials: Credentials, job: Job, until: datetime
    ) -> None:
        """Use `credentials` at the registry of `place`, and name `job` in releases of that cube.

        They are kept in memory only, and expire at `until`.
        """
        from memcube.accounts.credentials import CredentialStore
        from memcube.http import HttpClient

        at, find = self.at_registry(place), CredentialStore(self.settings).find
        self.close()
        self._hub = None
        self._http = HttpClient(
            self.settings,
            find_credentials=lambda asked: credentials if asked == at.host else find(asked),
        )
        self._jobs = {at.location: (job, until)}

    def job_at(self, place: Reference) -> Job | None:
        """The CI job that releases the cube at `place`; None: a person does."""
        job, until = self._jobs.get(self.at_registry(place).location, (None, self.now()))
        return job if self.now() < until else None

    def at_registry(self, reference: Reference) -> Reference:
        """`reference` with the default registry where it names none, and `latest` without a target.

        A registry has one name, whatever the spelling: another one would be outside of its policy.
        """
        tag = reference.tag or (None if reference.digest else "latest")
        host = self.settings.endpoint_of(reference.host).host
        return Reference(host, reference.name, tag, reference.digest)

    @property
    def policy(self) -> Policy:
        """The policy that every cube is judged by, read once.

        Raises:
            InvalidPolicyError, StorageError: it cannot be obeyed; none is passed over.
        """
        if self._policy is None:
            self._policy = load_effective(self.settings.home)
        return self._policy

    def signer(self, key: str | None) -> Signer:
        """The signing key called `key`, or the default one; see `KeyStore.signer`."""
        return (self.keys.signer(key) if key else self.keys.signer()).key

    def now(self) -> datetime:
        """The time that signatures are made and judged at."""
        return datetime.now(UTC)

    def close(self) -> None:
        """Close idle connections."""
        if self._http is not None:
            self._http.close()
