"""From names to verified cubes: what a user, or a profile of theirs, wants mounted, and how."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

from memcube_protocol.errors import InvalidRequestError, NotFoundError
from memcube_protocol.reference import Reference
from memcube_protocol.selection import Selection

from memcube.consuming.opening import open_layerless
from memcube.consuming.verifying import Verified
from memcube.context import CONTEXT_TOKENS, NORMAL_TRUST, Context, Trust
from memcube.memories.plaintext.plugins import reached
from memcube.mounting.chosen import Chosen
from memcube.mounting.offers import Wishes

if TYPE_CHECKING:
    from memcube.profiles import Profile

Mountable: TypeAlias = "Reference | str | Verified"
"""A cube by its reference, or as it was pulled."""

Names: TypeAlias = "Mountable | Iterable[Mountable] | Mapping[Reference | str, int | None]"
"""One cube, several, or several by reference with their priorities from 1 to 100."""


class Asked(TypedDict, total=False):
    """What a user may ask of a mount besides its cubes, model and overlay.

    `profile` is the name of a role in config.toml: it stands for its cubes, with their priorities and
    filters, its budget, its ceiling of sensitivity and its uses; `filters` and `budget_tokens` go
    before what it says. `filters` are written as for `--filter`. `budget_tokens`, 1024 where nobody
    says, bounds the text for one prompt over all cubes. For the rest see `Wishes`.
    """

    profile: str | None
    filters: Iterable[str]
    budget_tokens: int | None
    trust: Trust
    allow_unverified_base: bool
    rebuild: bool
    compose: bool
    prefix_tokens: int | None
    embedder: object
    search_server: str | None
    leaves_to: Iterable[str]


def choose(
    context: Context,
    names: Names,
    *,
    profile: str | None = None,
    filters: Iterable[str] = (),
    budget_tokens: int | None = None,
    trust: Trust = NORMAL_TRUST,
    leaves_to: Iterable[str] = (),
    embedder: object = None,
    search_server: str | None = None,
    **wishes: Any,
) -> tuple[list[Chosen], Wishes]:
    """The cubes of `names`, verified, no layer fetched, and how they are wanted; see `Asked`.

    Raises:
        TypeError: something is asked that `Asked` does not name.
        InvalidRequestError: cubes are named besides a profile.
        InvalidError: a priority, a budget or a beginning that is none.
        NotFoundError: there is no such cube, profile or embedder, or no memory of a kind that is asked for.
        TrustError, IntegrityError, NetworkError: as `opening.open_layerless`.
    """
    if unknown := sorted(wishes.keys() - Asked.__annotations__.keys()):
        raise TypeError(f"a mount cannot be asked for {', '.join(unknown)}; see mounting.Asked")
    role = _role(context, names, profile)
    wanted = tuple(filters)
    chosen = [
        _opened(context, name, priority, Selection.parse(own), trust)
        for name, priority, own in _wanted(names, role, wanted)
    ]
    settings, own = context.settings, role.budget_tokens if role else None
    return chosen, Wishes(
        next(one for one in (budget_tokens, own, CONTEXT_TOKENS) if one is not None),
        profile=role,
        leaves_to=tuple(leaves_to),
        embedder=reached(embedder or settings.embedder, settings),
        search_server=search_server or settings.qdrant,
        **wishes,
    )


def _role(context: Context, names: Names, profile: str | None) -> Profile | None:
    """The profile to mount; None: `names` say what."""
    if profile is None:
        return None
    if isinstance(names, Reference | str | Verified) or names:
        raise InvalidRequestError(
            f"both cubes and the profile {profile[:80]!r} are named",
            hint="mount one or the other: a role's memories stay by themselves",
        )
    return context.settings.profile(profile)


def _wanted(
    names: Names, role: Profile | None, filters: tuple[str, ...]
) -> Iterator[tuple[Mountable, int | None, tuple[str, ...]]]:
    """Each cube with its priority, if it has one, and its filters."""
    if role is not None:
        yield from ((one.reference, one.priority, filters or one.filters) for one in role.cubes)
    elif isinstance(names, Mapping):
        yield from ((name, priority, filters) for name, priority in names.items())
    elif isinstance(names, Reference | str | Verified):
        yield names, None, filters
    else:
        yield from ((name, None, filters) for name in names)


def _opened(
    context: Context, name: Mountable, priority: int | None, selection: Selection, trust: Trust
) -> Chosen:
    if isinstance(name, Verified):
        name = name.reference.with_digest(name.cube.digest)
    reference = Reference.parse(name) if isinstance(name, str) else name
    verified = open_layerless(context, reference, trust=trust)
    present = {memory.kind for memory in verified.cube.config.memories}
    built = bool(context.store.builds(verified.cube.digest))
    if selection.kinds and not selection.kinds & present and not built:
        raise NotFoundError(
            f"the cube has no {' or '.join(sorted(selection.kinds))} memory",
            hint=f"it has: {', '.join(sorted(present)) or 'none'}",
        )
    return Chosen(verified, priority, selection)
