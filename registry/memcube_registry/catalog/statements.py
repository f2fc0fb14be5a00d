"""What is stated about a cube, as far as a registry can check it: signatures, not trust in keys.

The publishers are the keys of well-signed releases of this very manifest, each offered by the referrer
that carries it. Scan and status count if one of them signed; anything else is listed apart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from memcube_protocol import oci
from memcube_protocol.errors import InvalidStatementError, MemcubeError
from memcube_signing import bundle as bundles
from memcube_signing import referrer, release, statement
from memcube_signing.keys import PublicKey
from memcube_signing.predicates import (
    Kind,
    countersignature,
    model_signature,
    provenance,
    scan,
    status,
    verify,
)
from memcube_signing.predicates.provenance import Provenance
from memcube_signing.predicates.scan import Scan
from memcube_signing.predicates.status import Status
from memcube_signing.release import Release
from memcube_signing.statement import Statement

NAMES: Final = {
    release.PREDICATE_TYPE: "release",
    model_signature.PREDICATE_TYPE: "model signature",
    countersignature.PREDICATE_TYPE: "countersignature",
    provenance.PREDICATE_TYPE: "build provenance",
    scan.PREDICATE_TYPE: "scan",
    status.PREDICATE_TYPE: "status",
}
_KINDS: Final[dict[str, Kind[Any]]] = {
    kind.predicate_type: kind
    for kind in (countersignature.KIND, provenance.KIND, scan.KIND, status.KIND)
}


@dataclass(frozen=True, slots=True)
class Attached:
    """A referrer and the bundle that it carries."""

    referrer: oci.Manifest
    bundle: bytes


@dataclass(frozen=True, slots=True)
class Said:
    """One statement. With a `key` its signature holds; `is_publishers` says whose key that is.

    `value` is the release, or the value of its kind; `why_not` says why it does not count;
    `signed_sha256` names it in the log.
    """

    predicate_type: str
    key: PublicKey | None = None
    value: Any = None
    why_not: str | None = None
    signed_sha256: str = ""
    is_publishers: bool = False

    @property
    def name(self) -> str:
        """The kind's name, or the URI of its type."""
        return NAMES.get(self.predicate_type, self.predicate_type)


@dataclass(frozen=True, slots=True)
class Statements:
    """Everything stated about one manifest, the publishers' own statements first."""

    said: tuple[Said, ...] = ()

    @property
    def releases(self) -> tuple[Said, ...]:
        """The releases: who publishes this manifest."""
        return tuple(one for one in self.said if isinstance(one.value, Release))

    @property
    def scan(self) -> Scan | None:
        """The publisher's latest scan."""
        return scan.latest(self._values(Scan))

    @property
    def status(self) -> Status | None:
        """What a publisher said last about this release."""
        own = {(one.value.origin, one.value.version) for one in self.releases}
        found = self._values(Status)
        return status.current(one for one in found if (one.origin, one.version) in own)

    @property
    def provenance(self) -> tuple[Provenance, ...]:
        """How the publisher says that builds in it were made."""
        return tuple(self._values(Provenance))

    def _values(self, kind: type[Any]) -> Iterable[Any]:
        return (one.value for one in self.said if one.is_publishers and isinstance(one.value, kind))


def read(manifest: oci.Manifest, attached: Sequence[Attached]) -> Statements:
    """What `attached` states about `manifest`."""
    found = [_release(manifest, one) for one in attached]
    releases = [one for one in found if one is not None]
    publishers = [one.key for one in releases if one.key]
    others = [
        _other(manifest, one, publishers)
        for one, known in zip(attached, found, strict=True)
        if known is None
    ]
    others.sort(key=lambda one: (not one.is_publishers, one.name))
    return Statements((*releases, *others))


def _release(manifest: oci.Manifest, attached: Attached) -> Said | None:
    """The release that is attached, if it is one and the key that comes with it signed it."""
    try:
        key = referrer.read(attached.referrer).offered_key
        if key is None:
            return None
        found = release.verify_release(attached.bundle, keys=[key], subject=manifest.digest)
    except MemcubeError:
        return None
    signed = _signed_sha256(attached.bundle)
    return Said(release.PREDICATE_TYPE, key, found, signed_sha256=signed, is_publishers=True)


def _other(manifest: oci.Manifest, attached: Attached, publishers: Sequence[PublicKey]) -> Said:
    predicate_type = "unreadable"
    try:
        payload = bundles.parse(attached.bundle).envelope.payload
        predicate_type = statement.parse(payload).predicate_type
        if predicate_type == release.PREDICATE_TYPE:
            raise InvalidStatementError("no release", hint="", reason="release-not-verified")
        offered = referrer.read(attached.referrer).offered_key
        keys = [*publishers, *([offered] if offered else [])]
        key, value = _verified(manifest, attached.bundle, predicate_type, keys)
    except MemcubeError as error:
        return Said(predicate_type, why_not=str(getattr(error, "reason", None) or error.code))
    signed = _signed_sha256(attached.bundle)
    return Said(predicate_type, key, value, None, signed, key in publishers)


def _verified(
    manifest: oci.Manifest, bundle: bytes, predicate_type: str, keys: Sequence[PublicKey]
) -> tuple[PublicKey, Any]:
    if predicate_type == model_signature.PREDICATE_TYPE:
        files = model_signature.verify(bundle, keys=keys, manifest=manifest)
        return files.key, files.value
    kind = _KINDS.get(predicate_type) or Kind(predicate_type, _as_it_is)
    found = verify(bundle, kind, keys=keys, subject=manifest.digest)
    return found.key, found.value


def _as_it_is(said: Statement) -> Statement:
    return said


def _signed_sha256(bundle: bytes) -> str:
    return hashlib.sha256(bundles.parse(bundle).envelope.signed).hexdigest()
