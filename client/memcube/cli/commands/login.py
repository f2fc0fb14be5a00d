"""`memcube login`: keep a token for a registry."""

from __future__ import annotations

import sys

import click

from memcube.cli.answer import Answer
from memcube.cli.command import command
from memcube.cli.options import open_client


@command(
    "login",
    "memcube login",
    "memcube login registry.example --token-stdin < token.txt",
    "memcube login registry.example --username alice",
)
@click.argument("host", default="")
@click.option("--username", default="", metavar="NAME", help="For registries that want a name too.")
@click.option("--token-stdin", is_flag=True, help="Read the token from stdin.")
def login(host: str, username: str, token_stdin: bool) -> Answer:
    """Keep an API token (or a password) for the registry HOST, once the registry has accepted it.

    It goes into the keyring if there is one, otherwise into a file that only you can read.
    MEMCUBE_TOKEN needs no login.
    """
    if token_stdin:
        token = sys.stdin.readline(8192).strip()
    elif sys.stdin.isatty():
        token = click.prompt("Token", hide_input=True, err=True)
    else:
        raise click.UsageError("there is no terminal to ask at: repeat with --token-stdin")
    if not token:
        raise click.UsageError("no token was given")
    with open_client() as client:
        identity, place = client.login(token, host, username=username)
    who = f" as {identity.name}" if identity.name else ""
    value = {"host": identity.host, "name": identity.name, "keptIn": place}
    return Answer(value, f"Logged in to {identity.host}{who}; kept in {place}")
