"""Copying a cube with everything attached to it, and giving it further tags."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, replace

from memcube_protocol import limits, oci
from memcube_protocol.content import Expected, stream_verified
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    ConflictError,
    InvalidReferenceError,
    KeyNotAuthorisedError,
    YankedError,
)
from memcube_protocol.reference import Reference, is_immutable_tag, is_tag, tag_of_version
from memcube_signing.authority.chain import about
from memcube_signing.authority.chain import resolve as resolve_keys
from memcube_signing.authority.document import authority_of

from memcube import key_registry
from memcube.consume import Verified, pull, resolve, resolve_unjudged
from memcube.context import NORMAL_TRUST, Context, Trust
from memcube.remote import Registry
from memcube.transfer import pull_blobs, push_blobs
from memcube.trust import location_of, releases_of

_DEPTH = 4
_ATTACHED = 1000


@dataclass(frozen=True, slots=True)
class Copied:
    """A copy: where it is, its digest, how many manifests are attached to it, the bytes sent."""

    reference: Reference
    digest: Digest
    attached: int
    sent_bytes: int


def copy(
    context: Context, source: Reference, target: Reference, *, trust: Trust = NORMAL_TRUST
) -> Copied:
    """Copy the cube `source` with signatures and builds to `target`, the tags last.

    The copy keeps its origin: whoever pulls it sees whose cube it is, and learns from the key documents
    attached to it which keys were replaced or revoked. It gets the tag of its version, and that of
    `target` where it names one. Of a cube that was withdrawn, or whose key was revoked, nothing is
    copied; but an earlier copy is told.

    Raises:
        TrustError: the source's provenance cannot be established.
        ConflictError: an immutable tag of the target names another cube.
        UnauthenticatedError, ForbiddenError, NetworkError: as the registries answer.
    """
    try:
        verified = resolve(context, source, trust=trust)
    except (YankedError, KeyNotAuthorisedError) as refusal:
        if _tell(context, context.at_registry(source), context.at_registry(target)):
            refusal.hint = f"{refusal.hint}; the copy at {target.location} was told"
        raise
    source, cube = verified.reference, verified.cube
    tags = _tags(target, cube.config.version)
    target = context.at_registry(replace(target, tag=tags[-1], digest=None))
    here, there = context.registry(source.host), context.registry(target.host)
    known = frozenset(context.store.locations(source.host))
    sent = attached = 0
    with context.store.session():
        _require_theirs(context, here, source.name, cube.manifest, known)
        pull(context, source.with_digest(source.digest or cube.digest), trust=trust)
        for manifest in _with_attached(here, source.name, cube.manifest):
            if manifest.subject is not None:
                _require_theirs(context, here, source.name, manifest, known)
            sent += _copy_one(context, here, there, source.name, target.name, manifest)
            attached += manifest.subject is not None
        release = verified.verdict.release
        keys = context.authorities.load(authority_of(release.origin)) if release else None
        if (moved := key_registry.carry(context, target, cube.manifest, keys)) is not None:
            sent, attached = sent + moved, attached + 1
        for tag in tags:
            there.put_manifest(target.name, cube.manifest, tag)
    if verified.verdict.release and target.location != source.location:
        context.pins.record_copy(location_of(target), verified.verdict.release.origin)
    return Copied(target, cube.digest, attached, sent)


def _tell(context: Context, source: Reference, target: Reference) -> bool:
    """Send what is attested to the cube `source` since, and its origin's key documents, to its copy.

    Says whether there is one.
    """
    here, there = context.registry(source.host), context.registry(target.host)
    found = resolve_unjudged(here, source)
    manifest, known = found.manifest, frozenset(context.store.locations(source.host))
    if there.manifest_descriptor(target.name, str(manifest.digest)) is None:
        return False
    with context.store.session():
        for one in found.attestations:
            _require_theirs(context, here, source.name, one.referrer, known)
            _copy_one(context, here, there, source.name, target.name, one.referrer)
        releases = releases_of(manifest, found.attestations)
        for name in {authority_of(one.release.origin) for one in releases}:
            said = (*context.authorities.bundles(name), *about(name, found.key_documents))
            key_registry.carry(context, target, manifest, resolve_keys(name, said))
    return True


def add_tag(
    context: Context,
    reference: Reference,
    tag: str,
    *,
    trust: Trust = NORMAL_TRUST,
    backwards: bool = False,
) -> Reference:
    """Let the moving `tag` lead to the published cube `reference`, which is verified before.

    Raises:
        InvalidReferenceError: `tag` is no tag.
        ConflictError: `tag` is a full version, which only a release makes; or it leads to a later
            release now, and `backwards` does not allow that.
        TrustError: the cube's provenance cannot be established.
    """
    if not is_tag(tag):
        raise InvalidReferenceError(
            f"{tag[:140]!r} is no tag",
            hint="use a word such as stable: 128 letters, digits, _ . - at most",
        )
    if is_immutable_tag(tag):
        raise ConflictError(
            f"{tag[:140]!r} is not a moving tag",
            hint="use a word such as stable; versions are made by memcube push",
        )
    verified = resolve(context, reference, trust=trust)
    place = replace(verified.reference, tag=tag, digest=None)
    if not backwards:
        _require_forwards(context, place, verified)
    context.registry(place.host).put_manifest(place.name, verified.cube.manifest, tag)
    return place


def _require_forwards(context: Context, place: Reference, wanted: Verified) -> None:
    """Refuse to lead readers from a later release of the same origin to an earlier one."""
    registry, release = context.registry(place.host), wanted.verdict.release
    present = registry.manifest_descriptor(place.name, place.target)
    if release is None or present is None or present.digest == wanted.cube.digest:
        return
    found = resolve_unjudged(registry, place)
    for signed in releases_of(found.manifest, found.attestations):
        if signed.release.origin == release.origin and signed.release.seq > release.seq:
            raise ConflictError(
                f"{place} leads to {signed.release.version}, released after {release.version}",
                hint="moving it back stops everybody who pulled through it with a rollback alarm; "
                "repeat with --yes if that is meant, or yank the later release",
            )


def _tags(target: Reference, version: str) -> tuple[str, ...]:
    """Tags of a copy: its version's own, then the one that was asked for."""
    own = tag_of_version(version)
    if target.tag is None or target.tag == own:
        return (own,)
    if is_immutable_tag(target.tag):
        raise ConflictError(
            f"{target} names another version than the cube's own, {version}",
            hint=f"copy it to {target.location}:{own}",
        )
    return own, target.tag


def _with_attached(registry: Registry, name: str, cube: oci.Manifest) -> list[oci.Manifest]:
    """`cube`, what refers to it, and what refers to that; each manifest once, subjects first."""
    found = {cube.digest: cube}
    level = [cube.digest]
    for _ in range(_DEPTH):
        entries = [entry for digest in level for entry in registry.referrers(name, digest)]
        level = []
        for entry in entries:
            if entry.digest in found:
                continue
            limits.require_at_most(name, len(found), _ATTACHED, unit="attached manifests")
            manifest = registry.manifest(name, str(entry.digest))
            if isinstance(manifest, oci.Manifest):
                found[manifest.digest] = manifest
                level.append(manifest.digest)
    return list(found.values())


def _require_theirs(
    context: Context, here: Registry, name: str, manifest: oci.Manifest, known: Set[Digest]
) -> None:
    """Refuse content that only the store holds: naming a digest must not get it published.

    The repository has to show a blob that came from elsewhere; of one that its registry is known to
    hold (`known`), it has to say that it is here.

    Raises:
        NotFoundError: the repository does not hold it.
        SizeMismatchError, DigestMismatchError: it sends something else.
    """
    for blob in manifest.blobs:
        if not context.store.has(blob.digest):
            continue
        if blob.digest in known and here.blob_size(name, blob.digest) is not None:
            continue
        with here.open_blob(name, blob.digest) as response:
            for _ in stream_verified(response.pieces(), Expected(blob.digest, blob.size)):
                pass


def _copy_one(
    context: Context,
    here: Registry,
    there: Registry,
    source: str,
    target: str,
    manifest: oci.Manifest,
) -> int:
    """Copy one manifest by digest with its blobs; the bytes sent."""
    parallel, progress = context.settings.parallel, context.progress
    pull_blobs(here, source, manifest.blobs, context.store, progress=progress, parallel=parallel)
    report = push_blobs(
        there, target, manifest.blobs, context.store, progress=progress, parallel=parallel
    )
    there.put_manifest(target, manifest)
    return report.moved_bytes
