"""`memcube cosign`: one more signature on a release that several keys have to sign."""

from __future__ import annotations

import click
from memcube_protocol.reference import Reference

from memcube.cli.answer import Answer
from memcube.cli.command import command
from memcube.cli.options import open_client


@command(
    "cosign",
    "memcube cosign registry.example/acme/notes@sha256:…",
    "memcube cosign acme/notes@sha256:… --key ben",
)
@click.argument("reference")
@click.option("--key", metavar="NAME", help="Sign with this key instead of the default one.")
def cosign(reference: str, key: str | None) -> Answer:
    """Sign the release of REFERENCE, which another key has signed already.

    For namespaces whose key documents demand several signatures (memcube keys announce --threshold).
    The tags are set by whoever completes them.
    """
    from memcube.publishing.cosigning import cosign as act

    with open_client() as client:
        done = act(client.context, Reference.parse(reference), key=key)
    digest = str(done.release.subject)
    value = {
        "reference": str(done.reference),
        "digest": digest,
        "version": done.release.version,
        "keyId": done.key_id,
        "lacking": done.lacking,
        "tags": list(done.tags),
    }
    text = f"Signed {done.release.origin} {done.release.version} with {done.key_id}\n"
    if done.lacking:
        text += f"{done.lacking} more have to sign: memcube cosign {done.reference}"
    else:
        text += f"Tags: {', '.join(done.tags)}"
    return Answer(value, f"{text}\nDigest: {digest}", digest)
