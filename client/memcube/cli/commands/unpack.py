"""`memcube unpack`: a verified cube as a plain folder."""

from __future__ import annotations

from pathlib import Path

import click

from memcube.cli.answer import Answer
from memcube.cli.command import command
from memcube.cli.commands.pull import lines_of, value_of
from memcube.cli.options import (
    filter_options,
    filters_of,
    offline_option,
    open_client,
    trust_of,
    trust_options,
)


@command(
    "unpack",
    "memcube unpack alice/notes:1.0.0 notes",
    "memcube unpack alice/coder adapter --filter kind=parametric",
)
@click.argument("reference")
@click.argument("folder", type=click.Path(path_type=Path))
@filter_options
@offline_option
@trust_options
def unpack(
    reference: str,
    folder: Path,
    filters: tuple[str, ...],
    model: str | None,
    offline: bool,
    trust_mode: str,
    accept_publisher: str | None,
    accept_origin: str | None,
    accept_rollback: bool,
) -> Answer:
    """Write the verified cube REFERENCE as the new folder FOLDER, as `oras pull` would.

    The cube is pulled first if the local store lacks it. FOLDER appears once every byte is
    verified, or not at all.
    """
    trust = trust_of(trust_mode, accept_publisher, accept_origin, accept_rollback)
    with open_client(offline=offline) as client:
        verified = client.unpack(reference, folder, filters=filters_of(filters, model), trust=trust)
    value = {**value_of(verified), "folder": str(folder)}
    text = "\n".join([f"Wrote {folder}", *lines_of(verified)])
    return Answer(value, text, str(verified.cube.digest))
