"""Builds that fit a model: those of the local store, and those that a registry offers.

A list of referrers is an offer of anybody who may push there. A build counts only with a statement of
how it was made by a key that speaks for its cube; one that was made here needs none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from memcube_protocol import limits, media_types, oci
from memcube_protocol.build import Build, require_build
from memcube_protocol.config import ACTIVATION, PARAMETRIC, PLAINTEXT, Memory
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    IntegrityError,
    InvalidError,
    LimitExceededError,
    NotFoundError,
)
from memcube_protocol.identity import BaseIdentity
from memcube_protocol.reference import Reference
from memcube_protocol.selection import Selection, bases_of
from memcube_protocol.values import frozen

from memcube.building.holding import HeldBuild, held_builds, keep
from memcube.building.statements import is_stated, speakers
from memcube.consuming.finding import attestations_of
from memcube.consuming.verifying import Verified
from memcube.context import EVERYTHING, Context
from memcube.remote.interface import Remote
from memcube.transfer import pull_blobs
from memcube.trust import Attestation

BUILDS: Final = 64
"""Builds of one cube that are looked at."""


@frozen
class Offer:
    """A build at a registry, by a publisher of its cube: nothing but its description was fetched."""

    build: Build
    attestations: tuple[Attestation, ...]


def trusted_builds(
    context: Context, verified: Verified, selection: Selection = EVERYTHING
) -> tuple[HeldBuild, ...]:
    """The builds of `verified` in the store that may be used, of those that are wanted, each once.

    They were made here, or its publisher states that they were made of it. One that was made here and
    fetched as well is the own one. Those made here come first, and of these the one that was judged best.
    """
    found: dict[Digest, HeldBuild] = {}
    for one in held_builds(context, verified.cube.digest):
        is_trusted = one.is_own or _stated(verified, one.build, one.attestations)
        if selection.wants(one.build.memory) and is_trusted:
            found.setdefault(one.build.digest, one)
    return tuple(sorted(found.values(), key=_rank))


def chosen_builds(
    context: Context,
    verified: Verified,
    base: Callable[[], BaseIdentity] | None,
    selection: Selection = EVERYTHING,
) -> tuple[HeldBuild, ...]:
    """The builds that a mount uses beside the cube's own memories, at most two; `base` is asked if need be.

    Without a model (`base` is None), and where the cube has no records of its own, records that were
    taken out of a memory. For a model, one KV cache of the records, else one adapter, unless the cube
    has one of that kind for this model itself: memories that hold the same facts twice contradict
    each other.
    """
    if not context.store.builds(verified.cube.digest):
        return ()
    held, own = trusted_builds(context, verified, selection), verified.cube.config.memories
    chosen: list[HeldBuild] = []
    if all(memory.kind != PLAINTEXT for memory in own):
        chosen += [one for one in held if one.build.memory.kind == PLAINTEXT][:1]
    if base is not None and any(one.build.memory.kind != PLAINTEXT for one in held):
        chosen += _for_model(held, own, str(base()))
    names = {memory.id for memory in own}
    return tuple(one for one in chosen if one.build.memory.id not in names)


def _rank(one: HeldBuild) -> tuple[bool, float, float, str]:
    """Before others: made here, more answers right, less damage."""
    found = one.build.made.evaluation if one.build.made else None
    right = found.with_memory / found.asked if found and found.asked else 0.0
    before, after = found.perplexity if found and found.perplexity else (1.0, 1.0)
    damage = after / before if before else after
    return not one.is_own, -right, damage, str(one.build.digest)


def _for_model(held: Sequence[HeldBuild], own: Sequence[Memory], base: str) -> list[HeldBuild]:
    for kind in (ACTIVATION, PARAMETRIC):
        if any(memory.kind == kind and base in bases_of(memory) for memory in own):
            return []
        fitting = [
            one
            for one in held
            if one.build.memory.kind == kind and base in bases_of(one.build.memory)
        ]
        if fitting:
            return fitting[:1]
    return []


def offers(context: Context, verified: Verified, selection: Selection) -> tuple[Offer, ...]:
    """The builds of `verified` that its registry offers, that `selection` wants, and that count.

    One that cannot be read, or that nobody who may states, is passed over.

    Raises:
        NetworkError, UnauthenticatedError, ForbiddenError: as the registry answers.
    """
    place, subject = verified.reference, verified.cube.manifest.digest
    registry = context.remote(place.host)
    listed = registry.referrers(place.name, subject, media_types.BUILD)[:BUILDS]
    return tuple(_offers(registry, verified, listed, selection))


def pull_builds(context: Context, verified: Verified, selection: Selection) -> Verified:
    """Fetch what `offers` finds into the store; `verified` with the bytes that came counted too.

    Raises:
        IntegrityError: the registry sent other bytes than it named.
        NetworkError, UnauthenticatedError, ForbiddenError: as the registry answers.
    """
    found = offers(context, verified, selection)
    fetched_bytes = sum(_fetch(context, verified, offer)[1] for offer in found)
    return replace(verified, fetched_bytes=verified.fetched_bytes + fetched_bytes)


def find_build(context: Context, verified: Verified, digest: Digest) -> HeldBuild | Offer:
    """The build `digest` of `verified`, if it counts: one of the store, or one that its registry offers.

    Raises:
        NotFoundError: there is none.
        NetworkError, UnauthenticatedError, ForbiddenError: as the registry answers.
    """
    found: list[HeldBuild | Offer] = [*trusted_builds(context, verified)]
    if not (context.settings.offline or verified.is_local):
        found += offers(context, verified, EVERYTHING)
    for one in found:
        if one.build.digest == digest:
            return one
    raise NotFoundError(
        f"{verified.reference} has no build {digest}",
        hint="memcube builds REF lists those that count",
    )


def fetched(context: Context, verified: Verified, found: HeldBuild | Offer) -> HeldBuild:
    """`found` with its files in the store; raises as `pull_builds`."""
    if isinstance(found, HeldBuild):
        return found
    return _fetch(context, verified, found)[0]


def _fetch(context: Context, verified: Verified, offer: Offer) -> tuple[HeldBuild, int]:
    """The build `offer`, which the store holds now, and the bytes that came."""
    place = Reference(verified.reference.host, verified.reference.name)
    with context.store.session():
        report = pull_blobs(
            context.remote(place.host),
            place.name,
            [file.descriptor() for file in offer.build.files],
            context.store,
            progress=context.progress,
            parallel=context.settings.parallel,
        )
        keep(context, place, offer.build, is_own=False, attestations=offer.attestations)
    return HeldBuild(place, offer.build, offer.attestations, is_own=False), report.moved_bytes


def _offers(
    registry: Remote, verified: Verified, listed: list[oci.Descriptor], selection: Selection
) -> Iterator[Offer]:
    name = verified.reference.name
    for entry in listed:
        try:
            build = _read(registry, name, entry)
            if build.subject.digest != verified.cube.manifest.digest:
                continue
            if not selection.wants(build.memory):
                continue
            attestations = tuple(attestations_of(registry, name, build.digest))
        except (InvalidError, IntegrityError, LimitExceededError, NotFoundError):
            continue
        stated = tuple(one for one in attestations if _stated(verified, build, (one,)))
        if stated:
            yield Offer(build, stated)


def _read(registry: Remote, name: str, entry: oci.Descriptor) -> Build:
    manifest = registry.manifest(name, str(entry.digest))
    if not isinstance(manifest, oci.Manifest):
        raise NotFoundError(f"{entry.digest} is an index", hint="it is no build")
    return Build.read(
        manifest, registry.read_blob(name, require_build(manifest), limits.CONFIG_BYTES)
    )


def _stated(verified: Verified, build: Build, attestations: tuple[Attestation, ...]) -> bool:
    keys = speakers(verified)
    return any(is_stated(verified, build, one, keys) for one in attestations)
