"""`memcube demo`: the whole journey of a cube on this machine."""

from __future__ import annotations

import os
from pathlib import Path

import click

from memcube.cli.answer import Answer
from memcube.cli.command import command


@command("demo", "memcube demo", "memcube demo --pages pages.jsonl.gz --json")
@click.option(
    "--pages",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Gzipped JSON Lines of tldr pages to publish instead of the handbook.",
)
def demo(pages: Path | None) -> Answer:
    """Publish, sign, pull, verify and mount a cube on this machine, and break one on purpose.

    Starts a registry in a temporary folder and leaves nothing behind. The story is printed to
    stderr. Needs the optional parts: pip install 'memcube[registry,torch,plaintext]'.
    """
    # Threads that spin while they wait for each other make training ten times slower on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from memcube.demo.journey import run

    return Answer(run(pages), "")
