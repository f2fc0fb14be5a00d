"""`memcube ls`: the cubes in the local store."""

from __future__ import annotations

from memcube.cli.answer import Answer
from memcube.cli.command import command
from memcube.cli.options import open_client
from memcube.cli.words import bytes_text, table_text


@command("ls", "memcube ls", "memcube ls --json")
def ls() -> Answer:
    """List the cubes in the local store: pulled ones, and those packed on this machine."""
    with open_client() as client:
        cubes = client.ls()
    value = [
        {
            "reference": str(cube.reference),
            "digest": str(cube.digest),
            "packed": cube.packed,
            "title": cube.config.title if cube.config else None,
            "heldBytes": cube.held_bytes,
            "totalBytes": cube.total_bytes,
            "usedAt": cube.used_at.isoformat(),
        }
        for cube in cubes
    ]
    rows = [("REFERENCE", "DIGEST", "HELD", "OF", "USED")]
    rows += [
        (
            f"{cube.reference}{' (packed here)' if cube.packed else ''}",
            cube.digest.hex[:12],
            bytes_text(cube.held_bytes),
            bytes_text(cube.total_bytes) if cube.config else "damaged",
            f"{cube.used_at:%Y-%m-%d}",
        )
        for cube in cubes
    ]
    text = table_text(rows) if cubes else "The local store is empty."
    return Answer({"cubes": value}, text, "\n".join(str(cube.digest) for cube in cubes))
