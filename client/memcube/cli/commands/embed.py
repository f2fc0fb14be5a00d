"""`memcube embed`: write vectors of its records into a cube folder."""

from __future__ import annotations

from pathlib import Path

import click
from memcube_protocol.errors import NotFoundError

from memcube.cli.answer import Answer
from memcube.cli.command import command


@command(
    "embed",
    "memcube embed my-cube",
    "memcube embed my-cube --with ./bge-small-zh-v1.5",
    "memcube embed my-cube --with https://models.example/v1#bge-m3",
)
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--with",
    "embedder",
    default="lsa",
    metavar="EMBEDDER",
    help="A folder of sentence-transformers, an address, or a plug-in. Default: lsa, which needs no model.",
)
def embed(folder: Path, embedder: str) -> Answer:
    """Embed the records of the cube folder FOLDER; the vectors travel with the cube.

    Whoever mounts the cube searches by words and by meaning: with LSA at once, since it travels
    with the cube; with another embedder if theirs makes the same vectors. Run it again after the
    records have changed.
    """
    from memcube.dumper import MemDumper
    from memcube.packing.draft import FILE_NAME

    if not (folder / FILE_NAME).is_file():
        raise NotFoundError(
            f"{folder} has no {FILE_NAME}",
            hint=f"notes are embedded as they are packed: memcube pack {folder} --embed {embedder}",
        )
    made = MemDumper(folder).add_vectors(embedder)
    return Answer(
        {"embedder": made.embedder, "path": str(made.path), "vectors": made.count},
        f"Embedded {made.count} texts with {made.embedder} into {made.path}\nNext: memcube push {folder}",
        str(made.path),
    )
