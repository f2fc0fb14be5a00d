"""The table of commands: each with its short help and where it lives, so that none is loaded early."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final, NamedTuple

import click
from click.shell_completion import CompletionItem
from memcube_protocol.errors import MissingDependencyError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

ENTRY_POINT_GROUP: Final = "memcube.commands"


class Place(NamedTuple):
    """Where a command lives (`module:attribute`; empty: an entry point) and what it is for."""

    target: str
    summary: str


_SECTIONS: Final[dict[str, dict[str, Place]]] = {
    "Publish": {
        "init": Place("init:init", "Create a folder that can be packed as it is."),
        "dump": Place("dump:dump", "Write a KV cache or an adapter into a cube folder."),
        "build": Place("build:build", "Make a memory of another kind, or for another model."),
        "embed": Place("embed:embed", "Add vectors to a cube folder, for searches by meaning."),
        "scan": Place("scan:scan", "Look for secrets, personal data, injections and programs."),
        "pack": Place("pack:pack", "Pack a folder into a cube in the local store."),
        "push": Place("push:push", "Pack, sign and publish a cube."),
        "cosign": Place("cosign:cosign", "Add a signature to a release that needs several."),
        "tag": Place("tag:tag", "Give a published cube one more tag."),
        "cp": Place("cp:cp", "Copy a cube with its signatures to another name or registry."),
        "mirror": Place("mirror:mirror", "Follow a namespace: copy every cube and version in it."),
        "attest": Place("attest:attest", "Sign a further statement about a published cube."),
        "deprecate": Place("yank:deprecate", "Advise against a release."),
        "yank": Place("yank:yank", "Withdraw a release from its moving tags."),
    },
    "Use": {
        "pull": Place("pull:pull", "Fetch a cube and verify it."),
        "unpack": Place("unpack:unpack", "Write a verified cube as a plain folder."),
        "path": Place("path:path", "Print the folder of one memory, for tools that load files."),
        "verify": Place("verify:verify", "Check bytes, structure and signatures of a cube."),
        "provenance": Place("provenance:provenance", "Show where a cube comes from, as a tree."),
        "proof": Place("proof:proof", "Save the evidence about a cube for offline use."),
        "inspect": Place("inspect:inspect", "Show what a cube says about itself."),
        "builds": Place("builds:builds", "List what was built from a cube, and for which models."),
        "mount": Place("mount:mount", "Make a cube usable by a model and ask it."),
        "mcp": Place("mcp:mcp", "Give agents the memories of cubes, over MCP."),
        "chat": Place("chat:chat", "Talk with a model that has the memories of cubes."),
        "context": Place(
            "context:context", "Print what a cube knows about a question, for a pipe."
        ),
        "proxy": Place("proxy:proxy", "Add memory to every request to an OpenAI-compatible API."),
    },
    "Keep": {
        "ls": Place("ls:ls", "List the cubes in the local store."),
        "rm": Place("rm:rm", "Forget a cube in the local store."),
        "usage": Place("usage:usage", "Show which memories are used on this machine."),
        "prune": Place("prune:prune", "Free space in the local store."),
    },
    "Account": {
        "login": Place("login:login", "Keep a token for a registry."),
        "logout": Place("logout:logout", "Forget the token for a registry."),
        "whoami": Place("whoami:whoami", "Show who a registry says you are."),
        "publisher": Place("publisher:publisher", "Let CI jobs push to a cube, and see which may."),
        "log": Place("log:log", "Watch the transparency log of a registry."),
        "policy": Place("policy:policy", "Explain and try trust policies."),
        "keys": Place(
            "keys:keys", "Make and show signing keys; replace, revoke and delegate them."
        ),
    },
    "More": {
        "serve": Place("", "Run a registry on this machine."),
        "demo": Place("demo:demo", "Publish, sign, pull, verify and mount a cube, all at once."),
        "doctor": Place("doctor:doctor", "Check settings, store, registry and optional packages."),
        "completion": Place("completion:completion", "Print the completion script for a shell."),
        "version": Place("version:version", "Print the versions of memcube and its formats."),
    },
}


class LazyGroup(click.Group):
    """The group `memcube`: knows its commands' names and short helps, loads one when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Names of all commands, in the order of the help."""
        known = [name for places in _SECTIONS.values() for name in places]
        return known + sorted(set(_contributed()) - set(known))

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002
        cmd_name: str,
    ) -> click.Command | None:
        """The command `cmd_name`, loaded now.

        Raises:
            MissingDependencyError: it belongs to an optional part that is not installed.
        """
        place = _place(cmd_name)
        if place and place.target:
            module, _, attribute = place.target.partition(":")
            command = getattr(importlib.import_module(f"memcube.cli.commands.{module}"), attribute)
        elif entry := _contributed().get(cmd_name):
            command = _load(entry)
        else:
            return None
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with the closest name suggested for one that does not exist."""
        name = args[0] if args else ""
        unknown = _place(name) is None and name not in self.list_commands(ctx)
        if name and not name.startswith("-") and unknown:
            import difflib

            close = difflib.get_close_matches(name, self.list_commands(ctx), 1)
            meant = f"; did you mean {close[0]!r}?" if close else ""
            ctx.fail(f"no such command {name!r}{meant}")
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Names of commands with their short helps, none of them loaded."""
        return [
            CompletionItem(name, help=place.summary if (place := _place(name)) else None)
            for name in self.list_commands(ctx)
            if name.startswith(incomplete)
        ]

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002
        formatter: click.HelpFormatter,
    ) -> None:
        """Write the sections of the help without loading a command."""
        for title, places in _SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, place.summary) for name, place in places.items()])
        others = [
            (name, f"From {entry.value.partition(':')[0]}.")
            for name, entry in sorted(_contributed().items())
            if _place(name) is None
        ]
        if others:
            with formatter.section("Contributed"):
                formatter.write_dl(others)


def _place(name: str) -> Place | None:
    return next((places[name] for places in _SECTIONS.values() if name in places), None)


def _contributed() -> dict[str, EntryPoint]:
    """Commands of other parts and packages, by name; reading the list imports none of them.

    It reads the metadata of every installed package, so only what needs the list asks for it.
    """
    from importlib.metadata import entry_points

    return {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}


def _load(entry: EntryPoint) -> click.Command:
    try:
        command = entry.load()
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"`memcube {entry.name}` needs the package {error.name!r}",
            hint="install the registry with it: pip install 'memcube[registry]'",
        ) from None
    assert isinstance(command, click.Command)
    return command
