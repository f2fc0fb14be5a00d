"""Copying a cube with everything attached to it, from registry to registry, past the local store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TypedDict

from memcube_protocol import oci
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    ConflictError,
    InvalidReferenceError,
    KeyNotAuthorisedError,
    OriginMismatchError,
    YankedError,
)
from memcube_protocol.reference import Reference, is_immutable_tag, tag_of_version, tag_order
from memcube_protocol.values import frozen
from memcube_signing.authority.chain import about
from memcube_signing.authority.chain import resolve as resolve_keys
from memcube_signing.authority.document import authority_of

from memcube import rules
from memcube.consuming.finding import resolve_unjudged
from memcube.consuming.opening import resolve
from memcube.consuming.verifying import Verified
from memcube.context import NORMAL_TRUST, Context, Trust
from memcube.copying.oci_layout import LayoutPlace
from memcube.copying.passage import Passage, Tally, descriptor_at
from memcube.keys import documents
from memcube.publishing.exposure import AS_IT_IS, Exposure
from memcube.remote import is_fallback_tag
from memcube.transfer import Repository
from memcube.trust import location_of, releases_of


@frozen
class Copied:
    """A copy: where it is, its digest, and how many manifests are attached to it.

    `moved` is what had to be done for it; `changed` says whether anything had to.
    """

    reference: Reference | LayoutPlace
    digest: Digest
    attached: int
    moved: Tally
    changed: bool


class CopyTerms(TypedDict, total=False):
    """How a copy is made: whom to trust, whether builds come along, and who may read it."""

    trust: Trust
    builds: bool
    exposure: Exposure


def copy(
    context: Context,
    source: Reference,
    target: Reference,
    *,
    trust: Trust = NORMAL_TRUST,
    builds: bool = True,
    exposure: Exposure = AS_IT_IS,
) -> Copied:
    """Copy the cube `source` with signatures and builds to `target`, the tags last.

    The copy keeps its origin: whoever pulls it sees whose cube it is, and learns from the key documents
    attached to it which keys were replaced or revoked. A cube that does not bear the `exposure` which its copy
    will have is refused; who copies applies it, once all is there. It gets the tag of its version, and that of
    `target` where it names one. Of a cube that was withdrawn, or whose key was revoked, nothing is
    copied; but an earlier copy is told. Without `builds` those stay, with what is attested to them.

    Raises:
        TrustError: the source's provenance cannot be established.
        OriginMismatchError: the target is known to hold another cube's releases.
        RuleRefusedError: the cube's own rules forbid it, or that everybody reads it.
        ConflictError: an immutable tag of the target names another cube.
        UnauthenticatedError, ForbiddenError, NetworkError: as the registries answer.
    """
    try:
        verified = resolve(context, source, trust=trust)
    except (YankedError, KeyNotAuthorisedError) as refusal:
        if _tell(context, context.at_registry(source), context.at_registry(target)):
            refusal.hint = f"{refusal.hint}; the copy at {target.location} was told"
        raise
    source, tags = verified.reference, tags_at(target, verified.cube.config.version)
    target = context.at_registry(replace(target, tag=tags[-1], digest=None))
    require_same_origin(context, target, verified)
    passage = _passage(context, source, target, builds=builds)
    copied = carry_verified(context, passage, verified, tags, target, exposure)
    if verified.verdict.release and target.location != source.location:
        context.pins.record_copy(location_of(target), verified.verdict.release.origin)
    return copied


def require_same_origin(context: Context, target: Reference, verified: Verified) -> None:
    """That `target` is not known to hold another cube than `verified`.

    A repository holds the releases of one origin: with a second one, whoever knew the first would be
    told that somebody swapped the cube.

    Raises:
        OriginMismatchError: it holds another.
    """
    release, known = verified.verdict.release, context.pins.load().at(location_of(target))
    if release and known and known.origin != release.origin:
        raise OriginMismatchError(
            f"{target.location} holds releases of {known.origin}, and this is one of {release.origin}",
            hint="copy it to a name of its own",
        )


def carry_verified(
    context: Context,
    passage: Passage,
    verified: Verified,
    tags: Sequence[str],
    target: Reference | LayoutPlace,
    exposure: Exposure,
) -> Copied:
    """Take a cube that was verified to `target`, where `passage` leads: the keys of its origin too, `tags` last.

    Raises:
        RuleRefusedError: the cube's own rules forbid it.
        ConflictError, UnauthenticatedError, ForbiddenError, NetworkError: as `copy`.
    """
    if isinstance(target, Reference):
        rules.require_copy(context, verified, passage.source, target)
        config = verified.cube.config
        exposure.require(context, config.governance, config.name, target)
    else:
        rules.require_export(context, verified, held=False)
    cube, place = verified.cube.manifest, passage.target
    missing = _missing(place, tags, cube)
    tally, attached = passage.carry_cube(cube)
    release = verified.verdict.release
    keys = context.authorities.load(authority_of(release.origin)) if release else None
    if (moved := documents.carry(context, place, _namespace(target), cube, keys)) is not None:
        tally, attached = tally + moved, attached + 1
    if missing:
        place.registry.put_tags(place.name, cube, missing)
    return Copied(target, cube.digest, attached, tally, bool(missing or tally.manifests))


def copy_tags(
    context: Context,
    source: Reference | LayoutPlace,
    target: Reference | LayoutPlace,
    *,
    trust: Trust = NORMAL_TRUST,
    builds: bool = True,
    exposure: Exposure = AS_IT_IS,
) -> Iterator[Copied]:
    """Copy the cube of every tag at `source` to the same tag at `target`: versions first, then other tags.

    At the end who may read it is as `exposure` says.

    Raises:
        InvalidReferenceError: `source` or `target` names a tag or digest, or is a folder.
        …: as `copy`, at the first tag that cannot be copied; those before it are.
    """
    if isinstance(source, LayoutPlace) or isinstance(target, LayoutPlace):
        raise InvalidReferenceError(
            f"all tags are copied between registries, not from {source} to {target}",
            hint="copy the versions that you need, one by one, into the same folder",
        )
    for place in (source, target):
        if place.tag or place.digest:
            raise InvalidReferenceError(
                f"{place} names one version, and all are asked for",
                hint=f"write {place.location}, or leave out --all-tags",
            )
    at = context.at_registry(source)
    listed = [tag for tag in context.remote(at.host).tags(at.name) if not is_fallback_tag(tag)]
    for tag in sorted(listed, key=tag_order):
        one = replace(source, tag=tag), replace(target, tag=tag)
        yield copy(context, *one, trust=trust, builds=builds, exposure=exposure)
    exposure.apply(context, context.at_registry(target), judged=listed)


def _passage(
    context: Context, source: Reference, target: Reference, *, builds: bool = True
) -> Passage:
    return Passage(
        context,
        Repository(context.remote(source.host), source.name),
        Repository(context.remote(target.host), target.name),
        builds,
    )


def _missing(place: Repository, tags: Sequence[str], cube: oci.Manifest) -> list[str]:
    """Those of `tags` that do not lead to `cube` yet.

    Raises:
        ConflictError: an immutable one leads to another cube. Few registries refuse to move it.
    """
    missing = []
    for tag in tags:
        present = descriptor_at(place, tag)
        if present and present.digest == cube.digest:
            continue
        if present and is_immutable_tag(tag):
            raise ConflictError(
                f"{place.registry.host}/{place.name}:{tag} is {present.digest} already, not {cube.digest}",
                hint="a version never changes: find out which of the two is wrong, and copy to another name",
            )
        missing.append(tag)
    return missing


def _tell(context: Context, source: Reference, target: Reference) -> bool:
    """Send what is attested to the cube `source` since, and its origin's key documents, to its copy.

    Says whether there is one.
    """
    passage = _passage(context, source, target)
    found = resolve_unjudged(passage.source.registry, source)
    if descriptor_at(passage.target, str(found.manifest.digest)) is None:
        return False
    for one in found.attestations:
        passage.carry(one.referrer)
    releases = releases_of(found.manifest, found.attestations)
    for name in {authority_of(one.release.origin) for one in releases}:
        said = (*context.authorities.bundles(name), *about(name, found.key_documents))
        keys = resolve_keys(name, said)
        documents.carry(context, passage.target, _namespace(target), found.manifest, keys)
    return True


def tags_at(target: Reference | LayoutPlace, version: str) -> tuple[str, ...]:
    """Tags of a copy: its version's own, then the one that was asked for."""
    own = tag_of_version(version)
    if target.tag is None or target.tag == own:
        return (own,)
    if is_immutable_tag(target.tag):
        raise ConflictError(
            f"{target} names another version than the cube's own, {version}",
            hint=f"leave out the tag, or write {own}",
        )
    return own, target.tag


def _namespace(target: Reference | LayoutPlace) -> str:
    """Whose keys are found at `target` without any doing of ours."""
    return authority_of(location_of(target)) if isinstance(target, Reference) else ""
