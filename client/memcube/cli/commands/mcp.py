"""`memcube mcp`: mounted memories for agents that speak the Model Context Protocol."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from memcube.cli.answer import Answer
from memcube.cli.command import MemcubeGroup, command
from memcube.cli.mount_options import MountOptions, mount_options
from memcube.cli.options import open_client
from memcube.cli.serving_options import ServingOptions, serving_options

if TYPE_CHECKING:
    from memcube.mcp.clients import Installation

_CLIENTS: Final = ("claude-desktop", "claude-code", "cursor", "vscode", "windsurf", "gemini-cli")
_TOKEN_VARIABLE: Final = "MEMCUBE_MCP_TOKEN"
_PASSED_ON: Final = ("MEMCUBE_HOME", "MEMCUBE_ENDPOINT")


class _Mcp(MemcubeGroup):
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
@mount_options()
@click.option("--http", is_flag=True, help="Serve over HTTP instead of stdin and stdout.")
@serving_options(
    f"Demand the bearer token in this file, which is made if absent; or {_TOKEN_VARIABLE}.",
    port=7080,
    token_variable=_TOKEN_VARIABLE,
)
@_model_option
def serve(
    wanted: MountOptions, *, serving: ServingOptions, http: bool, model_is_here: bool
) -> None:
    """Mount the cubes REFERENCES and answer an MCP client.

    Tools: search, fetch, read, context, cite, list; with --overlay also remember and forget, which
    change that folder and nothing else. Over HTTP the path is /mcp; other machines need a token,
    and TLS is left to a proxy.
    """
    from memcube.mcp.transport import require_sdk, serve_http, serve_stdio

    require_sdk()
    from memcube.mcp.opening import open_desk

    wanted.require_something()
    # What is refused is refused before anything is mounted.
    entrance = serving.entrance() if http else None
    with ExitStack() as opened:
        with open_client(offline=wanted.offline) as client:
            desk = opened.enter_context(
                open_desk(
                    client,
                    wanted.cubes,
                    overlay=wanted.overlay,
                    model_is_here=model_is_here,
                    **wanted.asked,
                )
            )
        # The client's progress bars are gone by now: output and terminal belong to the server.
        if entrance is None:
            serve_stdio(desk)
        else:
            serve_http(
                desk, serving.host, serving.port, entrance=entrance, listening=_tell_listening
            )


@command(
    "install",
    "memcube mcp install acme/cardiology:1.4 --overlay ~/notes --client claude-desktop",
    "memcube mcp install alice/notes --client cursor --client vscode --print",
)
@click.argument("references", nargs=-1)
@mount_options(asks_trust=False)
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
@click.option(
    "--force", is_flag=True, help="Replace an entry of this name that says something else."
)
@_model_option
def install(
    wanted: MountOptions,
    *,
    clients: tuple[str, ...],
    name: str,
    project: Path,
    only_print: bool,
    force: bool,
    model_is_here: bool,
) -> Answer:
    """Write the configuration of MCP clients so that they mount the cubes REFERENCES.

    Everything else in the files stays as it is, and a copy of each is kept beside it. An entry of the
    same name that says something else is shown, and replaced only with --force. Tokens are not written:
    log in first, with `memcube login`.
    """
    from memcube.mcp.clients import CLIENTS, installation

    wanted.require_something()
    _require_meant(wanted)
    arguments = [*wanted.words, *(["--model-is-here"] if model_is_here else [])]
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
        lines = [line for one in planned for line in _shown(one)]
    else:
        for one in () if force else planned:
            one.require_new()
        lines = [line for one in planned for line in _written(one)]
        lines += ["", *(f"Pull it before: memcube pull {one}" for one in _absent(wanted))]
        lines += ["Restart the client to let it see the memories."]
    value = {
        "name": name,
        "written": not only_print,
        "files": [str(one.path) for one in planned],
        "replaced": {str(one.path): list(one.differs) for one in planned if one.differs},
    }
    return Answer(value, "\n".join(lines))


mcp.add_command(serve)
mcp.add_command(install)


def _require_meant(wanted: MountOptions) -> None:
    """Refuse what no start could mount.

    Raises:
        InvalidReferenceError, InvalidDigestError: not a reference.
        InvalidRequestError: not a filter.
        NotFoundError: no such profile.
    """
    from memcube_protocol.reference import Reference
    from memcube_protocol.selection import Selection

    from memcube.settings import Settings

    for reference in wanted.cubes:
        Reference.parse(str(reference))
    Selection.parse(wanted.filters)
    if wanted.profile is not None:
        Settings.load().profile(wanted.profile)


def _absent(wanted: MountOptions) -> list[str]:
    """The references of which this machine holds nothing yet."""
    from memcube_protocol.reference import Reference

    from memcube.consuming.finding import find_ref

    with open_client(offline=True) as client:
        return [
            one
            for one in wanted.references
            if find_ref(client.context, Reference.parse(one)) is None
        ]


def _shown(installed: Installation) -> list[str]:
    replaces = ["An entry of this name is there, and would change:"] if installed.differs else []
    return [f"{installed.path}:", *replaces, *installed.differs, installed.content.decode()]


def _written(installed: Installation) -> list[str]:
    if installed.content == installed.before:
        return [f"{installed.path} says so already"]
    backup = installed.write()
    kept = f"; as it was: {backup}" if backup else ""
    return [f"Wrote {installed.path}{kept}", *(f"  {line}" for line in installed.differs)]


def _tell_listening(url: str) -> None:
    sys.stderr.write(f"memcube mcp answers at {url}\n")
    sys.stderr.flush()
