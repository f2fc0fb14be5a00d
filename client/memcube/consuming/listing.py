"""What a place elsewhere holds: the cubes of a namespace, or the tags of one cube (`memcube ls PLACE`).

Nothing that cannot be a name or a tag gets through, and no list goes on without end: `remote.listing`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from memcube_protocol import limits
from memcube_protocol.digest import Digest
from memcube_protocol.errors import InvalidReferenceError, NotFoundError, UnsupportedError
from memcube_protocol.reference import HUB_HOST, HUB_SCHEME, Reference, tag_order
from memcube_protocol.values import frozen

from memcube.context import Context
from memcube.remote.listing import Listing


@frozen
class Listed:
    """Cubes below `place`; or, where that is `cube`, its tags with what they lead to, where that is told."""

    place: str
    cubes: tuple[Reference, ...] = ()
    cube: Reference | None = None
    tags: Mapping[str, Digest | None] = field(default_factory=dict[str, Digest | None])


def list_place(context: Context, text: str) -> Listed:
    """What `text` names: `NAMESPACE`, `NAMESPACE/NAME`, or, with `/` at the end, all that lies below it.

    Each with a host before it, or `hf://`. A name without a namespace, at a registry of another kind, is
    taken for a cube where nothing lies below it.

    Raises:
        InvalidReferenceError: it names a version, or is no place at all.
        NotFoundError: there is no such cube, or this user may not see it.
        UnsupportedError: the registry does not list what it holds.
        UnauthenticatedError, ForbiddenError, NetworkError: as it answers.
    """
    host, name, is_below = _read(context, text)
    if host == HUB_HOST:
        return _list_hub(context, name, is_below)
    listing = Listing(context.registry(host))
    shown = f"{host}/{name}" if name else host
    if is_below or "/" not in name:
        room = limits.NAME_CHARS - len(
            host
        )  # what a foreign client named at greater length has no reference
        cubes = tuple(Reference(host, one) for one in listing.cubes(name) if len(one) <= room)
        if cubes or is_below or listing.is_ours:
            return Listed(shown, cubes)
    return _tags(Reference(host, name), listing.tags_as_told(name))


def _read(context: Context, text: str) -> tuple[str, str, bool]:
    """Host and name of a place, and whether what lies below it is meant."""
    if text.startswith(HUB_SCHEME) and "/" not in text.removeprefix(HUB_SCHEME):
        text += "/"  # an account is no repository
    is_below = text.endswith("/")
    # With a name behind it a host alone can be read, too.
    found = Reference.parse(f"{text}x" if is_below else text)
    if found.tag or found.digest:
        raise InvalidReferenceError(
            f"{text[:100]!r} names one version", hint=f"write {found.location} for its tags"
        )
    name = found.name[:-1].rstrip("/") if is_below else found.name
    return context.at_registry(found).host, name, is_below


def _list_hub(context: Context, name: str, is_below: bool) -> Listed:
    if not name:
        raise UnsupportedError(
            "the Hub lists what one account has, not everything", hint="write hf://ACCOUNT/"
        )
    hub = context.hub()
    if is_below or "/" not in name:
        cubes = tuple(Reference(HUB_HOST, one) for one in sorted(hub.cubes(name)))
        return Listed(f"{HUB_HOST}/{name}", cubes)
    return _tags(Reference(HUB_HOST, name), dict.fromkeys(hub.tags(name)))


def _tags(cube: Reference, told: Mapping[str, Digest | None]) -> Listed:
    if not told:
        raise NotFoundError(f"{cube.location} has no tags", hint="check the name")
    ordered = {tag: told[tag] for tag in sorted(told, key=tag_order)}
    return Listed(str(cube), cube=cube, tags=ordered)
