"""`memcube cp`: copy a cube with its signatures."""

from __future__ import annotations

import click

from memcube.cli.answer import Answer
from memcube.cli.command import command
from memcube.cli.options import open_client, trust_of, trust_options
from memcube.cli.words import bytes_text, count_text


@command(
    "cp",
    "memcube cp alice/notes:1.0.0 bob/notes",
    "memcube cp registry.example/alice/notes:1.0.0 mirror.example/alice/notes",
)
@click.argument("source")
@click.argument("target")
@trust_options
def cp(
    source: str,
    target: str,
    trust_mode: str,
    accept_publisher: str | None,
    accept_origin: str | None,
    accept_rollback: bool,
) -> Answer:
    """Copy the cube SOURCE with its signatures and builds to TARGET.

    The copy keeps its origin. Blobs that the target registry holds already are mounted, not sent.
    """
    trust = trust_of(trust_mode, accept_publisher, accept_origin, accept_rollback)
    with open_client() as client:
        copied = client.cp(source, target, trust=trust)
    value = {
        "reference": str(copied.reference),
        "digest": str(copied.digest),
        "attached": copied.attached,
        "sentBytes": copied.sent_bytes,
    }
    attached = count_text(copied.attached, "attached manifest")
    text = f"Copied to {copied.reference}: {bytes_text(copied.sent_bytes)} sent, {attached}"
    return Answer(value, f"{text}\nDigest: {copied.digest}", str(copied.digest))
