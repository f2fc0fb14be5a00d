"""What every command has: an example in its help, `--json`, `--quiet`, and its answer returned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click


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

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        with formatter.section("Examples"):
            for example in self.examples:
                formatter.write_text(example)
        super().format_epilog(ctx, formatter)


def command(name: str, *examples: str) -> Callable[[Callable[..., Any]], MemcubeCommand]:
    """Decorator: the function as the command `name`, with its docstring's first lines as help."""
    return click.command(name, cls=MemcubeCommand, examples=examples)
