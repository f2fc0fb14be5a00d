"""What a cube is judged by: where it was found, what came with it, what is known, what is accepted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from datetime import datetime
from typing import Final

from memcube_protocol import oci
from memcube_protocol.errors import InvalidReferenceError
from memcube_protocol.reference import Reference, is_immutable_tag
from memcube_protocol.values import frozen
from memcube_signing.authority.chain import Authority
from memcube_signing.keys import PublicKey
from memcube_signing.release import Release
from memcube_signing.transparency.entry import LogPolicy

from memcube.trust.log_state import NO_LOGS, Logs
from memcube.trust.pins import Pin, Pins, Place
from memcube.trust.policy import NO_POLICY, Policy, Terms
from memcube.trust.verdict import Mode, Scope


@frozen
class Attestation:
    """A referrer manifest and the bytes of its bundle, as fetched: nothing of it is believed yet."""

    referrer: oci.Manifest
    bundle: bytes


@frozen
class Signed:
    """A release, and the accepted key that signed it."""

    release: Release
    key: PublicKey
    bundle: bytes = field(default=b"", repr=False, compare=False)
    """The exact bytes of the bundle."""


@frozen
class Acceptance:
    """What the user accepts explicitly, against an alarm: named, so that nothing else slips through.

    `publisher` is the id of a key that may replace the pinned ones, and begin a new history; `origin` the name of which this
    location may hold a copy, `rollback` allows an older release through the same tag, or another
    history than the one seen.
    """

    publisher: str | None = None
    origin: str | None = None
    rollback: bool = False


NOTHING_ACCEPTED: Final = Acceptance()


@frozen
class Question:
    """May `manifest`, fetched as `reference` with these attestations, be used `now`?

    `policy` is the consumer's; the publishers that it names go before the pins. `known_at` says when
    the attestations came from the registry, None: just now. `scope` local is for cubes that this user
    made. `remembered` are bundles of status statements about the manifest that were seen before.
    `authority` are the key documents of the origin's namespace; `authority_is_known` says that
    this user knew them before.

    Raises:
        InvalidReferenceError: a remote reference without host.
    """

    reference: Reference
    manifest: oci.Manifest
    attestations: Sequence[Attestation]
    pins: Pins
    now: datetime
    mode: Mode = Mode.ENFORCE
    scope: Scope = Scope.REMOTE
    policy: Policy = NO_POLICY
    known_at: datetime | None = None
    logs: Logs = NO_LOGS
    accept: Acceptance = NOTHING_ACCEPTED
    authority: Authority | None = None
    authority_is_known: bool = False
    remembered: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if self.scope is Scope.REMOTE and not self.reference.host:
            raise InvalidReferenceError(
                f"{self.reference} names no host to judge it by",
                hint="use `Reference.with_host` with the default registry first",
            )

    @property
    def location(self) -> str:
        """The name that was asked for: host in lower case, and repository."""
        return location_of(self.reference)

    @property
    def place(self) -> Place | None:
        """What is known of the location."""
        return self.pins.at(self.location)

    @property
    def mapped_origin(self) -> str | None:
        """The origin that the policy says lies at the location."""
        return self.policy.terms_of(self.location).origin_at(self.location)

    @property
    def origin(self) -> str:
        """The origin name that the release must have."""
        known = self.place.origin if self.place else self.location
        return self.mapped_origin or self.accept.origin or known

    @property
    def terms(self) -> Terms:
        """What the policy demands: of the location, and of the origin that it is a copy of."""
        here = self.policy.terms_of(self.location)
        return here.joined(self.policy.terms_of(self.origin))

    @property
    def log_policy(self) -> LogPolicy | None:
        """The log of the origin's registry, by policy or as it was met first, and its witnesses."""
        host = self.origin.partition("/")[0]
        key = self.policy.log_of(host)
        if key is None and (known := self.logs.of(host)):
            key = known.key
        return LogPolicy(key, self.terms.witnesses) if key else None

    @property
    def registry_key(self) -> PublicKey | None:
        """With which key the origin's registry countersigns, by policy or as it was met first."""
        return registry_key_of(self.origin.partition("/")[0], self.policy, self.logs)

    @property
    def enforced(self) -> bool:
        """Whether what lacks is refused, not warned of: the policy's word goes before the user's."""
        return (self.terms.mode or self.mode) is Mode.ENFORCE

    @property
    def pin(self) -> Pin | None:
        """What is known of the origin."""
        return self.pins.of(self.origin)

    @property
    def moving_tag(self) -> str | None:
        """The tag that was followed, if it may move: with a digest beside it, none was."""
        tag = self.reference.tag or "latest"
        return None if self.reference.digest or is_immutable_tag(tag) else tag

    @property
    def keys(self) -> tuple[PublicKey, ...] | str | None:
        """Accepted keys; or the id of one that the user accepts; or None, any: the first use."""
        publishers = self.terms.publishers
        if publishers is not None:
            return publishers
        if self.accept.publisher:
            return self.accept.publisher
        if self.authority is not None:
            return self.authority.keys_for(self.origin)
        return self.pin.publishers if self.pin else None


def registry_key_of(host: str, policy: Policy, logs: Logs) -> PublicKey | None:
    """The key with which the registry at `host` countersigns: a policy's word goes before a first use."""
    known = logs.of(host)
    return policy.registry_key_of(host) or (known.registry_key if known else None)


def location_of(reference: Reference) -> str:
    """Host and repository in lower case: how pins, policies and origins name a place.

    Only the Hub's names have capitals, and no two of its repositories differ by them alone.
    """
    return reference.location.lower()
