"""`memcube prune`: free space in the local store."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import click

from memcube.cli.answer import Answer
from memcube.cli.command import command
from memcube.cli.options import Number, open_client
from memcube.figures import bytes_text, count_text, made_text

if TYPE_CHECKING:
    from memcube.store import Pruned

_SIZE = re.compile(r"(\d{1,12})\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


class Size(click.ParamType[int]):
    """A number of bytes, with a binary unit: `10GiB`."""

    name = "size"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """The number of bytes that `value` names."""
        match = _SIZE.fullmatch(str(value).strip())
        if match is None:
            self.fail(f"{str(value)[:40]!r} is not a size such as 10GiB", param, ctx)
        power: int = _POWERS[match[2].upper()]
        return int(match[1]) << 10 * power


@command("prune", "memcube prune", "memcube prune --older-than 30 --keep 20GiB --yes")
@click.option(
    "--older-than",
    type=Number(0, 36_500),
    metavar="DAYS",
    help="Forget cubes unused for so long.",
)
@click.option("--keep", type=Size(), metavar="SIZE", help="Forget the least used beyond SIZE.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def prune(older_than: float | None, keep: int | None, yes: bool) -> Answer:
    """Remove what no cube in the local store needs.

    Cubes packed on this machine stay until `memcube rm` forgets them.
    """
    forgets = older_than is not None or keep is not None
    if forgets and not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("there is no terminal to ask at: repeat with --yes")
        click.confirm("Forget cubes that were not used lately?", abort=True, err=True)
    with open_client() as client:
        pruned = client.prune(older_than_days=older_than, max_bytes=keep)
    value = {
        "forgotten": [str(ref.reference) for ref in pruned.refs],
        "removedBlobs": len(pruned.blobs),
        "freedBytes": pruned.freed_bytes,
        "freedMadeBytes": dict(pruned.made_bytes),
    }
    forgotten = [f"Forgot {ref.reference}" for ref in pruned.refs]
    return Answer(value, "\n".join([*forgotten, *_freed(pruned)]))


def _freed(pruned: Pruned) -> list[str]:
    lines = []
    if pruned.blobs or pruned.freed_bytes:
        what = count_text(len(pruned.blobs), "blob") if pruned.blobs else "leftovers"
        lines.append(f"Freed {bytes_text(pruned.freed_bytes)}: {what} removed")
    if pruned.made_bytes:
        lines.append(f"Freed {made_text(pruned.made_bytes)}, made of cubes that are gone")
    return lines or ["Nothing to free: every blob is needed, or came within the last hour"]
