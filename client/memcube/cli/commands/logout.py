"""`memcube logout`: forget the token for a registry."""

from __future__ import annotations

import click

from memcube.cli.answer import Answer
from memcube.cli.command import command
from memcube.cli.options import open_client


@command("logout", "memcube logout", "memcube logout registry.example")
@click.argument("host", default="")
def logout(host: str) -> Answer:
    """Forget the token for the registry HOST. The token itself stays valid until it is revoked."""
    with open_client() as client:
        known = client.logout(host)
    text = "Logged out" if known else "Nobody was logged in"
    return Answer({"host": host, "loggedOut": known}, f"{text}{f': {host}' if host else ''}")
