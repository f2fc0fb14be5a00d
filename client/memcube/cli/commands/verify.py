"""`memcube verify`: bytes, structure and signatures of a cube."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from memcube_protocol.errors import EXIT_OK, outcome_of

from memcube.cli.answer import Answer
from memcube.cli.command import command
from memcube.cli.options import offline_option, open_client, trust_of, trust_options

if TYPE_CHECKING:
    from memcube.trust.attested import Claim

PROOF_SUFFIX: Final = ".memproof"


@command(
    "verify",
    "memcube verify alice/notes:1.0.0",
    "memcube verify alice/notes --json",
    "memcube verify --offline notes.memproof",
    "memcube verify alice/notes:1.0.0 --proof notes.memproof",
)
@click.argument("reference")
@click.option(
    "--proof",
    type=click.Path(path_type=Path),
    help="Judge REFERENCE by this .memproof file alone; no connection is opened.",
)
@offline_option
@trust_options
def verify(
    reference: str,
    proof: Path | None,
    offline: bool,
    trust_mode: str,
    accept_publisher: str | None,
    accept_origin: str | None,
    accept_rollback: bool,
) -> Answer:
    """Check the cube REFERENCE rule by rule and say why it may be used or not.

    Everything that the local store holds of it is hashed again. REFERENCE may also be a .memproof
    file, which contains its own name. The exit code is that of the first rule that failed.
    """
    trust = trust_of(trust_mode, accept_publisher, accept_origin, accept_rollback)
    by_file = proof or (Path(reference) if reference.endswith(PROOF_SUFFIX) else None)
    with open_client(offline=offline or by_file is not None) as client:
        if by_file is not None:
            wanted = reference if proof else None
            verdict, claims = client.verify_proof(by_file, wanted, trust=trust)
        else:
            verdict = client.verify(reference, trust=trust)
            claims = client.statements(reference, verdict)
    rows = [(rule.outcome.value, rule.rule, rule.detail) for rule in verdict.rules]
    rows += [claim_row(claim) for claim in claims]
    outcomes, names = (max(len(row[column]) for row in rows) for column in (0, 1))
    lines = [f"{outcome:>{outcomes}}  {name:<{names}}  {why}" for outcome, name, why in rows]
    lines.append(f"{verdict.standing.value}: {verdict.location}@{verdict.digest}")
    if verdict.error:
        lines.append(f"hint: {verdict.error.hint}")
    code = outcome_of(verdict.error).exit_code if verdict.error else EXIT_OK
    value = verdict.to_json() | {"statements": [value_of(claim) for claim in claims]}
    return Answer(value, "\n".join(lines), str(verdict.digest), code)


def claim_row(claim: Claim) -> tuple[str, str, str]:
    """What people read of one statement: whether it counts, the kind, and by whom or why not."""
    if claim.key is None:
        return "unproven", claim.name, f"not counted: {claim.why}"
    return "attested", claim.name, f"by key {claim.key.id}"


def value_of(claim: Claim) -> dict[str, Any]:
    """The stable JSON of one statement."""
    return {
        "predicateType": claim.predicate_type,
        "verified": claim.key is not None,
        "keyId": claim.key.id if claim.key else None,
        "reason": claim.why,
    }
