"""Mounting from end to end: rules asked, planned, fetched what the plan wants, and the plan followed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from memcube_protocol import media_types
from memcube_protocol.config import ACTIVATION
from memcube_protocol.cube import CubeFile
from memcube_protocol.errors import InvalidRequestError, NotFoundError

from memcube import rules
from memcube.consuming import opening
from memcube.context import Context
from memcube.memories.model_identity import uncompiled
from memcube.memories.turns import changing, turn
from memcube.mounting.baseline import Baseline, uninterrupted
from memcube.mounting.chosen import Chosen, in_order
from memcube.mounting.loading import MemLoader
from memcube.mounting.mounted import MountedMemory
from memcube.mounting.offers import NO_WISHES, Planning, Wishes
from memcube.mounting.planning import Act, Plan
from memcube.mounting.sources import Overlay
from memcube.usage import Usage


def mount(
    context: Context,
    cubes: Sequence[Chosen],
    *,
    model: Any = None,
    tokenizer: Any = None,
    overlay: Overlay | None = None,
    wishes: Wishes = NO_WISHES,
) -> MountedMemory:
    """The memories of `cubes`, mounted as planned; without a model, what can be read.

    Of memories made for one model, those of other models are passed over as long as one fits. Only
    what the plan wants is fetched. `overlay` is closed with the memory.

    Raises:
        InvalidRequestError: there is no cube and no overlay.
        RuleRefusedError: the rules of a cube forbid it.
        IncompatibleError: no LoRA, or no KV cache, of the cubes fits the model; names every reason.
        NotFoundError: there is nothing in the cubes that could be mounted.
        MissingDependencyError: an optional package is not installed.
        IntegrityError, InvalidTensorsError: a file is damaged or hostile.
    """
    if overlay is None:
        _require_some(cubes)
    model = uncompiled(model)
    with turn(model):
        return _mounted(context, MemLoader(context, cubes, model, tokenizer, wishes), overlay)


def _mounted(context: Context, loader: MemLoader, overlay: Overlay | None) -> MountedMemory:
    """What `loader` mounts, or an error and the model as it was."""
    model, wishes = loader.model, loader.wishes
    before = None if model is None else Baseline(model)
    if overlay is not None:
        loader.undo.callback(overlay.close)
    try:
        asked = [
            rules.require_mount(
                context,
                chosen.verified,
                profile=wishes.profile,
                leaves_to=wishes.hosts,
                embedded_at=wishes.embedded_at,
            )
            for chosen in loader.cubes
        ]
        loader.cubes = _with_builds(loader)
        plan = _planned(loader, Planning(context, model, loader.tokenizer, wishes))
        if overlay is None and all(choice.act is Act.LEAVE for choice in plan.choices):
            loader.follow(plan)  # it may know a better reason
            raise _nothing_of(loader.cubes)
        loader.cubes = _fetched(context, loader.cubes, plan)
        loader.follow(plan)
        return MountedMemory(
            loader.parts(overlay),
            wishes.budget_tokens,
            usage=Usage.of(context.settings),
            ceiling=rules.ceiling(context, wishes.profile),
            rules=asked,
        )
    except BaseException:
        with changing(model), uninterrupted():
            loader.undo.close()
            if before is not None:
                before.restore()
        raise


def plan_mount(
    context: Context,
    cubes: Sequence[Chosen],
    *,
    model: Any = None,
    tokenizer: Any = None,
    wishes: Wishes = NO_WISHES,
) -> Plan:
    """What `mount` would do, without fetching a layer or touching the model's modules.

    Raises:
        InvalidRequestError: there is no cube.
        IntegrityError: the local store is damaged.
    """
    _require_some(cubes)
    model = uncompiled(model)
    planning = Planning(context, model, tokenizer, wishes)
    loader = MemLoader(context, cubes, model, tokenizer, wishes)
    loader.cubes = _with_builds(loader)
    return planning.plan(loader.cubes, _identity(loader, planning))


def _planned(loader: MemLoader, planning: Planning) -> Plan:
    """The plan, made again once the manifests of KV caches are here that it may hang on."""
    identity = _identity(loader, planning)
    drafted = planning.plan(loader.cubes, identity)
    wanted = [(chosen, planning.manifests(chosen, drafted)) for chosen in loader.cubes]
    if not any(files for _, files in wanted):
        return drafted
    for chosen, files in wanted:
        if files:
            opening.fetch(loader.context, chosen.verified, files)
    return planning.plan(loader.cubes, identity)


def _with_builds(loader: MemLoader) -> tuple[Chosen, ...]:
    """The cubes with those builds of the store that help this model; see `building.finding`."""
    from memcube.building.finding import chosen_builds

    base = None if loader.model is None else lambda: loader.identity
    return tuple(
        replace(
            chosen, builds=chosen_builds(loader.context, chosen.verified, base, chosen.selection)
        )
        for chosen in loader.cubes
    )


def _identity(loader: MemLoader, planning: Planning) -> Any:
    return loader.identity if planning.needs_identity(loader.cubes) else None


def _fetched(context: Context, cubes: Sequence[Chosen], plan: Plan) -> tuple[Chosen, ...]:
    """`cubes` with the files that the plan wants, in the store."""
    return in_order(
        replace(chosen, verified=opening.fetch(context, chosen.verified, _wanted(chosen, plan)))
        for chosen in cubes
    )


def _wanted(chosen: Chosen, plan: Plan) -> tuple[CubeFile, ...]:
    """The files of the cube that the plan reads; a cube that is used has its card along.

    The beginning of a KV cache comes later, without the rest of its file.
    """
    files: list[CubeFile] = []
    for memory in chosen.memories():
        choice = plan.of(chosen.name, memory.id)
        if choice is None or choice.act is Act.LEAVE:
            continue
        part = choice.offer.tokens < choice.offer.whole_tokens
        whole = memory.kind != ACTIVATION or (choice.act is Act.LOAD and not part)
        files += [
            file
            for file in chosen.files_of(memory)
            if whole or file.media_type == media_types.KV_MANIFEST
        ]
    cards = [file for file in chosen.verified.cube.files if file.media_type == media_types.CARD]
    return tuple(cards + files) if files else ()


def _require_some(cubes: Sequence[Chosen]) -> None:
    if not cubes:
        raise InvalidRequestError("nothing is named to mount", hint="name a cube or a profile")


def _nothing_of(cubes: Sequence[Chosen]) -> NotFoundError:
    return NotFoundError(
        f"nothing of {', '.join(chosen.name for chosen in cubes)} is here that could be mounted",
        hint="mount it without a filter; memories of a model need a model to be mounted on",
    )
