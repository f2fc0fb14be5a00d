"""Signing a release that others have signed already, where the namespace demands several keys.

The first `memcube push` attaches its signature and sets no tag; everybody after it signs the very same
statement with `memcube cosign`, and the one who completes the quorum sets the tags.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from memcube_protocol.cube import Cube
from memcube_protocol.errors import ConflictError, KeyNotAuthorisedError, SignatureMissingError
from memcube_protocol.reference import Reference
from memcube_protocol.values import frozen
from memcube_signing import referrer
from memcube_signing.authority.chain import Authority
from memcube_signing.keys import PublicKey
from memcube_signing.release import PREDICATE_TYPE, Release, sign_release

from memcube.consuming.finding import Found, resolve_unjudged
from memcube.context import Context
from memcube.keys import documents
from memcube.publishing.publish import logged_release
from memcube.publishing.sending import attach
from memcube.publishing.tags import following_tags
from memcube.remote.interface import Remote
from memcube.remote.log import log_of_releases
from memcube.trust import Observation, Signed, SignedCube, location_of, releases_of
from memcube.trust.publishing import publishers_of


@frozen
class Cosigned:
    """A release with one more signature. `lacking` more are needed; with none, `tags` lead to it."""

    reference: Reference
    release: Release
    key_id: str
    lacking: int
    tags: tuple[str, ...]


def cosign(context: Context, reference: Reference, *, key: str | None = None) -> Cosigned:
    """Sign the release of the cube at `reference`, which names its digest, with one more key.

    Raises:
        ConflictError: no digest is named, or the namespace has no key documents.
        SignatureMissingError: nobody in charge has signed it yet.
        KeyNotAuthorisedError: this key may not sign it.
        NotFoundError, NetworkError, SigningKeyError: as `publish`.
    """
    place = context.at_registry(reference)
    if place.digest is None:
        raise ConflictError(
            f"{reference} names no digest, and may be moved while you sign",
            hint="memcube push printed the digest; look at it first: memcube inspect",
        )
    registry = context.remote(place.host)
    authority = documents.refresh(context, documents.namespace_of(place))
    if authority is None:
        raise ConflictError(
            f"the namespace of {place} has no key documents: one signature is enough",
            hint="see docs/guide/keys.md",
        )
    found = resolve_unjudged(registry, place)
    Cube.read(found.manifest, found.config)
    signer = context.signer(key)
    own = signer.public_key
    publishers_of(authority, location_of(place), own)
    before = _signed_before(found, authority, location_of(place))
    release = _require_for(own, before)
    if own.id not in {one.key.id for one in before if one.release == release}:
        log = log_of_releases(registry, own)
        bundle = sign_release(release, signer)
        attached = referrer.write(bundle, PREDICATE_TYPE, found.manifest.descriptor(), own)
        observation = Observation(release.origin, None, release, (own,))
        signed = SignedCube(release, bundle, attached, observation)
        with context.store.session():
            attach(context, registry, place.name, logged_release(signed, place.name, own, log))
    signers = {one.key.id for one in before if one.release == release} | {own.id}
    lacking = authority.lacking(release.origin, signers)
    tags = () if lacking else _tag(registry, place, found, release)
    return Cosigned(place, release, own.id, lacking, tags)


def _signed_before(found: Found, authority: Authority, origin: str) -> list[Signed]:
    """Releases of this very place that somebody in charge has signed."""
    in_charge = {key for one in authority.current.quorums_for(origin) for key in one.keys}
    return [
        signed
        for signed in releases_of(found.manifest, found.attestations)
        if signed.release.origin == origin and signed.key in in_charge
    ]


def _require_for(own: PublicKey, before: Sequence[Signed]) -> Release:
    """The release that most have signed."""
    if not before:
        raise SignatureMissingError(
            "nobody in charge has signed this cube yet",
            hint="whoever made it signs first: memcube push",
        )
    counts = {
        one.release.created_at: sum(other.release == one.release for other in before)
        for one in before
    }
    release = max(
        (one.release for one in before), key=lambda one: (counts[one.created_at], one.created_at)
    )
    if own.id not in release.publishers:
        raise KeyNotAuthorisedError(
            f"the release was signed before key {own.id} was in charge, and does not name it",
            hint="whoever made it signs it anew: memcube push",
        )
    return release


def _tag(registry: Remote, place: Reference, found: Found, release: Release) -> tuple[str, ...]:
    """Point the version's tag, and those that follow it, at the cube: enough keys have signed it now."""
    named = replace(place, tag=release.tag, digest=None)
    tags = (release.tag, *following_tags(registry, named))
    registry.put_tags(place.name, found.manifest, tags)
    return tags
