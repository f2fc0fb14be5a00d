"""A published build made again from its recipe: whether it is, and does, what its maker claims."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from memcube_protocol.build import Build, Made
from memcube_protocol.digest import Digest
from memcube_protocol.errors import NotFoundError, UselessBuildError
from memcube_protocol.recipe import Evaluation
from memcube_protocol.values import frozen

from memcube.building.builder import Built, build, judge
from memcube.building.finding import fetched, find_build
from memcube.building.planning import Order
from memcube.consuming.verifying import Verified
from memcube.context import Context

Load = Callable[[], tuple[Any, Any]]
"""Gives a model and its tokenizer; loading takes seconds, so it is asked for late."""
RECALL_TOLERANCE: Final = 0.1
"""By which share of the questions the right answers may differ on another machine; one may always."""
PERPLEXITY_TOLERANCE: Final = 0.05
"""By which share a perplexity may differ on another machine."""
SAME: Final = "the same digest: the published files were made again to the bit"


@frozen
class Repeated:
    """A build made again, and in words how it and the published one are what was claimed.

    `published` is what the published files were measured to do; None where they are the same to the bit.
    """

    built: Built
    words: str = SAME
    published: Evaluation | None = None


def repeat(
    context: Context,
    verified: Verified,
    digest: Digest,
    load: Load,
    order: Order,
) -> Repeated:
    """The build `digest` of `verified`, made again from its recipe by what `load` gives.

    Where other bits come out, on another machine or with other libraries, the recipe has to do what was
    claimed, and so have the published files: they are fetched, and measured with the same questions.

    Raises:
        NotFoundError: there is no such build that counts, or it does not tell how it was made.
        UselessBuildError: one of both does something else than was claimed.
        MemcubeError: as `builder.build`.
    """
    found = find_build(context, verified, digest)
    claimed = _claimed(found.build)
    model, tokenizer = load()
    built = build(context, verified, claimed.recipe, model, tokenizer, order)
    if built.build.digest == digest:
        return Repeated(built)
    again = built.made.evaluation
    require_close(claimed.evaluation, again, "made again from its recipe it does")
    held = fetched(context, verified, found)
    published = judge(context, verified, held, model, tokenizer, order)
    require_close(claimed.evaluation, published, "the published files do")
    words = (
        f"another digest ({built.build.digest}); claimed were {_words(claimed.evaluation)}; within the "
        f"tolerance are what was made again ({_words(again)}) and the published files ({_words(published)})"
    )
    return Repeated(built, words, published)


def require_close(claimed: Evaluation | None, found: Evaluation | None, what: str) -> None:
    """Refuse what was measured where it is not nearly what was `claimed`.

    Raises:
        UselessBuildError: with the figures.
    """
    if claimed is None or found is None or not _is_close(claimed, found):
        raise UselessBuildError(
            f"{what} something else: {_words(claimed)} was claimed, {_words(found)} was found",
            hint="compare the environments of both (memcube builds --json): libraries, device, machine; "
            "if they are alike, do not use this build",
        )


def _claimed(published: Build) -> Made:
    if published.made is None:
        raise NotFoundError(
            f"the build {published.digest} does not tell how it was made",
            hint="nobody can repeat it: ask its publisher for one that tells",
        )
    return published.made


def _is_close(before: Evaluation, after: Evaluation) -> bool:
    if not before.asked and not before.perplexity:
        return False  # nothing was claimed
    if before.asked != after.asked or bool(before.perplexity) != bool(after.perplexity):
        return False
    spare = max(1.0, RECALL_TOLERANCE * before.asked)
    counts = ((before.without, after.without), (before.with_memory, after.with_memory))
    measured = zip(before.perplexity or (), after.perplexity or (), strict=True)
    return all(abs(one - other) <= spare for one, other in counts) and all(
        abs(one - other) <= PERPLEXITY_TOLERANCE * one for one, other in measured
    )


def _words(found: Evaluation | None) -> str:
    if found is None:
        return "nothing"
    answers = f"{found.with_memory} of {found.asked} right"
    return f"{answers}, perplexity {found.perplexity[1]:g}" if found.perplexity else answers
