"""`memcube context`: what a cube knows about a question, as text for a pipe."""

from __future__ import annotations

import sys

import click
from memcube_protocol import limits

from memcube.cli.answer import Answer
from memcube.cli.command import command
from memcube.cli.options import offline_option, open_client, trust_of, trust_options


@command(
    "context",
    'memcube context alice/notes "How do I test a backup?"',
    'memcube context alice/notes "Which backups are there?" --budget 400 | llm "Answer from this."',
    "git log -1 --format=%B | memcube context alice/notes -",
)
@click.argument("references", nargs=-1, required=True, metavar="REFERENCE…")
@click.argument("question")
@click.option(
    "--budget",
    default=1024,
    show_default=True,
    type=click.IntRange(1),
    help="Tokens that the text may have, by a careful estimate.",
)
@offline_option
@trust_options
def context(
    references: tuple[str, ...],
    question: str,
    budget: int,
    offline: bool,
    trust_mode: str,
    accept_publisher: str | None,
    accept_origin: str | None,
    accept_rollback: bool,
) -> Answer:
    """Print the records of the cubes that answer QUESTION, for the prompt of any model.

    The records stand between delimiters that they cannot close, with ids to cite. Nothing else is
    printed, and nothing at all where no record answers. A QUESTION of - is read from the input.
    """
    trust = trust_of(trust_mode, accept_publisher, accept_origin, accept_rollback)
    asked = _from_input() if question == "-" else question
    with (
        open_client(offline=offline) as client,
        client.mount(
            references, budget_tokens=budget, filters=("kind=plaintext",), trust=trust
        ) as memory,
    ):
        found = memory.context(asked)
    value = {
        "references": list(references),
        "question": asked,
        "budgetTokens": budget,
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
