"""Making a build again from its recipe, and saying whether it is what its maker claims."""

from __future__ import annotations

from typing import Final

from memcube_protocol.build import Build, Made
from memcube_protocol.digest import Digest
from memcube_protocol.errors import NotFoundError, UselessBuildError
from memcube_protocol.recipe import Evaluation

from memcube.building.finding import offers, trusted_builds
from memcube.consume import Verified
from memcube.context import EVERYTHING, Context

RECALL_TOLERANCE: Final = 0.1
"""By which share of the questions the right answers may differ on another machine; one may always."""
PERPLEXITY_TOLERANCE: Final = 0.05
"""By which share a perplexity may differ on another machine."""


def find_made(context: Context, verified: Verified, digest: Digest) -> Made:
    """How the build `digest` of `verified` was made: one of the store, or that its registry offers.

    Raises:
        NotFoundError: there is no such build that counts, or it does not tell.
    """
    builds = [one.build for one in trusted_builds(context, verified)]
    if not (context.settings.offline or verified.is_local):
        builds += [one.build for one in offers(context, verified, EVERYTHING)]
    for build in builds:
        if build.digest == digest and build.made:
            return build.made
    raise NotFoundError(
        f"{verified.reference} has no build {digest} that tells how it was made",
        hint="memcube builds REF lists those that count",
    )


def require_repeated(digest: Digest, claimed: Made, again: Build) -> str:
    """In words, how far `again` is the build `digest` that was `claimed`.

    Only the same digest says something about the published files themselves: with another one, it is the
    recipe that does what was claimed, and a publisher may have signed other files beside it.

    Raises:
        UselessBuildError: it does what was claimed neither to the bit nor nearly.
    """
    if again.digest == digest:
        return "the same digest: made again to the bit"
    assert again.made
    before, after = claimed.evaluation, again.made.evaluation
    if before and after and _is_close(before, after):
        return (
            f"another digest ({again.digest}); what is made again does what was claimed, within the "
            "tolerance. Whether the published files do so as well was not looked at"
        )
    raise UselessBuildError(
        f"made again it does something else: {_words(before)} was claimed, {_words(after)} was found",
        hint="compare the environments of both (memcube builds --json): libraries, device, machine",
    )


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
