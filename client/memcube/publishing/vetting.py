"""Scanning at both ends: what a publisher is told before pushing, what a consumer before mounting.

A push refuses what nobody wants to publish by accident (secrets, programs) unless it is told otherwise,
and attaches the scan, signed, together with the model signature over the files and, for KV caches and
adapters that memcube dumped, how they were made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from memcube_protocol import oci
from memcube_protocol.config import PLAINTEXT
from memcube_protocol.cube import Cube, CubeFile
from memcube_protocol.digest import Digest
from memcube_protocol.errors import FindingsError
from memcube_protocol.oci import Descriptor
from memcube_protocol.reference import Reference
from memcube_protocol.values import frozen
from memcube_signing import referrer
from memcube_signing.bundle import Bundle
from memcube_signing.keys import Algorithm, PublicKey, Signer
from memcube_signing.predicates import attest, model_signature
from memcube_signing.predicates import provenance as provenances
from memcube_signing.predicates import scan as scans
from memcube_signing.predicates.provenance import Provenance
from memcube_signing.predicates.scan import Finding, Scan

from memcube.consuming.finding import Found, found_in_store
from memcube.context import NORMAL_TRUST, Context, Trust
from memcube.publishing.attesting import attach
from memcube.publishing.publish import Published, publish
from memcube.scanning.findings import place_of
from memcube.scanning.scanner import LayerScanner, scan_cube
from memcube.transfer import EarlySender
from memcube.trust import Scope
from memcube.trust.attested import values_of
from memcube.version import VERSION

if TYPE_CHECKING:
    from memcube_protocol.build import Build

_STOPPING: Final = frozenset({"secrets", "unsafe-files"})
_SHOWN: Final = 10


@frozen
class Vetting:
    """What a push looks for. With `allow_findings` it publishes secrets and programs that it finds."""

    scan: bool = True
    allow_findings: bool = False


THOROUGH: Final = Vetting()


class Sieve:
    """Admits layers of a cube that is still being packed, each after a scan of its own.

    From the first one on that a push would be refused for, nothing passes: not this one, nor a later.
    """

    def __init__(
        self, layers: LayerScanner, through: Callable[[Descriptor], None], vet: Vetting
    ) -> None:
        self._layers = layers
        self._through = through
        self._is_open = True
        self._looks = vet.scan and not vet.allow_findings

    def __call__(self, file: CubeFile, copied: bool) -> None:
        """Let `file` through if it was `copied` just now; what hinders it is said after the scan of the whole.

        Raises:
            IntegrityError, InvalidRecordError: the layer is damaged.
            MemcubeError: as `through`.
        """
        if self._looks and _stopping(self._layers.findings(file)):
            self._is_open = False
        if self._is_open and copied:
            self._through(file.descriptor())


def publish_vetted(
    context: Context,
    cube: Cube,
    reference: Reference,
    *,
    vet: Vetting = THOROUGH,
    key: str | None = None,
    trust: Trust = NORMAL_TRUST,
    early: EarlySender | None = None,
    layers: LayerScanner | None = None,
) -> Published:
    """`publish` after a scan, with the scan and the model signature attached.

    `layers` has looked at some of them while the cube was being packed, and `early` sent some.

    Raises:
        FindingsError: secrets or programs were found, and `vet` does not allow them.
        …: as `publish`.
    """
    found = scan(context, cube, cube.config.name, layers) if vet.scan else None
    if found and not vet.allow_findings:
        require_publishable(found)

    def accompany(place: Reference, released: Cube) -> tuple[Digest, ...]:
        return attest_published(context, place, released, found, key=key)

    published = publish(
        context, cube, reference, key=key, trust=trust, early=early, accompany=accompany
    )
    if published.unchanged or not context.remote(published.reference.host).publishes_at_once:
        accompany(published.reference, published.cube)
    return replace(published, scan=found)


def scan(
    context: Context, cube: Cube | Build, name: str, layers: LayerScanner | None = None
) -> Scan:
    """What the rules of this memcube find in a cube or build whose layers the store holds.

    What `layers` has seen already is not read again.

    Raises:
        NotFoundError: a layer is not there.
        IntegrityError, InvalidRecordError: a layer is damaged.
    """
    with context.store.session():
        seen = layers or LayerScanner(context.store)
        return scan_cube(cube, seen, name=name, version=VERSION, now=context.now())


def require_publishable(found: Scan) -> None:
    """Refuse to publish secrets and programs by accident.

    Raises:
        FindingsError: there are some, with the places where they are.
    """
    if stopping := _stopping(found.findings):
        places = "; ".join(place_of(finding) for finding in stopping[:_SHOWN])
        more = f" and {len(stopping) - _SHOWN} more" if len(stopping) > _SHOWN else ""
        raise FindingsError(
            f"this would be published: {places}{more}",
            hint="take it out (and change a secret that was ever shared), or repeat with --allow-findings",
        )


def _stopping(findings: Iterable[Finding]) -> list[Finding]:
    """Those that nobody wants to publish by accident."""
    return [one for one in findings if one.check in _STOPPING and one.severity == "high"]


def attest_published(
    context: Context, place: Reference, cube: Cube, found: Scan | None, *, key: str | None = None
) -> tuple[Digest, ...]:
    """Attach scan, model signature and build provenance to the cube at `place`; the manifests that do so.

    Each where it is not known to be there: what a push that broke off lacked comes when it is run again.

    Raises:
        SigningKeyError: the key cannot be used.
        ForbiddenError, NetworkError: as the registry answers.
    """
    signer = context.signer(key)
    present = _attached(context, place, cube, signer.public_key)
    bundles: list[tuple[str, Bundle]] = []
    if found is not None and scans.PREDICATE_TYPE not in present:
        bundles.append((scans.PREDICATE_TYPE, attest(found, signer)))
    if _can_sign_files(signer, cube) and model_signature.PREDICATE_TYPE not in present:
        folder = place.name.rpartition("/")[2]
        files = model_signature.of_manifest(cube.manifest, folder)
        bundles.append((model_signature.PREDICATE_TYPE, model_signature.sign(files, signer)))
    bundles += [
        (provenances.PREDICATE_TYPE, attest(build, signer))
        for build in _builds(context, place, cube)
        if build.build_type not in present
    ]
    registry = context.remote(place.host)
    at = Found(place, cube.manifest, cube.config.write(), (), Scope.REMOTE)
    held = (oci.EMPTY.digest,)  # the release's referrer brought it
    return tuple(
        attach(context, registry, at, bundle, predicate_type, signer, held=held).referrer
        for predicate_type, bundle in bundles
    )


def _builds(context: Context, place: Reference, cube: Cube) -> tuple[Provenance, ...]:
    """How the memories were made that are not plain text."""
    if all(memory.kind == PLAINTEXT for memory in cube.config.memories):
        return ()
    from memcube.provenance.builds import builds_of

    with context.store.session():
        return builds_of(cube, context.store, name=f"{place.host}/{place.name}")


def _attached(context: Context, place: Reference, cube: Cube, own: PublicKey) -> set[str | None]:
    """Predicate and build types of what the store knows to be attached to the cube at `place`."""
    ref = context.store.ref(place)
    known = found_in_store(context.store, ref) if ref else None
    if known is None or known.manifest.digest != cube.digest:
        return set()
    types = {
        referrer.read(attestation.referrer).predicate_type for attestation in known.attestations
    }
    if provenances.PREDICATE_TYPE not in types:
        return types
    built = values_of(provenances.KIND, known.attestations, cube.digest, (own,))
    return types | {one.value.build_type for one in built}


def _can_sign_files(signer: Signer, cube: Cube) -> bool:
    """OpenSSF model signing takes P-256 keys, and a folder with a file."""
    is_p256 = signer.public_key.algorithm is Algorithm.ECDSA_P256_SHA256
    return is_p256 and bool(cube.files)
