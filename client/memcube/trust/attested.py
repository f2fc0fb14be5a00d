"""What is attested about a cube beside its release, each statement by an accepted key or set apart.

    values_of(status.KIND, attestations, manifest.digest, keys)      the verified values of one kind
    statements_of(manifest, attestations, verdict)                   everything found, for people

Pure: what an annotation says is never believed, and a statement by another key is never shown as one
that counts.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final, TypeVar

from memcube_protocol import oci
from memcube_protocol.digest import Digest
from memcube_protocol.errors import InvalidStatementError, MemcubeError, TrustError
from memcube_protocol.values import frozen
from memcube_signing import bundle as bundles
from memcube_signing import release, statement
from memcube_signing.keys import PublicKey
from memcube_signing.predicates import (
    Attested,
    Kind,
    countersignature,
    model_signature,
    provenance,
    scan,
    status,
    verify,
)
from memcube_signing.statement import Statement

from memcube.trust._countersignatures import require_about
from memcube.trust.question import Attestation
from memcube.trust.verdict import Verdict

Value = TypeVar("Value")

KINDS: Final[dict[str, Kind[Any]]] = {
    kind.predicate_type: kind
    for kind in (countersignature.KIND, provenance.KIND, scan.KIND, status.KIND)
}
NAMES: Final = {
    release.PREDICATE_TYPE: "release",
    model_signature.PREDICATE_TYPE: "model-signature",
    countersignature.PREDICATE_TYPE: "countersignature",
    provenance.PREDICATE_TYPE: "provenance",
    scan.PREDICATE_TYPE: "scan",
    status.PREDICATE_TYPE: "status",
}
"""What people call each predicate type; any other is shown by its URI."""


@frozen
class Claim:
    """One statement found with a cube. Only with a `key` is it verified; else `why` says why not.

    `value` is what it says: the value of its kind, the release, or the bare statement of a type that
    memcube does not know.
    """

    predicate_type: str
    key: PublicKey | None = None
    value: Any = None
    why: str | None = None

    @property
    def name(self) -> str:
        """The kind's name, or the URI of its type."""
        return NAMES.get(self.predicate_type, self.predicate_type)


def values_of(
    kind: Kind[Value],
    attestations: Sequence[Attestation],
    subject: Digest,
    keys: Collection[PublicKey],
) -> tuple[Attested[Value], ...]:
    """The values of `kind` about `subject` that one of `keys` signed; all else is passed over."""
    values: list[Attested[Value]] = []
    for attestation in attestations:
        try:
            values.append(verify(attestation.bundle, kind, keys=keys, subject=subject))
        except MemcubeError:
            continue
    return tuple(values)


def statements_of(
    manifest: oci.Manifest, attestations: Sequence[Attestation], verdict: Verdict
) -> tuple[Claim, ...]:
    """Every statement found with `manifest`, verified or with why it does not count.

    What counts is by the publisher of `verdict`, or by another key in charge of the name; a countersignature is by the registry's own key, and
    about the release that is attached.
    """
    return tuple(
        _claim(manifest, attestation.bundle, attestations, verdict) for attestation in attestations
    )


def _claim(
    manifest: oci.Manifest, bundle: bytes, attestations: Sequence[Attestation], verdict: Verdict
) -> Claim:
    predicate_type = "unreadable"
    try:
        parsed = bundles.parse(bundle)
        predicate_type = statement.parse(parsed.envelope.payload).predicate_type
        if predicate_type == countersignature.PREDICATE_TYPE:
            signed = _countersigned(manifest, bundle, attestations, verdict)
        else:
            keys = (verdict.publisher, *verdict.partners) if verdict.publisher else ()
            signed = _verified(manifest, bundle, predicate_type, keys)
    except MemcubeError as error:
        reason = error.reason if isinstance(error, TrustError | InvalidStatementError) else None
        return Claim(predicate_type, why=reason or error.code)
    return Claim(predicate_type, signed.key, signed.value)


def _countersigned(
    manifest: oci.Manifest, bundle: bytes, attestations: Sequence[Attestation], verdict: Verdict
) -> Attested[Any]:
    keys = (verdict.registry_key,) if verdict.registry_key else ()
    signed = verify(bundle, countersignature.KIND, keys=keys, subject=manifest.digest)
    origin = verdict.release.origin if verdict.release else verdict.location
    require_about(signed.value, origin, (Digest.of(one.bundle) for one in attestations))
    return signed


def _verified(
    manifest: oci.Manifest, bundle: bytes, predicate_type: str, keys: Collection[PublicKey]
) -> Attested[Any]:
    if predicate_type == model_signature.PREDICATE_TYPE:
        return model_signature.verify(bundle, keys=keys, manifest=manifest)
    kind = KINDS.get(predicate_type) or Kind(predicate_type, _reader(predicate_type))
    return verify(bundle, kind, keys=keys, subject=manifest.digest)


def _reader(predicate_type: str) -> Any:
    """How a type without a value of ours is read: a release as one, any other as it is."""
    return release.from_statement if predicate_type == release.PREDICATE_TYPE else _as_it_is


def _as_it_is(said: Statement) -> Statement:
    return said
