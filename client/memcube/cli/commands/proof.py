"""`memcube proof`: what verification needs, in one file."""

from __future__ import annotations

from pathlib import Path

import click

from memcube.cli.answer import Answer
from memcube.cli.command import MemcubeGroup, command
from memcube.cli.options import offline_option, open_client, trust_of, trust_options
from memcube.figures import bytes_text, count_text


@click.group("proof", cls=MemcubeGroup)
def proof() -> None:
    """Save the evidence about a cube, for machines that have no network.

    Verify it there with: memcube verify --offline FILE.memproof
    """


@command(
    "export",
    "memcube proof export alice/notes:1.0.0",
    "memcube proof export alice/notes:1.0.0 -o notes.memproof",
)
@click.argument("reference")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="File to write; NAME.memproof without."
)
@offline_option
@trust_options
def export(
    reference: str,
    output: Path | None,
    offline: bool,
    trust_mode: str,
    accept_publisher: str | None,
    accept_origin: str | None,
    accept_rollback: bool,
) -> Answer:
    """Verify the cube REFERENCE and write what that needed to one file.

    Its manifest, config, signatures, log entries and key documents, not its memories.
    """
    from memcube_protocol.reference import Reference

    from memcube.consuming import proofs
    from memcube.trust.proof import SUFFIX

    wanted = Reference.parse(reference)
    path = output or Path(wanted.name.rpartition("/")[2] + SUFFIX)
    trust = trust_of(trust_mode, accept_publisher, accept_origin, accept_rollback)
    with open_client(offline=offline) as client:
        made, verdict = proofs.export(client.context, wanted, path, trust=trust)
    size = path.stat().st_size
    attested = count_text(len(made.attestations), "attestation")
    value = {
        "path": str(path),
        "bytes": size,
        "reference": str(made.reference),
        "digest": str(made.manifest.digest),
        "attestations": len(made.attestations),
        "checkedAt": made.checked_at.isoformat(),
        "verdict": verdict.to_json(),
    }
    text = f"{path}: {made.reference}@{made.manifest.digest}, {attested}, {bytes_text(size)}"
    return Answer(value, text, str(made.manifest.digest))


proof.add_command(export)
