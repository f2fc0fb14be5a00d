"""`memcube init`: create a folder that can be packed as it is."""

from __future__ import annotations

from pathlib import Path

import click

from memcube.cli.answer import Answer
from memcube.cli.command import command

_TEMPLATES = ("expert", "agent", "kv", "lora")


@command("init", "memcube init my-cube", "memcube init notes --template agent --name alice/notes")
@click.argument("folder", type=click.Path(path_type=Path), default=Path())
@click.option(
    "--template",
    type=click.Choice(_TEMPLATES),
    default="expert",
    show_default=True,
    help="What the folder is made for.",
)
@click.option("--name", help="Name of the cube, such as alice/notes. Default: the folder's name.")
def init(folder: Path, template: str, name: str | None) -> Answer:
    """Create a folder that can be packed as it is: memcube.toml, a card and a few records.

    A folder that already holds something gets a memcube.toml, and nothing else in it is changed.
    Edit the files, then publish them with `memcube push`.
    """
    from memcube.packing.kinds import name_of_folder
    from memcube.packing.templates import write_template

    name = name or name_of_folder(folder)
    paths = write_template(folder, template, name)
    lines = [f"Wrote {folder / path}" for path in paths]
    text = "\n".join([*lines, "", f"Next: edit them, then: memcube push {folder}"])
    return Answer({"folder": str(folder), "name": name, "files": list(paths)}, text)
