"""`memcube context`: what a cube knows about a question, as text for a pipe."""

from __future__ import annotations

import sys

import click
from memcube_protocol import limits

from memcube.cli.answer import Answer
from memcube.cli.command import command
from memcube.cli.mount_options import MountOptions, mount_options
from memcube.cli.options import open_client


@command(
    "context",
    'memcube context alice/notes "How do I test a backup?"',
    'memcube context alice/notes "Which backups are there?" --budget 400 | llm "Answer from this."',
    "git log -1 --format=%B | memcube context alice/notes -",
)
@click.argument("references", nargs=-1, metavar="[REFERENCE…]")
@click.argument("question")
@mount_options()
def context(wanted: MountOptions, *, question: str) -> Answer:
    """Print the records of cubes, or of a profile's, that answer QUESTION, for the prompt of any model.

    They stand between delimiters that they cannot close, with ids to cite; before them the texts of
    KV memories, as far as the budget allows. Nothing else is printed, and nothing at all if nothing
    answers. A QUESTION of - is read from standard input.
    """
    if not wanted.names_something:
        raise click.UsageError(
            "the cube or the QUESTION is missing: memcube context REFERENCE QUESTION",
            click.get_current_context(),
        )
    overlay = wanted.read_overlay
    asked = _from_input() if question == "-" else question
    with (
        open_client(offline=wanted.offline) as client,
        client.mount(wanted.cubes, overlay=overlay, **wanted.asked) as memory,
    ):
        found = "\n\n".join(filter(None, (memory.prefix_text, memory.context(asked))))
        value = {
            "references": [cube.name for cube in memory.cubes],
            "question": asked,
            "budgetTokens": memory.budget_tokens,
            "context": found,
        }
    return Answer(value, found, found)


def _from_input() -> str:
    """What stands on the standard input.

    Raises:
        LimitExceededError: more than a record may hold.
    """
    text = sys.stdin.read(limits.RECORD_BYTES + 1)
    limits.require_at_most("question", len(text), limits.RECORD_BYTES, unit="characters")
    return text
