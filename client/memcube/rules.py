"""Where a cube's own rules are asked: once at each act, with what this user's machine knows of it.

| act | asked in |
|---|---|
| mount, embed | `mounting.mount`, of each cube, before a layer of it is fetched, and at each use |
| embed | `MemDumper.add_vectors`, of a folder |
| export | `Client.unpack`, `Client.path`; `registries.carry_verified` for a folder |
| copy | `registries.carry_verified`: `cp`, `mirror` and the Hub go through it |
| re-push, publish | `pushing`, before anything is sent |

The rules themselves are pure: `memcube_protocol.rules`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Final

from memcube_protocol import media_types, oci
from memcube_protocol.cube import Cube
from memcube_protocol.digest import Digest
from memcube_protocol.errors import MemcubeError
from memcube_protocol.governance import Governance
from memcube_protocol.reference import Reference
from memcube_protocol.rules import Act, Asked, Ruling, require, rulings
from memcube_protocol.values import frozen
from memcube_signing.authority.document import authority_of

from memcube.consuming.finding import Found, find_ref, found_in_store
from memcube.consuming.verifying import Verified
from memcube.context import Context
from memcube.profiles import Profile
from memcube.settings import is_loopback
from memcube.store import Ref
from memcube.trust import location_of, releases_of

if TYPE_CHECKING:
    from memcube.transfer import Repository

_UNCOMPRESSED: Final = media_types.UNCOMPRESSED_DIGEST
_CONTENT: Final = frozenset(
    {
        *(media_types.RECORDS, media_types.VECTORS, media_types.KV),
        *(media_types.LORA, media_types.ATTACHMENT),
    }
)


def require_mount(
    context: Context,
    verified: Verified,
    *,
    profile: Profile | None = None,
    leaves_to: tuple[str, ...] = (),
    embedded_at: tuple[str, ...] = (),
) -> Callable[[], None]:
    """That the rules of `verified` let it be mounted here, for what this user or `profile` says.

    `leaves_to` names the hosts that get content of it, such as that of a model behind an API;
    `embedded_at` those that make vectors of its texts and of questions. This machine is none.

    Returns:
        What asks the same again: a mount may last longer than its cube is valid.

    Raises:
        RuleRefusedError: a rule forbids it.
    """
    acts = _mounting(context, verified, profile, leaves_to, embedded_at)
    name, governance = _name(verified), verified.cube.config.governance

    def ask() -> None:
        for asked in acts:
            require(name, governance, replace(asked, now=context.now()))

    ask()
    return ask


def mount_rulings(
    context: Context,
    verified: Verified,
    *,
    profile: Profile | None = None,
    leaves_to: tuple[str, ...] = (),
    embedded_at: tuple[str, ...] = (),
) -> tuple[Ruling, ...]:
    """What each rule of `verified` says to a mount: for a plan that is only shown."""
    acts = _mounting(context, verified, profile, leaves_to, embedded_at)
    governance = verified.cube.config.governance
    return tuple(ruling for asked in acts for ruling in rulings(governance, asked))


def require_embedding(
    name: str, governance: Governance, hosts: tuple[str, ...], now: datetime
) -> None:
    """That `governance`, of a folder of this user's, lets texts go to `hosts` to be embedded.

    Raises:
        RuleRefusedError: they are to stay on this machine.
    """
    require(name, governance, Asked(Act.EMBED, now, owner=True, leaves_to=_elsewhere(hosts)))


def require_export(context: Context, verified: Verified, *, held: bool = True) -> Verified:
    """`verified`, if its rules let its files be written for other programs.

    `held` says that they come from the store, not from a registry just now.

    Raises:
        RuleRefusedError: a rule forbids it.
    """
    asked = _asked(context, verified, Act.EXPORT, held=held)
    require(_name(verified), verified.cube.config.governance, asked)
    return verified


def require_copy(
    context: Context, verified: Verified, source: Repository, target: Reference
) -> None:
    """That the rules of `verified`, which lies at `source`, let it be copied to `target`.

    To put it where it lies already, or where it was released, is no copy.

    Raises:
        RuleRefusedError: a rule forbids it.
    """
    there, release = location_of(context.at_registry(target)), verified.verdict.release
    lies = f"{source.registry.host}/{source.name}".lower()
    if there in (lies, release.origin if release else None):
        return
    leaves_to = _elsewhere((there.partition("/")[0],))
    asked = replace(_asked(context, verified, Act.COPY, held=False), leaves_to=leaves_to)
    require(_name(verified), verified.cube.config.governance, asked)


def require_publishable(context: Context, governance: Governance, name: str) -> None:
    """That the owner's own governance lets a cube be read by everybody.

    Raises:
        RuleRefusedError: it calls the cube confidential or personal.
    """
    require(name, governance, Asked(Act.PUBLISH, context.now(), owner=True))


def require_push(context: Context, cube: Cube, place: Reference) -> None:
    """That no cube which `cube` was made from forbids that it is pushed to `place`.

    It was made from those that its lineage names, and from those that share content with it, as far
    as this user's store holds them. What this user released at `place` before is no news.

    Raises:
        RuleRefusedError: one of them forbids it.
    """
    there = context.at_registry(place)
    parents = {parent.digest for parent in cube.config.lineage.parents}
    news = _content(cube.manifest) - _released_at(context, there)
    for held in held_of_others(context, there):
        if held.cube.digest in parents or news & _content(held.cube.manifest):
            governance, asked = held.cube.config.governance, _republishing(context, held, there)
            require(held.origin, governance, replace(asked, made=cube.config.governance))


@frozen
class HeldOfOthers:
    """A cube in the store that somebody else released at `origin`, and since when it is there."""

    origin: str
    cube: Cube
    since: datetime


def held_of_others(context: Context, place: Reference) -> Iterator[HeldOfOthers]:
    """Cubes in the store whose rules have a say about pushing to `place` what was made from them.

    Not among them: versions of `place` itself, and what this user made or is in charge of.
    """
    there, seen = context.at_registry(place), set[Digest]()
    for ref in context.store.refs():
        if not ref.reference.host or ref.digest in seen:
            continue
        seen.add(ref.digest)
        if (read := _read(context, ref)) is None:
            continue
        found, cube = read
        held = HeldOfOthers("", cube, ref.checked_at or ref.used_at)
        if rulings(cube.config.governance, _republishing(context, held, there)):
            origins = _foreign_origins(context, found)
            if origins := [origin for origin in origins if origin != location_of(there)]:
                yield replace(held, origin=origins[0])


def _read(context: Context, ref: Ref) -> tuple[Found, Cube] | None:
    """What the store holds of `ref`; nothing where it is damaged, for that cannot be unpacked either."""
    try:
        found = found_in_store(context.store, ref)
        return (found, Cube.read(found.manifest, found.config)) if found else None
    except MemcubeError:
        return None


def _republishing(context: Context, held: HeldOfOthers, there: Reference) -> Asked:
    leaves_to = _elsewhere((there.host,))
    return Asked(Act.REPUBLISH, context.now(), held_since=held.since, leaves_to=leaves_to)


def _foreign_origins(context: Context, found: Found) -> list[str]:
    """The names under which a held cube was released and of which no key of this user is in charge."""
    own = context.keys.ids()
    keys: dict[str, set[str]] = {}
    for signed in releases_of(found.manifest, found.attestations):
        keys.setdefault(signed.release.origin, set()).add(signed.key.id)
    if not keys:
        return [location_of(found.reference)]
    for origin, signers in keys.items():
        if authority := context.authorities.load(authority_of(origin)):
            signers |= {key.id for key in authority.keys_for(origin)}
    return sorted(origin for origin, signers in keys.items() if not signers & own)


def _mounting(
    context: Context,
    verified: Verified,
    profile: Profile | None,
    leaves_to: tuple[str, ...],
    embedded_at: tuple[str, ...],
) -> tuple[Asked, ...]:
    """The acts of a mount: it, and embedding for it."""
    asked = _asked(context, verified, Act.MOUNT, held=True)
    if profile is not None:
        uses = asked.uses if profile.uses is None else profile.uses
        asked = replace(asked, uses=uses, ceiling=ceiling(context, profile))
    return (
        replace(asked, leaves_to=_elsewhere(leaves_to)),
        replace(asked, act=Act.EMBED, leaves_to=_elsewhere(embedded_at)),
    )


def ceiling(context: Context, profile: Profile | None) -> str:
    """The highest sensitivity that this user, or their `profile`, takes."""
    own = profile.sensitivity if profile else None
    return own or context.settings.sensitivity


def _asked(context: Context, verified: Verified, act: Act, *, held: bool) -> Asked:
    settings, ref = context.settings, find_ref(context, verified.reference) if held else None
    return Asked(
        act,
        context.now(),
        owner=owns(context, verified),
        uses=settings.uses,
        ceiling=settings.sensitivity,
        held_since=ref.checked_at if ref else None,
    )


def owns(context: Context, verified: Verified) -> bool:
    """Whether this user made the cube, or holds a key in charge of its name.

    That the store holds the same as packed here proves nothing: anybody can pack it again.
    """
    verdict = verified.verdict
    keys = {key.id for key in verdict.partners}
    keys |= {verdict.publisher.id} if verdict.publisher else set()
    return verified.is_local or bool(keys & context.keys.ids())


def _released_at(context: Context, place: Reference) -> set[Digest]:
    """The content of what the store holds of `place`: released by this user, or pulled from there."""
    released: set[Digest] = set()
    for ref in context.store.refs():
        if location_of(ref.reference) == location_of(place) and (read := _read(context, ref)):
            released |= _content(read[0].manifest)
    return released


def _content(manifest: oci.Manifest) -> set[Digest]:
    """What one remembers of a cube: not its card, and records uncompressed, whoever compressed them."""
    return {
        Digest.parse(text) if (text := layer.annotations.get(_UNCOMPRESSED)) else layer.digest
        for layer in manifest.layers
        if layer.media_type in _CONTENT
    }


def _elsewhere(hosts: tuple[str, ...]) -> tuple[str, ...]:
    """Those of `hosts` that are not this machine."""
    return tuple(host for host in hosts if not is_loopback(host))


def _name(verified: Verified) -> str:
    release = verified.verdict.release
    return release.origin if release else verified.reference.location
