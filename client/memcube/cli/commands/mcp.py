"""`memcube mcp`: mounted memories for agents that speak the Model Context Protocol."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from memcube.cli.answer import Answer
from memcube.cli.command import command
from memcube.cli.options import (
    entrance_options,
    offline_option,
    open_client,
    require_something,
    role_options,
    trust_of,
    trust_options,
)

if TYPE_CHECKING:
    from memcube.guard import Entrance
    from memcube.mcp.clients import Installation

_CLIENTS: Final = ("claude-desktop", "claude-code", "cursor", "vscode", "windsurf", "gemini-cli")
_TOKEN_VARIABLE: Final = "MEMCUBE_MCP_TOKEN"
_PASSED_ON: Final = ("MEMCUBE_HOME", "MEMCUBE_ENDPOINT")


class _Mcp(click.Group):
    """Serves where no subcommand is named: `memcube mcp alice/notes`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("-h", "--help"):
            args = ["serve", *args]
        return super().parse_args(ctx, args)


@click.group("mcp", cls=_Mcp)
def mcp() -> None:
    """Give agents the memories of cubes, over the Model Context Protocol.

    `memcube mcp alice/notes` is short for `memcube mcp serve alice/notes`.
    """


_model_option = click.option(
    "--model-is-here",
    is_flag=True,
    help="The agent's model runs on this machine: serve cubes that may not leave it, too.",
)


@command(
    "serve",
    "memcube mcp serve acme/cardiology:1.4 --overlay ~/notes",
    "memcube mcp serve alice/notes --http --port 7080 --token-file ~/.memcube-mcp-token",
)
@click.argument("references", nargs=-1)
@role_options
@click.option("--http", is_flag=True, help="Serve over HTTP instead of stdin and stdout.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=7080, show_default=True, help="0: a free one."
)
@entrance_options(
    f"Demand the bearer token in this file, which is made if absent; or {_TOKEN_VARIABLE}."
)
@_model_option
@offline_option
@trust_options
def serve(
    references: tuple[str, ...],
    profile: str | None,
    overlay: Path | None,
    http: bool,
    host: str,
    port: int,
    token_file: Path | None,
    hosts: tuple[str, ...],
    origins: tuple[str, ...],
    model_is_here: bool,
    offline: bool,
    trust_mode: str,
    accept_publisher: str | None,
    accept_origin: str | None,
    accept_rollback: bool,
) -> None:
    """Mount the cubes REFERENCES and answer an MCP client.

    Tools: search, fetch, read, context, cite, list; with --overlay also remember and forget, which
    change that folder and nothing else. Over HTTP the path is /mcp; other machines are let in with a
    token only, and TLS is a proxy's.
    """
    from memcube.mcp.transport import require_sdk, serve_http, serve_stdio

    require_sdk()
    from memcube.mcp.opening import open_desk

    require_something(references, profile, overlay)
    trust = trust_of(trust_mode, accept_publisher, accept_origin, accept_rollback)

    def entrance(bound: int) -> Entrance:
        from memcube.guard import Entrance

        return Entrance.of(host, bound, token=_token(token_file), hosts=hosts, origins=origins)

    if http:
        entrance(port)  # what is refused is refused before anything is mounted
    with ExitStack() as opened:
        with open_client(offline=offline) as client:
            desk = opened.enter_context(
                open_desk(
                    client,
                    references,
                    profile=profile,
                    overlay=overlay,
                    trust=trust,
                    model_is_here=model_is_here,
                )
            )
        # The client's progress bars are gone by now: output and terminal belong to the server.
        if http:
            serve_http(desk, host, port, entrance=entrance, listening=_tell_listening)
        else:
            serve_stdio(desk)


@command(
    "install",
    "memcube mcp install acme/cardiology:1.4 --overlay ~/notes --client claude-desktop",
    "memcube mcp install alice/notes --client cursor --client vscode --print",
)
@click.argument("references", nargs=-1)
@role_options
@click.option(
    "--client",
    "clients",
    type=click.Choice(_CLIENTS),
    multiple=True,
    required=True,
    help="The client that is to start memcube; repeatable.",
)
@click.option("--name", default="memcube", show_default=True, help="What the client calls it.")
@click.option(
    "--project",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default=Path(),
    help="Folder of the project, for claude-code and vscode. Default: this one.",
)
@click.option("--print", "only_print", is_flag=True, help="Show the file, and write nothing.")
@_model_option
@offline_option
def install(
    references: tuple[str, ...],
    profile: str | None,
    overlay: Path | None,
    clients: tuple[str, ...],
    name: str,
    project: Path,
    only_print: bool,
    model_is_here: bool,
    offline: bool,
) -> Answer:
    """Write the configuration of MCP clients so that they mount the cubes REFERENCES.

    Everything else in the files stays as it is, and a copy of each is kept beside it. Tokens are not
    written: log in first, with `memcube login`.
    """
    from memcube.mcp.clients import CLIENTS, installation

    require_something(references, profile, overlay)
    _require_meant(references, profile)
    arguments = [*references, *(["--profile", profile] if profile else [])]
    arguments += ["--overlay", str(overlay.absolute())] if overlay else []
    arguments += ["--model-is-here"] * model_is_here + ["--offline"] * offline
    planned = [
        installation(
            CLIENTS[client],
            name,
            arguments,
            home=Path.home(),
            project=project,
            environment={key: os.environ[key] for key in _PASSED_ON if os.environ.get(key)},
        )
        for client in clients
    ]
    if only_print:
        lines = [line for one in planned for line in (f"{one.path}:", one.content.decode())]
    else:
        lines = [_written(one) for one in planned]
        lines += ["", *(f"Pull it before: memcube pull {reference}" for reference in references)]
        lines += ["Restart the client to let it see the memories."]
    paths = [str(one.path) for one in planned]
    return Answer({"name": name, "written": not only_print, "files": paths}, "\n".join(lines))


mcp.add_command(serve)
mcp.add_command(install)


def _require_meant(references: tuple[str, ...], profile: str | None) -> None:
    """Refuse a reference or a profile that no start could mount.

    Raises:
        InvalidReferenceError, InvalidDigestError: not a reference.
        NotFoundError: no such profile.
    """
    from memcube_protocol.reference import Reference

    from memcube.settings import Settings

    for reference in references:
        Reference.parse(reference)
    if profile is not None:
        Settings.load().profile(profile)


def _written(installed: Installation) -> str:
    backup = installed.write()
    return f"Wrote {installed.path}" + (f"; as it was: {backup}" if backup else "")


def _token(path: Path | None) -> str | None:
    from memcube.guard import token_in

    return token_in(path) if path else os.environ.get(_TOKEN_VARIABLE) or None


def _tell_listening(url: str) -> None:
    sys.stderr.write(f"memcube mcp answers at {url}\n")
    sys.stderr.flush()
