"""Publishing builds: each a referrer of its cube, with a signed statement of how it was made.

The statement is what a consumer trusts: a build without one by a publisher of its cube is mounted by
nobody. It goes last, so that what is trusted is whole; a push that broke off is finished by running
it again.
"""

from __future__ import annotations

from memcube_protocol.build import Build
from memcube_protocol.digest import Digest
from memcube_protocol.errors import KeyNotAuthorisedError, NotFoundError
from memcube_protocol.reference import Reference
from memcube_protocol.values import frozen
from memcube_signing.keys import PublicKey
from memcube_signing.predicates import attest
from memcube_signing.predicates import provenance as provenances

from memcube.building.holding import HeldBuild, held_builds, keep
from memcube.building.statements import is_stated, provenance_of, speakers
from memcube.consuming import finding, opening
from memcube.consuming.finding import Found
from memcube.consuming.verifying import Verified
from memcube.context import NORMAL_TRUST, Context, Trust
from memcube.publishing.attesting import attach
from memcube.publishing.vetting import THOROUGH, Vetting, require_publishable, scan
from memcube.remote.interface import Remote
from memcube.transfer import push_blobs
from memcube.trust import Scope


@frozen
class PushedBuild:
    """A build that a registry holds now, signed; `sent_bytes` counts its blobs."""

    build: Build
    referrer: Digest
    sent_bytes: int


def push_builds(
    context: Context,
    reference: Reference,
    *,
    key: str | None = None,
    trust: Trust = NORMAL_TRUST,
    vet: Vetting = THOROUGH,
) -> tuple[PushedBuild, ...]:
    """Publish the builds of the published cube `reference` that were made here, with the key that released it.

    Nothing is sent before all of them were scanned: an adapter may tell what no record of the cube does.

    Raises:
        FindingsError: secrets or programs were found, and `vet` does not allow them.
        NotFoundError: there is no such cube, or nothing was built of it here.
        KeyNotAuthorisedError: the key is not one that speaks for the cube.
        TrustError: the cube's provenance cannot be established.
        UnauthenticatedError, ForbiddenError, NetworkError: as the registry answers.
    """
    place = context.at_registry(reference)
    verified = opening.resolve(context, reference, trust=trust)
    builds = [one for one in held_builds(context, verified.cube.digest) if one.is_own]
    if not builds:
        raise NotFoundError(
            f"nothing was built here of {verified.reference}", hint="memcube build makes builds"
        )
    _require_publisher(verified, context.signer(key).public_key)
    for one in builds if vet.scan else ():
        found = scan(context, one.build, verified.cube.config.name)
        if not vet.allow_findings:
            require_publishable(found)
    registry = context.remote(place.host)
    return tuple(_push(context, registry, verified, one, key) for one in builds)


def _require_publisher(verified: Verified, key: PublicKey) -> None:
    if verified.verdict.release is None or key not in speakers(verified):
        raise KeyNotAuthorisedError(
            f"the key {key.id} did not release {verified.reference}",
            hint="sign with the key that released it: --key NAME; nobody mounts a build of another's",
        )


def _push(
    context: Context, registry: Remote, verified: Verified, held: HeldBuild, key: str | None
) -> PushedBuild:
    build, place = held.build, verified.reference
    with context.store.session():
        report = push_blobs(
            registry,
            place.name,
            build.manifest.blobs,
            context.store,
            progress=context.progress,
            parallel=context.settings.parallel,
        )
        registry.put_manifest(place.name, build.manifest)
    at = Found(
        Reference(place.host, place.name).with_digest(build.digest),
        build.manifest,
        build.config,
        (),
        Scope.REMOTE,
    )
    attested = finding.attestations_of(registry, place.name, build.digest)
    signer = context.signer(key)
    known = [one for one in attested if is_stated(verified, build, one, (signer.public_key,))]
    if not known:
        bundle = attest(provenance_of(verified, build), signer)
        made = attach(context, registry, at, bundle, provenances.PREDICATE_TYPE, signer)
        known = [finding.stored_attestation(context.store, made.referrer)]
    with context.store.session():
        keep(context, held.reference, build, is_own=True, attestations=tuple(known))
    return PushedBuild(build, known[0].referrer.digest, report.moved_bytes)
