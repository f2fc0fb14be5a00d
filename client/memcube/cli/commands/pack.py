"""`memcube pack`: a folder becomes a cube in the local store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from memcube.cli.answer import Answer
from memcube.cli.command import command
from memcube.cli.options import open_client
from memcube.cli.words import bytes_text, count_text

if TYPE_CHECKING:
    from memcube.packing.pack import Packed


@command("pack", "memcube pack my-cube", "memcube pack notes --name alice/notes --version 1.0.0")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--name", help="Name of the cube, instead of the one in memcube.toml.")
@click.option("--version", help="Version of the cube, instead of the one in memcube.toml.")
def pack(folder: Path, name: str | None, version: str | None) -> Answer:
    """Pack a folder into a cube in the local store, without publishing it.

    Takes a cube folder (memcube.toml), a folder that PEFT saved, a MemOS cube, or a folder of JSON
    Lines and Markdown. The same folder always gives the same digest.
    """
    with open_client() as client:
        packed = client.pack(folder, name=name, version=version)
    value = {
        "reference": str(packed.reference),
        "digest": str(packed.cube.digest),
        "size": packed.cube.size,
        "files": len(packed.cube.files),
        "unchanged": packed.unchanged,
        "notes": list(packed.notes),
    }
    return Answer(value, "\n".join(lines_of(packed)), str(packed.cube.digest))


def lines_of(packed: Packed) -> list[str]:
    """What people read of a pack."""
    cube = packed.cube
    done = "Unchanged" if packed.unchanged else "Packed"
    files = count_text(len(cube.files), "file")
    lines = [f"{done} {packed.reference}: {files}, {bytes_text(cube.size)}"]
    for memory in cube.config.memories:
        what = memory.kind if memory.records is None else count_text(memory.records, "record")
        lines.append(f"  {memory.id}: {what}")
    lines += [f"  {note}" for note in packed.notes]
    return [*lines, f"Digest: {cube.digest}"]
