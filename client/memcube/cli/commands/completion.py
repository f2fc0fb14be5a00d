"""`memcube completion`: the completion script of a shell."""

from __future__ import annotations

import click

from memcube.cli.answer import Answer
from memcube.cli.command import command

_SHELLS = ("bash", "zsh", "fish")


@command(
    "completion",
    'eval "$(memcube completion bash)"',
    "memcube completion fish > ~/.config/fish/completions/memcube.fish",
)
@click.argument("shell", type=click.Choice(_SHELLS))
def completion(shell: str) -> Answer:
    """Print the script that makes SHELL complete memcube's commands and options."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    from memcube.cli.run import group

    script = kind(group(), {}, "memcube", "_MEMCUBE_COMPLETE").source()
    return Answer({"shell": shell, "script": script}, script, script)
