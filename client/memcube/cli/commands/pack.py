"""`memcube pack`: a folder becomes a cube in the local store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from memcube.cli.answer import Answer
from memcube.cli.command import command
from memcube.cli.options import open_client
from memcube.figures import bytes_text, count_text

if TYPE_CHECKING:
    from memcube.packing.pack import Packed


@command(
    "pack",
    "memcube pack my-cube",
    "memcube pack notes alice/notes:1.0.0 --embed lsa",
    "memcube pack notes --name alice/notes --version 1.0.0",
)
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("reference", required=False)
@click.option("--name", help="Name of the cube, instead of the one in memcube.toml.")
@click.option("--version", help="Version of the cube, instead of the one in memcube.toml.")
@click.option(
    "--embed",
    "embedder",
    metavar="EMBEDDER",
    help="Add vectors of the records: lsa, which needs no model, or what `memcube embed --with` takes.",
)
def pack(
    folder: Path,
    reference: str | None,
    name: str | None,
    version: str | None,
    embedder: str | None,
) -> Answer:
    """Pack a folder into a cube in the local store, without publishing it.

    Takes a cube folder (memcube.toml), a folder that PEFT saved, a MemOS cube, or a folder of JSON
    Lines and Markdown. The same folder always gives the same digest.
    REFERENCE is the cube's name, and its version if there is one: alice/notes:1.0.0.
    """
    if reference is not None:
        name, version = _named(reference, name, version)
    with open_client() as client:
        packed = client.pack(folder, name=name, version=version, embedder=embedder)
    value = {
        "reference": str(packed.reference),
        "digest": str(packed.cube.digest),
        "size": packed.cube.size,
        "files": len(packed.cube.files),
        "unchanged": packed.unchanged,
        "notes": list(packed.notes),
    }
    return Answer(value, "\n".join(lines_of(packed)), str(packed.cube.digest))


def _named(reference: str, name: str | None, version: str | None) -> tuple[str, str | None]:
    """The name and the version of `reference`; an option may only add the version.

    Raises:
        InvalidReferenceError: it is none, or its tag is no whole version.
    """
    from memcube_protocol.reference import Reference

    from memcube.publishing.pushing import version_of

    wanted = Reference.parse(reference)
    if name is not None or (version is not None and wanted.tag is not None):
        raise click.UsageError("give the name and the version once: as REFERENCE, or as options")
    if wanted.host or wanted.digest:
        raise click.UsageError(
            f"a pack stays on this machine: write {wanted.name}, and name the registry to `memcube push`"
        )
    return wanted.name, version or version_of(wanted)


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
