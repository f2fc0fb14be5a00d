"""`memcube keys`: the signing keys of this user."""

from __future__ import annotations

import click

from memcube.cli.answer import Answer
from memcube.cli.command import MemcubeGroup, command
from memcube.cli.commands.key_proposals import publish, sign
from memcube.cli.commands.namespace_keys import (
    announce,
    delegate,
    history,
    recover,
    revoke,
    rotate,
)
from memcube.cli.options import open_client
from memcube.figures import table_text


@click.group("keys", cls=MemcubeGroup)
def keys() -> None:
    """List, make and show the keys that sign your releases.

    The first push makes the key `default`. Announce your keys before you lose one: then another can
    take its place, and a stolen one can be revoked. Otherwise everybody who pulled your cubes is
    warned when another key signs. Keep a backup.
    """


@command("list", "memcube keys list")
def list_keys() -> Answer:
    """List the signing keys, without opening them."""
    with open_client() as client:
        entries = client.context.keys.entries()
    value = [
        {
            "name": entry.name,
            "id": entry.public_key.id,
            "protection": str(entry.protection),
            "path": str(entry.path),
        }
        for entry in entries
    ]
    rows = [("NAME", "ID", "PROTECTED BY")]
    rows += [(entry.name, entry.public_key.id, str(entry.protection)) for entry in entries]
    text = table_text(rows) if entries else "There are no keys yet: the first push makes one."
    return Answer({"keys": value}, text, "\n".join(entry.public_key.id for entry in entries))


@command("generate", "memcube keys generate", "memcube keys generate release-2027")
@click.argument("name", default="default")
def generate(name: str) -> Answer:
    """Make the signing key NAME and say how it is protected."""
    with open_client() as client:
        made = client.context.keys.make(name)
    entry = made.entry
    value = {"name": entry.name, "id": entry.public_key.id, "path": str(entry.path)}
    return Answer(value, made.message, entry.public_key.id)


@command("export", "memcube keys export > alice.pub", "memcube keys export release-2027")
@click.argument("name", default="default")
def export(name: str) -> Answer:
    """Print the public half of the key NAME, as PEM: cosign and others take it."""
    with open_client() as client:
        entry = client.context.keys.entry(name)
    pem = entry.public_key.to_pem()
    return Answer({"name": name, "id": entry.public_key.id, "pem": pem}, pem, pem.rstrip("\n"))


for one in (
    *(list_keys, generate, export, announce, rotate, revoke, delegate, recover),
    *(sign, publish, history),
):
    keys.add_command(one)
