"""Publishing: blobs, then the manifest by digest, what is signed about it as its referrers, the tags last.

Nobody resolves a tag to something unsigned, and a publication that was interrupted is finished by
running it again. Of the tags, the full version comes first: it never moves, so that of two machines
that release the same version one is refused; then those that follow it, `1.4`, `1` and `latest`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from memcube_protocol import oci
from memcube_protocol.config import CubeConfig, Lineage
from memcube_protocol.cube import Cube
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    ConflictError,
    MemcubeError,
    SigningKeyError,
    TrustError,
)
from memcube_protocol.reference import (
    HUB_HOST,
    Reference,
    is_immutable_tag,
    tag_of_version,
)
from memcube_protocol.values import frozen
from memcube_signing.authority.document import authority_of
from memcube_signing.job import Job
from memcube_signing.keys import PublicKey, Signer
from memcube_signing.predicates.scan import Scan
from memcube_signing.release import Parent
from memcube_signing.transparency.entry import LogPolicy

from memcube.consuming.finding import attestations_of, resolve_unjudged
from memcube.consuming.opening import resolve
from memcube.consuming.verifying import Verified
from memcube.context import NORMAL_TRUST, Context, Trust
from memcube.keys import documents
from memcube.packing.pack import keep_cube
from memcube.publishing import rivals
from memcube.publishing.sending import attach, push_manifest
from memcube.publishing.tags import following_tags, tags_of
from memcube.publishing.visibility import Visibility
from memcube.remote import Registry
from memcube.remote.interface import Remote
from memcube.remote.log import RemoteLog, log_of_releases
from memcube.transfer import EarlySender
from memcube.trust import (
    Pins,
    Publication,
    Signed,
    SignedCube,
    location_of,
    releases_of,
    sign_cube,
    tagged,
    with_entry,
)
from memcube.trust.keystore import DEFAULT_KEY
from memcube.trust.publishing import RAISE_VERSION

Accompany = Callable[[Reference, Cube], tuple[Digest, ...]]
"""Attaches further statements to the cube at a place; the manifests that do so."""


@frozen
class Published:
    """A cube that a registry holds now. `tags` lead to it, the version's own first.

    `unchanged` says that it was there already, with signature and tags; `sent_bytes` counts blobs;
    `scan` is what was found before, `notes` what packing left out and why; `visibility` is who may
    read it, where that was set; `job` the CI job that the release names.
    """

    reference: Reference
    cube: Cube
    tags: tuple[str, ...]
    unchanged: bool
    sent_bytes: int = 0
    key_id: str | None = None
    scan: Scan | None = None
    lacking: int = 0
    notes: tuple[str, ...] = ()
    visibility: Visibility | None = None
    job: Job | None = None


def publish(
    context: Context,
    cube: Cube,
    reference: Reference,
    *,
    key: str | None = None,
    trust: Trust = NORMAL_TRUST,
    early: EarlySender | None = None,
    accompany: Accompany = lambda _place, _cube: (),
) -> Published:
    """Publish `cube`, whose blobs the store holds, under `reference` (host and name) and its version.

    `early` has sent some of them there while the cube was being packed. A place that publishes all at once
    gets what `accompany` attaches together with the release; elsewhere it is not asked.

    Raises:
        ConflictError: the version is released already with other content, or another tag is asked for.
        PublisherChangedError: the name was published with another key.
        SigningKeyError: the key cannot be used.
        UnauthenticatedError, ForbiddenError: the registry does not let this user publish there.
        NetworkError, IntegrityError, StorageError: the transfer failed; run it again to go on.
    """
    place = _place(context, cube, reference)
    registry = context.remote(place.host)
    present = registry.manifest_descriptor(place.name, place.target)
    if present is not None and present.digest != cube.digest:
        cube = _as_released(context, registry, place, cube)
    known = context.store.ref(place)
    if present and known and known.digest == cube.digest and known.related:
        attached = {entry.digest for entry in registry.referrers(place.name, cube.digest)}
        if attached.issuperset(known.related):
            return Published(place, cube, (place.target,), unchanged=True)
    if not context.keys.is_at_hand(key or DEFAULT_KEY):
        _require_writable(registry, place)
    signer = context.signer(key)
    if present and (found := _released_by(context, place, signer, trust)):
        return _adopt(context, registry, cube, found)
    log = log_of_releases(registry, signer.public_key)
    releasing = _Releasing(context, registry, place, cube, signer, trust, log, accompany)
    published = _publish(releasing, early)
    return replace(published, sent_bytes=published.sent_bytes + (early.moved_bytes if early else 0))


def early_sender(context: Context, reference: Reference) -> EarlySender:
    """What sends large files to `reference` while a cube for it is being packed."""
    place = context.at_registry(reference)
    target = context.hub() if place.host == HUB_HOST else context.registry(place.host)
    parallel = context.settings.parallel
    return EarlySender.to(target, place.name, context.store, context.progress, parallel)


def _require_writable(registry: Remote, place: Reference) -> None:
    """Learn that this user may not push to `place` before a key is made, or a passphrase asked for.

    Raises:
        UnauthenticatedError, ForbiddenError, NetworkError: as the registry answers.
    """
    if isinstance(registry, Registry) and (upload := registry.uploads.start(place.name)):
        with suppress(MemcubeError):  # where an upload cannot be given up it runs out
            registry.uploads.cancel(place.name, upload)


def _released_by(
    context: Context, place: Reference, signer: Signer, trust: Trust
) -> Verified | None:
    """What `place` names, if this key released it: from another machine, or before its home was lost."""
    try:
        found = resolve(context, place, trust=trust)
    except TrustError:
        return None
    publisher = found.verdict.publisher
    return found if publisher and publisher.id == signer.public_key.id else None


def _adopt(context: Context, registry: Remote, cube: Cube, found: Verified) -> Published:
    """Make this machine know a release of its own, and finish its tags; nothing is signed again."""
    attached = tuple(attestation.referrer.digest for attestation in found.attestations)
    with context.store.session():
        for attestation in found.attestations:
            context.store.blobs.add(attestation.bundle)
            context.store.blobs.add(attestation.referrer.raw)
        tags = _set_tags(context, registry, found.reference, cube, attached)
    return Published(found.reference, cube, tags, unchanged=True)


def _set_tags(
    context: Context, registry: Remote, place: Reference, cube: Cube, related: tuple[Digest, ...]
) -> tuple[str, ...]:
    """Point the version's own tag, and those that follow it, at `cube`, there and here; returns all of them."""
    tags = (place.target, *following_tags(registry, place))
    registry.put_tags(place.name, cube.manifest, tags)
    context.store.put_refs((replace(place, tag=tag) for tag in tags), cube.digest, related)
    return tags


@frozen
class _Releasing:
    """What is released, where, by whose key, and into which log."""

    context: Context
    registry: Remote
    place: Reference
    cube: Cube
    signer: Signer
    trust: Trust
    log: RemoteLog | None
    accompany: Accompany


def _publish(releasing: _Releasing, early: EarlySender | None) -> Published:
    context, registry, place = releasing.context, releasing.registry, releasing.place
    cube, signer = releasing.cube, releasing.signer
    signed = _sign(releasing)
    authority = context.authorities.load(authority_of(signed.release.origin))
    key_id = signer.public_key.id
    lacking = authority.lacking(signed.release.origin, {key_id}) if authority else 0
    with context.store.session():
        sent = push_manifest(context, registry, place.name, cube.manifest, early)
        signed = _logged_behind_rivals(releasing, signed)
        sent += attach(context, registry, place.name, signed)
        further = releasing.accompany(place, cube) if registry.publishes_at_once else ()
        related = (signed.manifest.digest, *further)
        tags = () if lacking else _set_tags(context, registry, place, cube, related)
    job = signed.release.job
    if lacking:
        # A tag never leads to what too few have signed: the last who signs sets it.
        untagged = Reference(place.host, place.name).with_digest(cube.digest)
        return Published(untagged, cube, (), False, sent, key_id, lacking=lacking, job=job)
    seen = signed.observation
    context.pins.record(seen, *(tagged(seen, tag) for tag in tags[1:]))
    return Published(place, cube, tags, False, sent, key_id, job=job)


def _as_released(context: Context, registry: Remote, place: Reference, cube: Cube) -> Cube:
    """The cube at `place`, if `cube` is the same but for the time when it was packed.

    So a folder that was released from another machine, or before the store was lost, is found
    unchanged.

    Raises:
        ConflictError: it has other content.
    """
    released = resolve_unjudged(registry, place)
    created_at = CubeConfig.parse(released.config).created_at
    same = Cube.write(replace(cube.config, created_at=created_at), cube.files)
    if same.digest != released.manifest.digest:
        raise ConflictError(
            f"{place} is released already with other content ({released.manifest.digest})",
            hint=RAISE_VERSION,
        )
    with context.store.session():
        keep_cube(context.store, same)
        packed = Reference("", cube.config.name, place.tag)
        context.store.put_ref(packed, same.digest, kept=True)
    return same


def _place(context: Context, cube: Cube, reference: Reference) -> Reference:
    """Where `cube` goes: the default registry unless another is named, tagged with its version."""
    tag = tag_of_version(cube.config.version)
    if reference.tag not in (None, tag) or reference.digest:
        raise ConflictError(
            f"{reference} names another version than the cube's own, {cube.config.version}",
            hint=f"push it as {reference.location}:{tag}; `memcube tag` adds further tags",
        )
    return context.at_registry(Reference(reference.host, reference.name, tag))


def _sign(releasing: _Releasing) -> SignedCube:
    context, place, cube, log = releasing.context, releasing.place, releasing.cube, releasing.log
    pins = context.pins.load()
    governance = cube.config.governance
    publication = Publication(
        cube.config.version,
        governance.licence,
        _parents(cube.config.lineage),
        governance.expires_at,
        context.job_at(place),
    )
    if publication.job and log is None:
        raise SigningKeyError(
            "what a CI job releases is logged, and this key cannot be",
            hint="sign with an ECDSA P-256 key (--key NAME; memcube keys generate makes one)",
        )
    return sign_cube(
        place,
        cube.manifest,
        publication,
        signer=releasing.signer,
        pins=pins,
        now=context.now(),
        published=_published_before(releasing.registry, place, pins),
        accept=releasing.trust.accept,
        authority=documents.refresh(context, documents.namespace_of(place)),
        logged=log.places(place.name) if log else (),
    )


def _logged_behind_rivals(releasing: _Releasing, signed: SignedCube) -> SignedCube:
    """`signed` in the log; signed anew behind every machine that took its place meanwhile.

    Raises:
        ConflictError: one of them released the same version, or there is no end of them.
        SignatureInvalidError: the log's proof does not hold.
    """
    name, key, log = releasing.place.name, releasing.signer.public_key, releasing.log
    for _ in range(rivals.ATTEMPTS):
        try:
            return logged_release(signed, name, key, log)
        except ConflictError:
            assert log is not None, "nothing but a log refuses here"
            rivals.require_other_version(releasing.registry, name, log, signed.release)
        signed = _sign(releasing)
    return logged_release(signed, name, key, log)


def logged_release(
    signed: SignedCube, name: str, key: PublicKey, log: RemoteLog | None
) -> SignedCube:
    """The release with its place in the registry's log, where that keeps one.

    Raises:
        ConflictError: another machine released at the same time.
        SignatureInvalidError: the log's proof does not hold.
    """
    if log is None:
        return signed
    entry = log.submit(name, signed.bundle.envelope, key)
    return with_entry(signed, key, entry, LogPolicy(log.key))


def _published_before(registry: Remote, place: Reference, pins: Pins) -> tuple[Signed, ...]:
    """Releases that the registry shows and this machine does not know of."""
    pin = pins.of(location_of(place))
    known = {tag_of_version(version) for version in pin.seen} if pin else set[str]()
    releases: list[Signed] = []
    for tag in tags_of(registry, place):
        if tag in known or not is_immutable_tag(tag):
            continue
        manifest = registry.manifest(place.name, tag)
        if isinstance(manifest, oci.Manifest):
            attached = tuple(attestations_of(registry, place.name, manifest.digest))
            releases += releases_of(manifest, attached)
    return tuple(releases)


def _parents(lineage: Lineage) -> tuple[Parent, ...]:
    return tuple(
        Parent(parent.origin, parent.digest, parent.relation) for parent in lineage.parents
    )
