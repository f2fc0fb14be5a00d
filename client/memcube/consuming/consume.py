"""Consuming: resolve, fetch, verify, keep. `_verified` is the one step that every path goes through.

    reference → manifest → attestations → verdict → only the wanted layers → the store names them

What the store names was verified when it came and is judged again, against the pins of now, each
time it is used. A cube that this user packed is local: it needs no signature, and never stands in
for a name that was released.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from memcube_protocol import limits, media_types, oci
from memcube_protocol.content import BlobReader, read_verified
from memcube_protocol.cube import Cube, CubeFile, require_cube
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
from memcube_protocol.selection import Selection
from memcube_signing import release
from memcube_signing.authority.chain import about
from memcube_signing.authority.chain import resolve as resolve_keys
from memcube_signing.authority.document import authority_of
from memcube_signing.predicates import countersignature, status

from memcube.context import EVERYTHING, NORMAL_TRUST, Context, Trust
from memcube.store import Ref, Store
from memcube.trust import Attestation, Question, Scope, Verdict, judge_cube, location_of
from memcube.trust.policy import Policy
from memcube.trust.verdict import Standing

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


@dataclass(frozen=True, slots=True)
class Verified:
    """A cube that passed the verification step. `files` are those that the store holds of it."""

    reference: Reference
    cube: Cube
    verdict: Verdict
    files: tuple[CubeFile, ...]
    attestations: tuple[Attestation, ...] = ()
    fetched_bytes: int = 0

    @property
    def is_local(self) -> bool:
        """Whether this user packed it: nobody signed it, and no registry is known to hold it."""
        return self.verdict.standing is Standing.LOCAL


@dataclass(frozen=True, slots=True)
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


def pull(
    context: Context,
    reference: Reference,
    *,
    selection: Selection = EVERYTHING,
    trust: Trust = NORMAL_TRUST,
) -> Verified:
    """Fetch the cube at `reference`, verify it, and keep the files that `selection` wants.

    Raises:
        NotFoundError: there is no such cube, or no memory of a name in `selection`.
        TrustError: its provenance cannot be established.
        IntegrityError: the registry sent other bytes than it named.
        NetworkError: no answer, or offline.
    """
    reference = context.at_registry(reference)
    with context.store.session():
        found = look_up(context, reference)
        verified = _verified(context, found, trust)
        verified = _fetched(context, verified, selection.of(verified.cube))
        _keep(context.store, found)
    if verified.verdict.observation:
        context.pins.record(verified.verdict.observation)
    return verified


def resolve(context: Context, reference: Reference, *, trust: Trust = NORMAL_TRUST) -> Verified:
    """The cube at `reference` as its registry has it now, verified; no layer is fetched.

    Raises:
        NotFoundError, TrustError, IntegrityError, NetworkError: as `pull`.
    """
    reference = context.at_registry(reference)
    found = look_up(context, reference)
    verified = _verified(context, found, trust)
    if verified.verdict.observation:
        context.pins.record(verified.verdict.observation)
    return verified


def open_held(
    context: Context,
    reference: Reference,
    *,
    selection: Selection = EVERYTHING,
    trust: Trust = NORMAL_TRUST,
) -> Verified | None:
    """The cube at `reference` if the store holds all that `selection` wants of it, verified.

    Raises:
        TrustError: its provenance cannot be established any more.
        IntegrityError: the store is damaged.
    """
    ref = find_ref(context, reference)
    if ref is None:
        return None
    found = found_in_store(context.store, ref)
    if found is None:
        return None
    verified = _verified(context, found, trust)
    wanted = selection.of(verified.cube)
    if not all(context.store.has(file.digest, file.size) for file in wanted):
        return None
    context.store.touch_ref(ref)
    return replace(verified, files=wanted)


def open_cube(
    context: Context,
    reference: Reference,
    *,
    selection: Selection = EVERYTHING,
    trust: Trust = NORMAL_TRUST,
) -> Verified:
    """The cube at `reference` from the store, or pulled where the store lacks a part of it.

    Raises:
        NotFoundError: neither the store nor the registry has it, or memcube is offline.
        TrustError, IntegrityError, NetworkError: as `pull`.
    """
    held = open_held(context, reference, selection=selection, trust=trust)
    if held is not None:
        return held
    if context.settings.offline:
        raise _not_held(context, reference)
    return pull(context, reference, selection=selection, trust=trust)


def open_layerless(
    context: Context, reference: Reference, *, trust: Trust = NORMAL_TRUST
) -> Verified:
    """The cube at `reference`, verified, no layer fetched: from the store, else from its registry.

    Its `files` are those that the store holds.

    Raises:
        NotFoundError, TrustError, IntegrityError, NetworkError: as `open_cube`.
    """
    ref = find_ref(context, reference)
    found = found_in_store(context.store, ref) if ref else None
    if ref is None or found is None:
        if context.settings.offline:
            raise _not_held(context, reference)
        verified = resolve(context, reference, trust=trust)
    else:
        verified = _verified(context, found, trust)
        context.store.touch_ref(ref)
    files = verified.cube.files
    here = tuple(file for file in files if context.store.has(file.digest, file.size))
    return replace(verified, files=here)


def fetch(context: Context, verified: Verified, files: tuple[CubeFile, ...]) -> Verified:
    """`verified` with those of its `files`, fetched where the store lacks them, and kept.

    Raises:
        NotFoundError: the store lacks one, and memcube is offline, or the cube was packed here.
        IntegrityError, NetworkError: as `pull`.
    """
    absent = [file for file in files if not context.store.has(file.digest, file.size)]
    if absent and (context.settings.offline or verified.is_local):
        raise _not_held(context, verified.reference)
    with context.store.session():
        fetched = _fetched(context, verified, files)
        cube, reference = verified.cube, verified.reference
        ref = None if verified.is_local else context.store.ref(replace(reference, digest=None))
        if not verified.is_local and (ref is None or ref.digest != cube.digest):
            config = cube.config.write()
            attestations = verified.attestations
            found = Found(reference, cube.manifest, config, attestations, Scope.REMOTE)
            _keep(context.store, found)
    return fetched


def _fetched(context: Context, verified: Verified, files: tuple[CubeFile, ...]) -> Verified:
    """`verified` with `files` in the store. How fast the registry was is remembered."""
    from memcube.transfer import pull_blobs

    reference, began_s = verified.reference, time.monotonic()
    if all(context.store.has(file.digest, file.size) for file in files):
        return replace(verified, files=files)
    report = pull_blobs(
        context.remote(reference.host),
        reference.name,
        [file.descriptor() for file in files],
        context.store,
        progress=context.progress,
        parallel=context.settings.parallel,
    )
    took_s = time.monotonic() - began_s
    context.speeds.note_transfer(reference.host, report.moved_bytes, took_s, context.now())
    return replace(verified, files=files, fetched_bytes=report.moved_bytes)


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
        raise _not_held(context, reference)
    reference = context.at_registry(reference)
    return look_up(context, reference)


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


def question(
    context: Context, found: Found, trust: Trust, *, policy: Policy | None = None
) -> Question:
    """What `trust.judge_cube` and `trust.verify_cube` decide about `found`, by the policy that holds."""
    asked = Question(
        found.reference,
        found.manifest,
        found.attestations,
        context.pins.load(),
        context.now(),
        mode=trust.mode,
        scope=found.scope,
        policy=context.policy if policy is None else policy,
        known_at=found.known_at,
        logs=context.logs.load(),
        accept=trust.accept,
        remembered=context.statuses.of(found.manifest.digest),
    )
    return asked if found.scope is Scope.LOCAL else _with_authority(context, asked, found)


def _with_authority(context: Context, asked: Question, found: Found) -> Question:
    """`asked` with the key documents of the origin's namespace: known ones, and those served now."""
    name = authority_of(asked.origin)
    served = about(name, found.key_documents)
    authority = context.authorities.load(name)
    if authority is None:
        return replace(asked, authority=resolve_keys(name, served))
    if served:
        # A revocation is remembered whatever becomes of this cube.
        authority = context.authorities.add(name, served)
    return replace(asked, authority=authority, authority_is_known=True)


def _verified(context: Context, found: Found, trust: Trust) -> Verified:
    """The verification step: provenance first, then that manifest, config and layers agree."""
    asked = question(context, found, trust)
    verdict = judge_cube(asked)
    if verdict.said:
        # A yank is remembered whatever becomes of this cube.
        context.statuses.keep(found.manifest.digest, verdict.said)
    if verdict.error:
        raise verdict.error
    if asked.authority and not asked.authority_is_known and verdict.release:
        bundles = tuple(bundle.raw for bundle in asked.authority.bundles)
        context.authorities.add(asked.authority.name, bundles)
    cube = Cube.read(found.manifest, found.config)
    return Verified(found.reference, cube, verdict, (), found.attestations)


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
    for entry in _looked_at(name, listed):
        try:
            referrer = registry.manifest(name, str(entry.digest))
            if not isinstance(referrer, oci.Manifest) or len(referrer.layers) != 1:
                continue
            bundle = registry.read_blob(name, referrer.layers[0], limits.BUNDLE_BYTES)
        except MemcubeError as error:
            if not _proves_nothing(error):
                raise
            continue
        yield Attestation(referrer, bundle)


def _looked_at(name: str, listed: Iterable[oci.Descriptor]) -> list[oci.Descriptor]:
    """Bundles that may decide, all of them, and as many others as are shown besides.

    Raises:
        LimitExceededError: more that may decide than anybody attaches: among them a yank could be lost.
    """
    bundles = [one for one in listed if one.artifact_type == media_types.SIGSTORE_BUNDLE]
    kinds = [one.annotations.get(media_types.BUNDLE_PREDICATE) for one in bundles]
    decisive = [one for one, kind in zip(bundles, kinds, strict=True) if kind in _DECISIVE]
    others = [one for one, kind in zip(bundles, kinds, strict=True) if kind not in _DECISIVE]
    what = f"number of statements about {name}"
    limits.require_at_most(what, len(decisive), _DECISIVE_ATTESTATIONS, unit="statements")
    return [*decisive, *others[:_ATTESTATIONS]]


def _proves_nothing(error: MemcubeError) -> bool:
    """Whether `error` tells of a bad attestation, not of a connection that failed."""
    return isinstance(error, InvalidError | IntegrityError | LimitExceededError | NotFoundError)


def _keep(store: Store, found: Found) -> None:
    """Let the store hold and name what was found; the layers are there already."""
    assert found.manifest.config
    store.blobs.add(found.config, found.manifest.config.digest.algorithm)
    for attestation in found.attestations:
        store.blobs.add(attestation.bundle)
        store.blobs.add(attestation.referrer.raw)
    store.blobs.add(found.manifest.raw, (found.reference.digest or found.manifest.digest).algorithm)
    reference = found.reference
    store.put_ref(
        replace(reference, digest=None) if reference.tag else reference,
        reference.digest or found.manifest.digest,
        related=tuple(attestation.referrer.digest for attestation in found.attestations),
    )


def stored_attestation(store: BlobReader, digest: Digest) -> Attestation:
    """The statement that the manifest `digest` attaches, as the store holds it: nothing is believed.

    Raises:
        NotFoundError: it is not there.
        IntegrityError, InvalidError: it is damaged.
    """
    referrer = oci.parse_manifest(read_verified(store, digest))
    return Attestation(referrer, read_verified(store, referrer.layers[0].digest))


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


def _not_held(context: Context, reference: Reference) -> NotFoundError:
    """Why a cube cannot be had offline; a pack that is not the release is named."""
    hint = f"pull it while online: memcube pull {reference}"
    if pack := find_packed(context.store, reference):
        named = pack.reference.with_digest(pack.digest)
        hint += f"; what was packed here is not the release, its own name is {named}"
    return NotFoundError(
        f"the local store does not hold all that is wanted of {reference}", hint=hint
    )
