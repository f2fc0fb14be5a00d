"""`memcube rm`: forget a cube in the local store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from memcube.cli.answer import Answer
from memcube.cli.command import command
from memcube.cli.options import open_client

if TYPE_CHECKING:
    from memcube.consuming.holdings import Forgotten


@command("rm", "memcube rm alice/notes:1.0.0")
@click.argument("references", nargs=-1, required=True)
def rm(references: tuple[str, ...]) -> Answer:
    """Forget cubes in the local store; `memcube prune` then frees their space.

    A full version such as 1.0.0 stands for the cube: its moving tags, and the pack that it was
    published from, are forgotten with it. Nothing is removed from a registry.
    """
    with open_client() as client:
        told = [client.forget(reference) for reference in references]
    lines = [line for one in told for line in _lines(one)]
    value = {
        "forgotten": [str(name) for one in told for name in (one.reference, *one.also)],
        "left": [str(name) for one in told for name in one.left],
    }
    return Answer(value, "\n".join([*lines, "Free the space: memcube prune"]))


def _lines(told: Forgotten) -> list[str]:
    lines = [f"Forgot {told.reference}"]
    lines += [
        f"Forgot {name} too, the same cube{'' if name.host else ' (packed here)'}"
        for name in told.also
    ]
    if told.left:
        lines.append(f"Still kept by: {', '.join(str(name.tag or name) for name in told.left)}")
    return lines
