"""Scanning at both ends: what a publisher is told before pushing, what a consumer before mounting.

A push refuses what nobody wants to publish by accident (secrets, programs) unless it is told otherwise,
and attaches the scan, signed, together with the model signature over the files and, for KV caches and
adapters that memcube dumped, how they were made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from memcube_protocol import oci
from memcube_protocol.config import ACTIVATION, PLAINTEXT
from memcube_protocol.cube import Cube
from memcube_protocol.errors import FindingsError
from memcube_protocol.reference import Reference
from memcube_signing import referrer
from memcube_signing.bundle import Bundle
from memcube_signing.keys import Algorithm, PublicKey, Signer
from memcube_signing.predicates import attest, model_signature
from memcube_signing.predicates import provenance as provenances
from memcube_signing.predicates import scan as scans
from memcube_signing.predicates.provenance import Provenance
from memcube_signing.predicates.scan import SEVERITIES, Coverage, Finding, Recomputed, Scan

from memcube.attesting import attach
from memcube.consume import Found, Verified, found_in_store
from memcube.context import NORMAL_TRUST, Context, Trust
from memcube.publish import Published, publish
from memcube.scanning import NOT_RECOMPUTED, scan_cube
from memcube.transfer import EarlySender
from memcube.trust import Scope
from memcube.trust.attested import values_of
from memcube.version import VERSION

_STOPPING: Final = frozenset({"secrets", "unsafe-files"})
_SHOWN: Final = 10


@dataclass(frozen=True, slots=True)
class Vetting:
    """What a push looks for. With `allow_findings` it publishes secrets and programs that it finds."""

    scan: bool = True
    allow_findings: bool = False


THOROUGH: Final = Vetting()


def publish_vetted(
    context: Context,
    cube: Cube,
    reference: Reference,
    *,
    vet: Vetting = THOROUGH,
    key: str | None = None,
    trust: Trust = NORMAL_TRUST,
    early: EarlySender | None = None,
) -> Published:
    """`publish` after a scan, with the scan and the model signature attached.

    Raises:
        FindingsError: secrets or programs were found, and `vet` does not allow them.
        …: as `publish`.
    """
    found = scan(context, cube, cube.config.name) if vet.scan else None
    if found and not vet.allow_findings:
        require_publishable(found)
    published = publish(context, cube, reference, key=key, trust=trust, early=early)
    attest_published(context, published, found, key=key)
    return replace(published, scan=found)


def scan(context: Context, cube: Cube, name: str) -> Scan:
    """What the rules of this memcube find in `cube`, whose layers the store holds.

    Raises:
        NotFoundError: a layer is not there.
        IntegrityError, InvalidRecordError: a layer is damaged.
    """
    with context.store.session():
        return scan_cube(cube, context.store, name=name, version=VERSION, now=context.now())


def require_publishable(found: Scan) -> None:
    """Refuse to publish secrets and programs by accident.

    Raises:
        FindingsError: there are some, with the places where they are.
    """
    stopping = [
        finding
        for finding in found.findings
        if finding.check in _STOPPING and finding.severity == "high"
    ]
    if stopping:
        places = "; ".join(place_of(finding) for finding in stopping[:_SHOWN])
        more = f" and {len(stopping) - _SHOWN} more" if len(stopping) > _SHOWN else ""
        raise FindingsError(
            f"this would be published: {places}{more}",
            hint="take it out (and change a secret that was ever shared), or repeat with --allow-findings",
        )


def attest_published(
    context: Context, published: Published, found: Scan | None, *, key: str | None = None
) -> None:
    """Attach scan, model signature and build provenance to a cube, each where it is not there yet.

    So a push that broke off after the release is finished by running it again.

    Raises:
        SigningKeyError: the key cannot be used.
        ForbiddenError, NetworkError: as the registry answers.
    """
    signer = context.signer(key)
    present = _attached(context, published, signer.public_key)
    bundles: list[tuple[str, Bundle]] = []
    if found is not None and scans.PREDICATE_TYPE not in present:
        bundles.append((scans.PREDICATE_TYPE, attest(found, signer)))
    if _can_sign_files(signer, published) and model_signature.PREDICATE_TYPE not in present:
        folder = published.reference.name.rpartition("/")[2]
        files = model_signature.of_manifest(published.cube.manifest, folder)
        bundles.append((model_signature.PREDICATE_TYPE, model_signature.sign(files, signer)))
    bundles += [
        (provenances.PREDICATE_TYPE, attest(build, signer))
        for build in _builds(context, published)
        if build.build_type not in present
    ]
    registry, cube = context.registry(published.reference.host), published.cube
    at = Found(published.reference, cube.manifest, cube.config.write(), (), Scope.REMOTE)
    held = (oci.EMPTY.digest,)  # the release's referrer brought it
    for predicate_type, bundle in bundles:
        attach(context, registry, at, bundle, predicate_type, signer, held=held)


def _builds(context: Context, published: Published) -> tuple[Provenance, ...]:
    """How the memories were made that are not plain text."""
    if all(memory.kind == PLAINTEXT for memory in published.cube.config.memories):
        return ()
    from memcube.provenance.builds import builds_of

    place = published.reference
    with context.store.session():
        return builds_of(published.cube, context.store, name=f"{place.host}/{place.name}")


def _attached(context: Context, published: Published, own: PublicKey) -> set[str | None]:
    """Predicate and build types of what the store knows to be attached to the cube at its place."""
    ref = context.store.ref(published.reference)
    known = found_in_store(context.store, ref) if ref else None
    if known is None or known.manifest.digest != published.cube.digest:
        return set()
    types = {
        referrer.read(attestation.referrer).predicate_type for attestation in known.attestations
    }
    if provenances.PREDICATE_TYPE not in types:
        return types
    built = values_of(provenances.KIND, known.attestations, published.cube.digest, (own,))
    return types | {one.value.build_type for one in built}


def _can_sign_files(signer: Signer, published: Published) -> bool:
    """OpenSSF model signing takes P-256 keys, and a folder with a file."""
    is_p256 = signer.public_key.algorithm is Algorithm.ECDSA_P256_SHA256
    return is_p256 and bool(published.cube.files)


def attested_scan(verified: Verified) -> Scan | None:
    """The latest scan of a verified cube by its publisher; None where there is none."""
    publisher = verified.verdict.publisher
    if publisher is None:
        return None
    found = values_of(scans.KIND, verified.attestations, verified.cube.digest, (publisher,))
    return max((one.value for one in found), key=lambda scan: scan.scanned_at, default=None)


def opacity_of(verified: Verified, memory_id: str, text: str | None) -> str:
    """What is known of a KV cache beyond its fit: `text` is the source text that it carries."""
    path = f"{ACTIVATION}/{memory_id}/"
    scan = attested_scan(verified)
    for one in scan.recomputed if scan else ():
        if one.path.startswith(path):
            agrees = "its publisher computed it anew from its text"
            return agrees if one.agrees else "warning: its publisher found that its text DIFFERS"
    if text is None:
        return "opaque: without its source text nobody can read what it says"
    return "opaque: nobody compared it with the text beside it"


def scan_lines(found: Scan | None) -> list[str]:
    """What people read of a scan: one line, and one for each kind of finding that is not minor."""
    if found is None:
        return ["Scanned: no, as far as its publisher says"]
    by = f"{found.scanner} {found.scanner_version}, rules {found.rules_version}"
    counts = ", ".join(f"{check} {count}" for check, count in sorted(found.counts.items()) if count)
    return [
        f"Scanned: {counts or 'nothing found'} ({by})",
        *_worst(found.findings),
        *(_opaque_line(finding) for finding in found.findings if finding.rule == NOT_RECOMPUTED),
        *map(recomputed_line, found.recomputed),
    ]


def coverage_line(covered: Coverage) -> str:
    """What people read of how much a scan looked at."""
    return (
        f"Looked at {covered.read_bytes} of {covered.size_bytes} bytes: of {covered.files} files "
        f"{covered.sampled_files} by a sample, {covered.unread_files} (tensors, token ids) not"
    )


def recomputed_line(one: Recomputed) -> str:
    """What people read of a KV cache that was compared with its text."""
    verdict = "agrees with its text" if one.agrees else "DIFFERS from its text"
    how = ", ".join(f"{name} {value}" for name, value in sorted(one.environment.items()))
    measured = f"difference {one.difference}, tolerance {one.tolerance}"
    return f"Recomputed: {one.path} {verdict} ({measured}; {how})"


def _opaque_line(finding: Finding) -> str:
    return f"Opaque: {finding.path} was not compared with the text beside it"


def place_of(finding: Finding) -> str:
    """A finding as people read it, without what was found."""
    where = f"{finding.path}, {finding.place}" if finding.place else finding.path
    return f"{finding.rule} in {where}"


def _worst(findings: Sequence[Finding]) -> list[str]:
    """A warning for every rule of medium or high severity."""
    serious = [finding for finding in findings if SEVERITIES.index(finding.severity) >= 2]
    rules = Counter((finding.severity, finding.check, finding.rule) for finding in serious)
    first = {finding.rule: place_of(finding) for finding in reversed(serious)}
    return [
        f"warning: {severity} {check}: {first[rule]}"
        + (f" (and {count - 1} more)" if count > 1 else "")
        for (severity, check, rule), count in sorted(rules.items())
    ]
