"""`memcube rm`: forget a cube in the local store."""

from __future__ import annotations

import click

from memcube.cli.answer import Answer
from memcube.cli.command import command
from memcube.cli.options import open_client


@command("rm", "memcube rm alice/notes:1.0.0")
@click.argument("references", nargs=-1, required=True)
def rm(references: tuple[str, ...]) -> Answer:
    """Forget cubes in the local store; `memcube prune` then frees their space.

    Nothing is removed from a registry.
    """
    with open_client() as client:
        forgotten = [str(client.rm(reference)) for reference in references]
    lines = [f"Forgot {reference}" for reference in forgotten]
    return Answer({"forgotten": forgotten}, "\n".join([*lines, "Free the space: memcube prune"]))
