"""`memcube ls`: the cubes in the local store, or at a registry or the Hub."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click
from memcube_protocol.reference import is_immutable_tag

from memcube.cli.answer import Answer
from memcube.cli.command import command
from memcube.cli.options import open_client
from memcube.figures import bytes_text, table_text

if TYPE_CHECKING:
    from memcube.consuming.holdings import Held
    from memcube.consuming.listing import Listed


@command(
    "ls",
    "memcube ls",
    "memcube ls alice",
    "memcube ls alice/notes",
    "memcube ls registry.example/",
    "memcube ls hf://alice",
)
@click.argument("place", required=False)
def ls(place: str | None) -> Answer:
    """List the cubes in the local store: pulled ones, and those packed on this machine.

    A release that its publisher deprecated or yanked is marked, as far as this machine knows. With
    PLACE, list what is stored elsewhere: the cubes of a namespace that you may see, the tags of a
    cube, or, with / at the end, every cube below that name. Digests are shown if the registry sends
    them with the tags.
    """
    with open_client() as client:
        if place is not None:
            return _elsewhere(client.ls_remote(place))
        cubes = client.ls()
    value = [
        {
            "reference": str(cube.reference),
            "digest": str(cube.digest),
            "packed": cube.packed,
            "state": str(cube.state),
            "title": cube.config.title if cube.config else None,
            "heldBytes": cube.held_bytes,
            "totalBytes": cube.total_bytes,
            "usedAt": cube.used_at.isoformat(),
        }
        for cube in cubes
    ]
    rows = [("REFERENCE", "DIGEST", "HELD", "OF", "USED")]
    rows += [_row(same) for same in _by_cube(cubes)]
    text = table_text(rows) if cubes else "The local store is empty."
    return Answer({"cubes": value}, text, "\n".join(str(cube.digest) for cube in cubes))


def _elsewhere(listed: Listed) -> Answer:
    if listed.cube is None:
        names = [str(cube) for cube in listed.cubes]
        nothing = f"{listed.place} shows no cubes to you."
        value: dict[str, Any] = {"place": listed.place, "cubes": names}
        return Answer(value, "\n".join(names) or nothing, "\n".join(names))
    tags = [
        {"tag": tag, "digest": str(digest) if digest else None}
        for tag, digest in listed.tags.items()
    ]
    rows = [("TAG", "DIGEST")]
    rows += [(tag, digest.hex[:12] if digest else "") for tag, digest in listed.tags.items()]
    value = {"reference": str(listed.cube), "tags": tags}
    return Answer(value, table_text(rows), "\n".join(listed.tags))


def _by_cube(cubes: Iterable[Held]) -> list[list[Held]]:
    """`cubes` with those together that are one cube at one place, under several tags."""
    rows: dict[tuple[str, str], list[Held]] = {}
    for cube in cubes:
        rows.setdefault((cube.reference.location, str(cube.digest)), []).append(cube)
    return list(rows.values())


def _row(same: list[Held]) -> tuple[str, str, str, str, str]:
    """One line of the table: full versions before the tags that move."""
    cube = same[0]
    tags = [one.reference.tag for one in same if one.reference.tag]
    tags.sort(key=lambda tag: (not is_immutable_tag(tag), tag == "latest", -tag.count(".")))
    named = f"{cube.reference.location}:{', '.join(tags)}" if tags else cube.reference.location
    notes = ["packed here"] if cube.packed else []
    if cube.state != "active":
        notes.append(str(cube.state))
    return (
        f"{named} ({', '.join(notes)})" if notes else named,
        cube.digest.hex[:12],
        bytes_text(cube.held_bytes),
        bytes_text(cube.total_bytes) if cube.config else "damaged",
        f"{max(one.used_at for one in same):%Y-%m-%d}",
    )
