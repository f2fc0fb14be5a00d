"""From a recipe to a build in the local store: made, judged, and only then kept.

Everything is written into a folder of its own first. Whatever breaks off, an error or Ctrl-C, leaves
the model as it was and nothing in the store: the ref that names the build is the last thing written.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Final

from memcube_protocol.build import Build, Made
from memcube_protocol.config import PARAMETRIC
from memcube_protocol.cube import CubeFile
from memcube_protocol.errors import ConflictError, IncompatibleError
from memcube_protocol.identity import BaseIdentity
from memcube_protocol.recipe import DISTIL, ENCODE, Evaluation, Recipe
from memcube_protocol.reference import Reference
from memcube_protocol.selection import bases_of
from memcube_protocol.values import frozen

from memcube import rules
from memcube.building.asking import steady
from memcube.building.evaluation import require_useful
from memcube.building.holding import HeldBuild, keep
from memcube.building.planning import Order, Wanted, plan_of
from memcube.building.workbench import Workbench
from memcube.consuming import opening
from memcube.consuming.verifying import Verified
from memcube.context import Context
from memcube.memories.making import builder as builder_versions
from memcube.memories.model_identity import dtype_name, live_identity
from memcube.packing.contents import Contents
from memcube.packing.layout import Layout
from memcube.packing.scan import scan
from memcube.profiles import Profile
from memcube.store.workshops import workshop

_TRAINING: Final = "training"


@frozen
class Built:
    """A build that the local store holds now, and what was left out of it, in words."""

    build: Build
    notes: tuple[str, ...] = ()

    @property
    def made(self) -> Made:
        """How it was made and judged."""
        assert self.build.made
        return self.build.made


def build(
    context: Context,
    verified: Verified,
    plan: Recipe | Wanted,
    model: Any,
    tokenizer: Any,
    order: Order,
) -> Built:
    """Make what a recipe says of the cube `verified`, or what is wanted; judge it, keep it in the store.

    Raises:
        ConflictError: the recipe is for another cube, or was judged by another text.
        RuleRefusedError: the cube's own rules forbid it; an adapter is made by training.
        IncompatibleError: it is for another model.
        UselessBuildError: the result recalls nothing or does damage, and `order` does not accept that.
        NotFoundError: the cube's memory was not pulled, or has nothing to make it from.
        MissingDependencyError: an optional package is not installed.
        StorageError, IntegrityError: the store cannot be written, or a file in it is damaged.
    """
    recipe = plan
    if isinstance(recipe, Wanted):
        recipe = plan_of(verified, recipe, model, tokenizer, now=context.now())
    with _bench(context, verified, recipe, model, tokenizer, order) as bench:
        with bench.undo:
            bench.make()
        if not order.accept and bench.evaluation:
            require_useful(bench.evaluation)
        return Built(_kept(bench), tuple(bench.notes))


def judge(
    context: Context,
    verified: Verified,
    held: HeldBuild,
    model: Any,
    tokenizer: Any,
    order: Order,
) -> Evaluation | None:
    """What the files of a build do that tells its recipe, measured as that says; None without a model.

    Raises:
        MemcubeError: as `build`, and as a mount of its memory.
    """
    assert held.build.made
    recipe = held.build.made.recipe
    with _bench(context, verified, recipe, model, tokenizer, order) as bench:
        if model is not None:
            with bench.undo:
                bench.judge(held)
        return bench.evaluation


@contextmanager
def _bench(
    context: Context,
    verified: Verified,
    recipe: Recipe,
    model: Any,
    tokenizer: Any,
    order: Order,
) -> Iterator[Workbench]:
    """A bench for `recipe` where everything that it needs is there, and chance and threads are its own."""
    _require_own(verified, recipe)
    base = _require_base(model, recipe)
    _require_allowed(context, verified, recipe)
    verified = opening.fetch(context, verified, tuple(_needed(verified, recipe)))
    repeatable = nullcontext() if model is None else steady(recipe.seed, recipe.threads)
    with workshop(context.settings.home) as folder, repeatable:
        yield Workbench(context, verified, recipe, model, tokenizer, order, folder, base)


def _require_own(verified: Verified, recipe: Recipe) -> None:
    if recipe.parent != verified.cube.digest:
        raise ConflictError(
            f"the recipe is for the cube {recipe.parent}, and this is {verified.cube.digest}",
            hint="name that cube by its digest, or plan anew without --recipe",
        )


def _require_base(model: Any, recipe: Recipe) -> BaseIdentity | None:
    base = None if model is None else live_identity(model)
    if recipe.base is not None and base != recipe.base:
        raise IncompatibleError(
            f"the recipe is for the model {recipe.base}, and this is {base or 'no model'}",
            hint="give that model's checkpoint: --for FOLDER",
        )
    return base


def _require_allowed(context: Context, verified: Verified, recipe: Recipe) -> None:
    """A model reads what the cube says, or is trained on it: both are uses that its rules may forbid."""
    uses = context.settings.uses | ({_TRAINING} if recipe.method == DISTIL else set())
    rules.require_mount(context, verified, profile=Profile("build", (), uses=uses))


def _needed(verified: Verified, recipe: Recipe) -> Iterator[CubeFile]:
    """The files that are read: those of the source, and of adapters of the cube for this model."""
    for memory in verified.cube.config.memories:
        under = recipe.method == ENCODE and memory.kind == PARAMETRIC
        if memory.id == recipe.source or (under and str(recipe.base) in bases_of(memory)):
            yield from verified.cube.files_of(memory.id)


def _kept(bench: Workbench) -> Build:
    """The build of what lies in the bench's folder, kept in the store.

    Raises:
        InvalidError, LimitExceededError: it is more than a build may hold.
        DiskFullError, ReadOnlyError, StorageError: it was not kept.
    """
    cube, store = bench.verified.cube, bench.context.store
    with store.session():
        contents = Contents(store.blobs, {})
        contents.add_folder(Layout.of(scan(bench.folder)), lambda _: None)
        made = Made(bench.recipe, bench.evaluation, _environment(bench.model))
        memory, files = contents.memories[0], contents.files
        build = Build.write(cube.manifest.descriptor(), memory, files, made)
        keep(bench.context, Reference("", cube.config.name), build, is_own=True)
    return build


def _environment(model: Any) -> dict[str, str]:
    """What it was made with, as far as that could change the result."""
    if model is None:
        return builder_versions()
    return {
        **builder_versions("peft", "torch", "transformers"),
        "device": model.device.type,
        "dtype": dtype_name(model.dtype),
        "machine": platform.machine(),
    }
