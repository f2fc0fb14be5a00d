"""docs/guide/cli.md, generated from the commands themselves."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Final

import click
from memcube_protocol.errors import OUTCOMES

from memcube.cli.command import MemcubeCommand
from memcube.cli.run import group

_HEAD: Final = """\
# Command line

Generated from the commands by `make docs`. Answers go to stdout, progress and errors to stderr.

- `--json` prints stable JSON on stdout; an error becomes a problem (RFC 9457) there.
- `--quiet` prints only the digest.
- Nothing is asked without a terminal; `NO_COLOR` is honoured; bars show only on a terminal.
- Settings come from `MEMCUBE_*` variables and `config.toml`: see [settings](settings.md).

## Exit codes

| code | meaning |
|---|---|
| 0 | done |
"""


def reference() -> str:
    """The text of docs/guide/cli.md."""
    sections = [_HEAD + "".join(_exit_codes())]
    root = group()
    context = click.Context(root, info_name="memcube")
    for name in root.list_commands(context):
        command = root.get_command(context, name)
        assert command is not None
        sections += _sections(command, f"memcube {name}")
    return "\n".join(sections)


def _exit_codes() -> Iterator[str]:
    codes: dict[int, list[str]] = {}
    for error, outcome in OUTCOMES.items():
        codes.setdefault(outcome.exit_code, []).append(error)
    for code in sorted({2, 130, *codes}):
        special = {2: ["usage"], 130: ["interrupted"]}.get(code, [])
        yield f"| {code} | {', '.join(special + codes.get(code, []))} |\n"


def _sections(command: click.Command, name: str) -> Iterator[str]:
    context = click.Context(command, info_name=name)
    usage = command.get_usage(context).removeprefix("Usage: ")
    text = inspect.cleandoc(command.help or "").replace("\b", "")
    yield f"## {name}\n\n```\n{' '.join(usage.split())}\n```\n\n{text}\n"
    rows = [record for option in command.params if (record := option.get_help_record(context))]
    if rows:
        table = "".join(f"| `{_cell(names)}` | {_cell(what)} |\n" for names, what in rows)
        yield f"| option | meaning |\n|---|---|\n{table}"
    if isinstance(command, MemcubeCommand) and command.examples:
        yield "```sh\n" + "\n".join(command.examples) + "\n```\n"
    if isinstance(command, click.Group):
        for sub, one in command.commands.items():
            yield from _sections(one, f"{name} {sub}")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
