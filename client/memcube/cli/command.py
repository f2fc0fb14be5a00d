"""What every command has: an example in its help, `--json`, `--quiet`, its answer returned; and groups of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import click

_SENTENCE_CHARS: Final = 500


class MemcubeCommand(click.Command):
    """A command that returns an `Answer` and shows examples under its help."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = tuple(examples)
        self.params += [
            click.Option(["--json"], is_flag=True, expose_value=False, help="Print stable JSON."),
            click.Option(
                ["-q", "--quiet"],
                is_flag=True,
                expose_value=False,
                help="Print only the digest, or nothing.",
            ),
        ]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does; a refused option knows its command, which the hint then names."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx
            raise

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, each on one line as it is typed."""
        with formatter.section("Examples"):
            for example in self.examples:
                formatter.write(f"{'':{formatter.current_indent}}{example}\n")
        super().format_epilog(ctx, formatter)


class MemcubeGroup(click.Group):
    """A group that lists each command with its whole first sentence, which click would cut."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands."""
        found = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
        rows = [(name, one.get_short_help_str(_SENTENCE_CHARS)) for name, one in found if one]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def command(name: str, *examples: str) -> Callable[[Callable[..., Any]], MemcubeCommand]:
    """Decorator: the function as the command `name`, with its docstring's first lines as help."""
    return click.command(name, cls=MemcubeCommand, examples=examples)
