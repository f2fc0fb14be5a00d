"""Cubes into folders and out of them (`oci:FOLDER[:TAG]`), for machines that no network joins.

A folder has no name that a policy or a pin could know. A cube that comes out of one is judged under the name
that its release gives it, by what this user knows of that name: it is the same cube, wherever it lay. But
nothing is learnt of that name from a folder: no key is pinned, and no key document is kept.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from memcube_protocol.errors import InvalidReferenceError, NotFoundError, OriginMismatchError
from memcube_protocol.reference import Reference, tag_of_version

from memcube.consuming.finding import Found, resolve_unjudged
from memcube.consuming.opening import resolve
from memcube.consuming.verifying import Verified, accepted, question
from memcube.context import NORMAL_TRUST, Context, Trust
from memcube.copying.oci_layout import NAME, SCHEME, LayoutPlace, OciLayout
from memcube.copying.passage import Passage
from memcube.copying.registries import Copied, carry_verified, require_same_origin, tags_at
from memcube.publishing.exposure import AS_IT_IS, Exposure
from memcube.store.files import storage_errors
from memcube.transfer import Repository
from memcube.trust import judge_cube, location_of, releases_of
from memcube.trust.verdict import Standing


def place(text: Reference | LayoutPlace | str) -> Reference | LayoutPlace:
    """The place that `text` names.

    Raises:
        InvalidReferenceError, InvalidDigestError: none.
    """
    if not isinstance(text, str):
        return text
    return LayoutPlace.parse(text) if text.startswith(SCHEME) else Reference.parse(text)


def copy(
    context: Context,
    source: Reference | LayoutPlace,
    target: Reference | LayoutPlace,
    *,
    trust: Trust = NORMAL_TRUST,
    builds: bool = True,
    exposure: Exposure = AS_IT_IS,
) -> Copied:
    """Copy a cube into a folder, or out of one; otherwise as `registries.copy`.

    Raises:
        InvalidReferenceError: both are folders, the one to copy from holds several cubes, or somebody
            is to read the one to copy to.
        OriginMismatchError: the cube in the folder is released under several names.
        TrustError: its provenance cannot be established.
        …: as `registries.copy`.
    """
    if isinstance(target, LayoutPlace):
        _require_copyable(source, target, exposure)
    if isinstance(source, LayoutPlace):
        assert isinstance(target, Reference), "checked above"
        verified = _verified(context, source, context.at_registry(target), trust)
    else:
        verified = resolve(context, source, trust=trust)
        source = verified.reference
    tags = tags_at(target, verified.cube.config.version)
    if isinstance(target, LayoutPlace):
        target = replace(target, tag=tags[-1])
    else:
        target = context.at_registry(replace(target, tag=tags[-1], digest=None))
        require_same_origin(context, target, verified)
    passage = Passage(context, _repository(context, source), _repository(context, target), builds)
    copied = carry_verified(context, passage, verified, tags, target, exposure)
    release = verified.verdict.release
    known = verified.verdict.standing is Standing.TRUSTED
    if release and known and isinstance(target, Reference):
        context.pins.record_copy(location_of(target), release.origin)
    return copied


def _require_copyable(
    source: Reference | LayoutPlace, target: LayoutPlace, exposure: Exposure
) -> None:
    if isinstance(source, LayoutPlace):
        raise InvalidReferenceError(
            f"{source} and {target} are both folders", hint="copy the files with cp -r"
        )
    if exposure.visibility is not None:
        raise InvalidReferenceError(
            f"{target} is a folder: who may read it is a matter of its files",
            hint=f"leave --{exposure.visibility} out",
        )


def _repository(context: Context, at: Reference | LayoutPlace) -> Repository:
    if isinstance(at, LayoutPlace):
        return Repository(_layout(context, at), NAME)
    return Repository(context.remote(at.host), at.name)


def _layout(context: Context, at: LayoutPlace) -> OciLayout:
    return OciLayout(at.folder, context.registry("").http)


def _verified(context: Context, at: LayoutPlace, target: Reference, trust: Trust) -> Verified:
    """The cube in a folder, judged under the name of its release; without one, under that of `target`."""
    layout = _layout(context, at)
    found = resolve_unjudged(layout, Reference("", NAME, at.tag or _only_tag(layout)))
    with storage_errors(f"{layout.host} cannot be read"):
        written_s = (layout.folder / "index.json").stat().st_mtime
    reference = _name_of(found, trust) or target
    found = replace(found, reference=reference, known_at=datetime.fromtimestamp(written_s, UTC))
    return accepted(found, judge_cube(question(context, found, trust)))


def _name_of(found: Found, trust: Trust) -> Reference | None:
    """Where the cube was released; nothing where it was not.

    Raises:
        OriginMismatchError: in several places, none of which is accepted by name.
    """
    releases = releases_of(found.manifest, found.attestations)
    versions = {signed.release.origin: signed.release.version for signed in releases}
    if trust.accept.origin in versions:
        versions = {trust.accept.origin: versions[trust.accept.origin]}
    if len(versions) > 1:
        raise OriginMismatchError(
            f"the cube in the folder is released as {' and as '.join(sorted(versions))}",
            hint="say which one is meant: --accept-origin NAME",
        )
    for origin, version in versions.items():
        return Reference.parse(f"{origin}:{tag_of_version(version)}")
    return None


def _only_tag(layout: OciLayout) -> str:
    """The tag of the one cube in a layout.

    Raises:
        NotFoundError: there is no such folder.
        InvalidReferenceError: there are several cubes, or none.
    """
    if not layout.folder.is_dir():
        raise NotFoundError(
            f"there is no folder {layout.folder}", hint="write oci:FOLDER or oci:FOLDER:TAG"
        )
    tags = list(layout.tags(NAME))
    cubes = {found.digest for tag in tags if (found := layout.manifest_descriptor(NAME, tag))}
    if len(cubes) != 1:
        raise InvalidReferenceError(
            f"{layout.host} holds {len(cubes) or 'no'} cubes",
            hint=f"name one of {', '.join(tags)}"
            if tags
            else "`memcube cp NAME oci:FOLDER` writes one into a folder",
        )
    return tags[0]
