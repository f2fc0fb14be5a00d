"""`memcube builds`: what was made of a cube, for which models, and how it did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from memcube.cli.answer import Answer
from memcube.cli.command import command
from memcube.cli.options import (
    filter_options,
    filters_of,
    offline_option,
    open_client,
    trust_of,
    trust_options,
)
from memcube.figures import bytes_text, table_text

if TYPE_CHECKING:
    from memcube_protocol.build import Build
    from memcube_protocol.digest import Digest
    from memcube_protocol.selection import Selection

    from memcube.consuming.verifying import Verified
    from memcube.context import Context

_HERE, _OWN, _OFFERED = "here", "made here", "at the registry"


@command(
    "builds",
    "memcube builds alice/notes",
    "memcube builds alice/notes --for ./Qwen3-0.6B",
    "memcube builds alice/notes --forget sha256:…",
)
@click.argument("reference")
@click.option("--forget", metavar="DIGEST", help="Forget this build on this machine.")
@filter_options
@offline_option
@trust_options
def builds(
    reference: str,
    forget: str | None,
    filters: tuple[str, ...],
    model: str | None,
    offline: bool,
    trust_mode: str,
    accept_publisher: str | None,
    accept_origin: str | None,
    accept_rollback: bool,
) -> Answer:
    """List the builds of the cube REFERENCE: those that its publisher signed, and those made here.

    How well they recall and what they damage are their makers' claims; `memcube build --recipe`
    makes one again.
    """
    from memcube_protocol.digest import Digest
    from memcube_protocol.reference import Reference
    from memcube_protocol.selection import Selection

    from memcube.building.holding import forget_build
    from memcube.consuming import opening

    trust = trust_of(trust_mode, accept_publisher, accept_origin, accept_rollback)
    selection = Selection.parse(filters_of(filters, model))
    with open_client(offline=offline) as client:
        place = Reference.parse(reference)
        verified = opening.open_layerless(client.context, place, trust=trust)
        if forget:
            forget_build(client.context, verified.cube.digest, Digest.parse(forget))
        found = _found(client.context, verified, selection)
    value = {
        "reference": str(verified.reference),
        "cube": str(verified.cube.digest),
        "builds": [_value(build, where) for build, where in found.values()],
    }
    rows = [_row(build, where) for build, where in found.values()]
    head = ("MEMORY", "KIND", "RIGHT", "PERPLEXITY", "SIZE", "WHERE", "DIGEST")
    text = table_text([head, *rows]) if rows else f"Nothing was built of {verified.reference}"
    return Answer(value, text, "\n".join(map(str, found)))


def _found(
    context: Context, verified: Verified, selection: Selection
) -> dict[Digest, tuple[Build, str]]:
    """Each build once: in the store, or at the registry where that can be asked."""
    from memcube.building.finding import offers, trusted_builds

    held = trusted_builds(context, verified, selection)
    found = {one.build.digest: (one.build, _OWN if one.is_own else _HERE) for one in held}
    if not (context.settings.offline or verified.is_local):
        for offer in offers(context, verified, selection):
            found.setdefault(offer.build.digest, (offer.build, _OFFERED))
    return found


def _value(build: Build, where: str) -> dict[str, Any]:
    return {
        "digest": str(build.digest),
        "memory": build.memory.to_json(),
        "made": build.made.to_json() if build.made else None,
        "size": sum(file.size for file in build.files),
        "where": where,
    }


def _row(build: Build, where: str) -> tuple[str, ...]:
    measured = build.made.evaluation if build.made else None
    right = f"{measured.without} → {measured.with_memory} of {measured.asked}" if measured else "-"
    damage = measured.perplexity if measured else None
    perplexity = f"{damage[0]:g} → {damage[1]:g}" if damage else "-"
    size = bytes_text(sum(file.size for file in build.files))
    memory = build.memory
    return memory.id, memory.kind, right, perplexity, size, where, str(build.digest)
