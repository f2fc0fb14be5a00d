"""`memcube verify`: bytes, structure and signatures of a cube."""

from __future__ import annotations

import click
from memcube_protocol.errors import EXIT_OK, outcome_of

from memcube.cli.answer import Answer
from memcube.cli.command import command
from memcube.cli.options import offline_option, open_client, trust_of, trust_options


@command("verify", "memcube verify alice/notes:1.0.0", "memcube verify alice/notes --json")
@click.argument("reference")
@offline_option
@trust_options
def verify(
    reference: str,
    offline: bool,
    trust_mode: str,
    accept_publisher: str | None,
    accept_origin: str | None,
    accept_rollback: bool,
) -> Answer:
    """Check the cube REFERENCE rule by rule and say why it may be used or not.

    Everything that the local store holds of it is hashed anew. The exit code is that of the first
    rule that failed.
    """
    trust = trust_of(trust_mode, accept_publisher, accept_origin, accept_rollback)
    with open_client(offline=offline) as client:
        verdict = client.verify(reference, trust=trust)
    lines = [f"{rule.outcome.value:>9}  {rule.rule:<10} {rule.detail}" for rule in verdict.rules]
    lines.append(f"{verdict.standing.value}: {verdict.location}@{verdict.digest}")
    if verdict.error:
        lines.append(f"hint: {verdict.error.hint}")
    code = outcome_of(verdict.error).exit_code if verdict.error else EXIT_OK
    return Answer(verdict.to_json(), "\n".join(lines), str(verdict.digest), code)
