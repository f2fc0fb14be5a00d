"""Giving a published cube further tags."""

from __future__ import annotations

from dataclasses import replace

from memcube_protocol.errors import ConflictError, InvalidReferenceError
from memcube_protocol.reference import Reference, is_immutable_tag, is_tag

from memcube.consuming.finding import resolve_unjudged
from memcube.consuming.opening import resolve
from memcube.consuming.verifying import Verified
from memcube.context import NORMAL_TRUST, Context, Trust
from memcube.trust import releases_of


def add_tag(
    context: Context,
    reference: Reference,
    tag: str,
    *,
    trust: Trust = NORMAL_TRUST,
    backwards: bool = False,
) -> Reference:
    """Point the moving `tag` at the published cube `reference`, which is verified first.

    Returns:
        Where it points from, and to: with the tag and the digest of the cube.

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
    context.remote(place.host).put_manifest(place.name, verified.cube.manifest, tag)
    return place.with_digest(verified.cube.digest)


def _require_forwards(context: Context, place: Reference, wanted: Verified) -> None:
    """Refuse to lead readers from a later release of the same origin to an earlier one."""
    registry, release = context.remote(place.host), wanted.verdict.release
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
