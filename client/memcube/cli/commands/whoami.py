"""`memcube whoami`: who a registry says you are."""

from __future__ import annotations

import click

from memcube.cli.answer import Answer
from memcube.cli.command import command
from memcube.cli.options import open_client


@command("whoami", "memcube whoami", "memcube whoami registry.example --json")
@click.argument("host", default="")
def whoami(host: str) -> Answer:
    """Show who the registry HOST says you are, and what your token may do there."""
    with open_client() as client:
        identity = client.whoami(host)
    name = identity.name or "(the registry does not say)"
    scopes = f"\nScopes: {', '.join(identity.scopes)}" if identity.scopes else ""
    value = {"host": identity.host, "name": identity.name, "scopes": list(identity.scopes)}
    return Answer(value, f"{name} at {identity.host}{scopes}", name)
