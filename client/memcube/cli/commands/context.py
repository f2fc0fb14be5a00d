"""`memcube context`: what a cube knows about a question, as text for a pipe."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from memcube_protocol import limits

from memcube.cli.answer import Answer
from memcube.cli.command import command
from memcube.cli.options import (
    offline_option,
    open_client,
    role_options,
    trust_of,
    trust_options,
)


@command(
    "context",
    'memcube context alice/notes "How do I test a backup?"',
    'memcube context alice/notes "Which backups are there?" --budget 400 | llm "Answer from this."',
    "git log -1 --format=%B | memcube context alice/notes -",
)
@click.argument("references", nargs=-1, metavar="[REFERENCE…]")
@click.argument("question")
@role_options
@click.option(
    "--budget",
    "budget_tokens",
    type=click.IntRange(1),
    help="Tokens of text, by a careful estimate. Default: the profile's, or 1024.",
)
@offline_option
@trust_options
def context(
    references: tuple[str, ...],
    question: str,
    profile: str | None,
    overlay: Path | None,
    budget_tokens: int | None,
    offline: bool,
    trust_mode: str,
    accept_publisher: str | None,
    accept_origin: str | None,
    accept_rollback: bool,
) -> Answer:
    """Print the records of cubes, or of a profile's, that answer QUESTION, for the prompt of any model.

    They stand between delimiters that they cannot close, with ids to cite; before them the texts of KV
    memories, as far as the budget allows. Nothing else is printed, and nothing at all where nothing
    answers. A QUESTION of - is read from the input.
    """
    if not references and profile is None and overlay is None:
        raise click.UsageError(
            "the cube or the QUESTION is missing: memcube context REFERENCE QUESTION",
            click.get_current_context(),
        )
    trust = trust_of(trust_mode, accept_publisher, accept_origin, accept_rollback)
    asked = _from_input() if question == "-" else question
    with (
        open_client(offline=offline) as client,
        client.mount(
            references,
            profile=profile,
            overlay=overlay,
            budget_tokens=budget_tokens,
            trust=trust,
        ) as memory,
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
