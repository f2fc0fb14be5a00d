"""Finding a cube in the store or at its registry: bytes checked against their digests, nothing believed.

A cube that this user packed is local: it needs no signature, and never stands in for a name that was
released.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from memcube_protocol import limits, media_types, oci
from memcube_protocol.content import BlobReader, read_verified
from memcube_protocol.cube import require_cube
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    IntegrityError,
    InvalidError,
    InvalidManifestError,
    LimitExceededError,
    MemcubeError,
    NotFoundError,
)
from memcube_protocol.reference import Reference
from memcube_protocol.values import frozen
from memcube_signing import release
from memcube_signing.authority.document import authority_of
from memcube_signing.predicates import countersignature, status

from memcube.context import Context
from memcube.store import Ref, Store
from memcube.trust import Attestation, Scope, location_of

# What talks to registries is loaded by the functions that do: opening a cube needs none of it.
if TYPE_CHECKING:
    from memcube.remote.interface import Remote

_ATTESTATIONS = 64
_DECISIVE_ATTESTATIONS = 256
_DECISIVE = frozenset(
    {
        None,  # the list does not say
        release.PREDICATE_TYPE,
        status.PREDICATE_TYPE,
        countersignature.PREDICATE_TYPE,
    }
)
"""What a list of referrers says of those that the decision looks at: none of these is passed over."""


@frozen
class Found:
    """A manifest with its config and attestations as they were found: nothing is believed yet.

    `key_documents` are those of its namespace, and those that a copy brought along.
    `known_at` is when the registry was asked for them; None: just now, or they are of this machine.
    """

    reference: Reference
    manifest: oci.Manifest
    config: bytes
    attestations: tuple[Attestation, ...]
    scope: Scope
    key_documents: tuple[bytes, ...] = ()
    known_at: datetime | None = None


def look_at(context: Context, reference: Reference) -> Found:
    """The manifest, config and attestations at `reference`, from the store or its registry, unjudged.

    Raises:
        NotFoundError: there is no such cube, or the store lacks it and memcube is offline.
        NetworkError: no answer.
    """
    ref = find_ref(context, reference)
    found = found_in_store(context.store, ref) if ref else None
    if found is not None:
        return found
    if context.settings.offline:
        raise not_held(context, reference)
    reference = context.at_registry(reference)
    return look_up(context, reference)


def look_up(context: Context, reference: Reference) -> Found:
    """What the registry of `reference` has there, unjudged, after its log was followed.

    Raises:
        NotFoundError, InvalidManifestError: as `resolve_unjudged`.
        LogError, SignatureInvalidError: its transparency log is not the one that was seen before.
    """
    from memcube.log.watching import follow

    found = resolve_unjudged(context.remote(reference.host), reference)
    follow(context, reference.host, found.attestations, _new_documents(context, found))
    return found


def _new_documents(context: Context, found: Found) -> tuple[bytes, ...]:
    """The key documents in `found` that this user does not hold yet."""
    known = context.authorities.bundles(authority_of(location_of(found.reference)))
    return tuple(raw for raw in found.key_documents if raw not in known)


def resolve_unjudged(registry: Remote, reference: Reference) -> Found:
    """What `registry` has at `reference`: bytes checked against their digests, nothing believed.

    Raises:
        NotFoundError: there is no such cube.
        InvalidManifestError: it is something else than a cube.
    """
    from memcube.keys import documents

    manifest = registry.manifest(reference.name, reference.target)
    if not isinstance(manifest, oci.Manifest):
        raise InvalidManifestError(
            f"{reference} is an index, not a cube", hint="name one of its manifests by digest"
        )
    require_cube(manifest)
    assert manifest.config
    config = registry.read_blob(reference.name, manifest.config, limits.CONFIG_BYTES)
    listed = registry.referrers(reference.name, manifest.digest)
    attestations = tuple(_attestations(registry, reference.name, listed))
    key_documents = (
        *documents.fetch(registry, reference.name.partition("/")[0]),
        *documents.carried(registry, reference.name, listed),
    )
    return Found(reference, manifest, config, attestations, Scope.REMOTE, key_documents)


def attestations_of(registry: Remote, name: str, subject: Digest) -> Iterable[Attestation]:
    """Bundles attached to `subject`. One that cannot be read proves nothing and is passed over."""
    return _attestations(registry, name, registry.referrers(name, subject))


def _attestations(
    registry: Remote, name: str, listed: Iterable[oci.Descriptor]
) -> Iterable[Attestation]:
    taken_bytes = 0
    for entry in _looked_at(name, listed):
        found = _attestation(registry, name, entry)
        if found is None:
            continue
        taken_bytes += len(found.referrer.raw) + len(found.bundle)
        if taken_bytes > limits.STATEMENTS_BYTES and not _is_decisive(entry):
            return
        what = f"what is stated about {name}"
        limits.require_at_most(what, taken_bytes, limits.STATEMENTS_BYTES)
        yield found


def _attestation(registry: Remote, name: str, entry: oci.Descriptor) -> Attestation | None:
    """The bundle that `entry` of a list of referrers attaches; nothing where none can be read."""
    try:
        referrer = registry.manifest(name, str(entry.digest))
        if not isinstance(referrer, oci.Manifest) or len(referrer.layers) != 1:
            return None
        bundle = registry.read_blob(name, referrer.layers[0], limits.BUNDLE_BYTES)
    except MemcubeError as error:
        if not _proves_nothing(error):
            raise
        return None
    return Attestation(referrer, bundle)


def _looked_at(name: str, listed: Iterable[oci.Descriptor]) -> list[oci.Descriptor]:
    """Bundles that may decide, all of them, and as many others as are shown besides.

    Raises:
        LimitExceededError: more that may decide than anybody attaches: among them a yank could be lost.
    """
    bundles = [one for one in listed if one.artifact_type == media_types.SIGSTORE_BUNDLE]
    decisive = [one for one in bundles if _is_decisive(one)]
    others = [one for one in bundles if not _is_decisive(one)]
    what = f"number of statements about {name}"
    limits.require_at_most(what, len(decisive), _DECISIVE_ATTESTATIONS, unit="statements")
    return [*decisive, *others[:_ATTESTATIONS]]


def _is_decisive(entry: oci.Descriptor) -> bool:
    return entry.annotations.get(media_types.BUNDLE_PREDICATE) in _DECISIVE


def _proves_nothing(error: MemcubeError) -> bool:
    """Whether `error` tells of a bad attestation, not of a connection that failed."""
    return isinstance(error, InvalidError | IntegrityError | LimitExceededError | NotFoundError)


def found_in_store(store: Store, ref: Ref) -> Found | None:
    """What the store holds of `ref`, or nothing where its manifest or config is gone."""
    try:
        manifest = oci.parse_manifest(read_verified(store, ref.digest))
        require_cube(manifest)
        assert manifest.config
        config = read_verified(store, manifest.config.digest)
        attestations = tuple(stored_attestation(store, digest) for digest in ref.related)
    except NotFoundError:
        return None
    scope = Scope.REMOTE if ref.reference.host else Scope.LOCAL
    return Found(ref.reference, manifest, config, attestations, scope, known_at=ref.checked_at)


def stored_attestation(store: BlobReader, digest: Digest) -> Attestation:
    """The statement that the manifest `digest` attaches, as the store holds it: nothing is believed.

    Raises:
        NotFoundError: it is not there.
        IntegrityError, InvalidError: it is damaged.
    """
    referrer = oci.parse_manifest(read_verified(store, digest))
    return Attestation(referrer, read_verified(store, referrer.layers[0].digest))


def find_ref(context: Context, reference: Reference) -> Ref | None:
    """The ref of the store that `reference` means: pulled, or packed by this user.

    A pack is meant where this machine knows of no release under the name, or by its own digest:
    what was packed under a released name is not the release.
    """
    ref = context.store.ref(replace(context.at_registry(reference), digest=None))
    if ref is None and reference.digest and not reference.tag:
        ref = _ref_by_digest(context.store, context.at_registry(reference))
    if ref is None and (reference.digest or not _is_released(context, reference)):
        ref = find_packed(context.store, reference)
    if ref and reference.digest not in (None, ref.digest):
        return None
    return ref


def _ref_by_digest(store: Store, reference: Reference) -> Ref | None:
    """Another ref of the same place with the wanted digest: pulled by a tag before."""
    for ref in store.refs():
        same = (ref.reference.location, ref.digest) == (reference.location, reference.digest)
        if same:
            return replace(ref, reference=reference)
    return None


def find_packed(store: Store, reference: Reference) -> Ref | None:
    """A cube that this user packed: by its digest, by its version, or the one packed last."""
    packs = [
        ref
        for ref in store.refs()
        if not (ref.reference.host or reference.host) and ref.reference.name == reference.name
    ]
    if reference.digest:
        packs = [ref for ref in packs if ref.digest == reference.digest]
    if reference.tag and reference.tag != "latest":
        packs = [ref for ref in packs if ref.reference.tag == reference.tag]
    return max(packs, key=lambda ref: ref.used_at, default=None)


def _is_released(context: Context, reference: Reference) -> bool:
    """Whether this machine knows of a release at the location: from its pins, or from the store."""
    place = context.at_registry(reference)
    location, pins = location_of(place), context.pins.load()
    if pins.at(location) or pins.of(location):
        return True
    return any(ref.reference.location == place.location for ref in context.store.refs())


def not_held(context: Context, reference: Reference) -> NotFoundError:
    """Why a cube cannot be had offline; a pack that is not the release is named."""
    hint = f"pull it while online: memcube pull {reference}"
    if pack := find_packed(context.store, reference):
        named = pack.reference.with_digest(pack.digest)
        hint += f"; what was packed here is not the release, its own name is {named}"
    return NotFoundError(
        f"the local store does not hold all that is wanted of {reference}", hint=hint
    )
