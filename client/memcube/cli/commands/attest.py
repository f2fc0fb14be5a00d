"""`memcube attest`: sign a further statement about a published cube."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from memcube.cli.answer import Answer
from memcube.cli.command import command
from memcube.cli.options import open_client

if TYPE_CHECKING:
    from memcube.publishing.attesting import Made

MODEL_SIGNATURE: Final = "model-signature"


@command(
    "attest",
    "memcube attest alice/notes:1.0.0 --type model-signature",
    "memcube attest alice/notes:1.0.0 --type provenance --predicate provenance.json",
    "memcube attest alice/notes:1.0.0 --type https://example.com/review/v1 --predicate review.json",
)
@click.argument("reference")
@click.option(
    "--type",
    "kind",
    required=True,
    metavar="TYPE",
    help="model-signature, provenance, scan, status, countersignature, or the URI of any type.",
)
@click.option(
    "--predicate",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="What is stated: a JSON object. None for a model signature.",
)
@click.option("--key", metavar="NAME", help="Sign with this key instead of the default one.")
def attest(reference: str, kind: str, predicate: Path | None, key: str | None) -> Answer:
    """Sign a statement about the cube REFERENCE and attach it as an OCI referrer.

    Statements are in-toto in a Sigstore bundle: cosign verify-attestation reads them. The files'
    model signature is OpenSSF's, which `model_signing verify` reads.
    """
    if (kind == MODEL_SIGNATURE) == (predicate is not None):
        raise click.UsageError("--predicate FILE is wanted for every type but model-signature")
    from memcube_protocol import limits
    from memcube_protocol.canonical_json import parse_object
    from memcube_protocol.reference import Reference

    from memcube.memories.reading import read_small
    from memcube.publishing import attesting
    from memcube.trust.attested import NAMES

    place = Reference.parse(reference)
    with open_client() as client:
        if predicate is None:
            return _told(attesting.sign_model(client.context, place, key=key))
        raw = read_small(predicate, limits.STATEMENT_BYTES)
        value = parse_object(raw, what="predicate")
        uri = {name: uri for uri, name in NAMES.items()}.get(kind, kind)
        return _told(attesting.attest(client.context, place, uri, value, key=key))


def _told(made: Made) -> Answer:
    value = {
        "reference": str(made.reference),
        "digest": str(made.subject),
        "predicateType": made.predicate_type,
        "bundle": str(made.bundle),
        "keyId": made.key_id,
    }
    text = f"Attested {made.reference}: {made.predicate_type}\nSigned by: {made.key_id}"
    return Answer(value, f"{text}\nBundle: {made.bundle}", str(made.bundle))
