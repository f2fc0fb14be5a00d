"""`memcube provenance`: where a cube comes from, and who states what about it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from memcube_protocol.errors import ConflictError

from memcube.cli.answer import Answer
from memcube.cli.command import command
from memcube.cli.options import offline_option, open_client

if TYPE_CHECKING:
    from memcube.consuming.finding import Found
    from memcube.provenance import Node


@command(
    "provenance",
    "memcube provenance alice/notes",
    "memcube provenance alice/notes --graph notes.svg",
    "memcube provenance alice/notes:1.0.0 --export proofs",
)
@click.argument("reference")
@click.option(
    "--graph",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the tree as an SVG drawing.",
)
@click.option(
    "--export",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Write the bundles and the publisher's key for other tools.",
)
@offline_option
def provenance(reference: str, graph: Path | None, export: Path | None, offline: bool) -> Answer:
    """Show the tree of cubes that REFERENCE was made from, with statements, licences and duties.

    Every statement is verified against the publisher's key; those that fail are shown as not counted.
    Bundles written by --export are read by cosign and by model_signing.
    """
    from memcube_protocol.reference import Reference

    from memcube.provenance import json_of, svg_of, text_of, trace

    place = Reference.parse(reference)
    with open_client(offline=offline) as client:
        tree = trace(client.context, place)
        found = client.inspect(place)
    if graph:
        graph.write_text(svg_of(tree), encoding="utf-8")
    if export:
        _export(export, found, tree)
    return Answer(json_of(tree), text_of(tree), str(tree.digest))


def _export(folder: Path, found: Found, tree: Node) -> None:
    """Write each verified bundle as `KIND.N.sigstore.json`, the manifest, and the publisher's key.

    Raises:
        ConflictError: the registry shows another cube now than the one that was judged.
    """
    from memcube.trust.attested import NAMES, statements_of

    if tree.verdict is None or found.manifest.digest != tree.digest:
        raise ConflictError(
            f"{tree.name} changed while it was looked at", hint="run the command again"
        )
    # Judged anew: what is asked for twice may be answered in two ways.
    claims = statements_of(found.manifest, found.attestations, tree.verdict)
    folder.mkdir(parents=True, exist_ok=True)
    counts: dict[str, int] = {}
    for claim, attestation in zip(claims, found.attestations, strict=True):
        if claim.key is None:
            continue
        kind = claim.name if claim.name in NAMES.values() else "other"
        counts[kind] = counts.get(kind, 0) + 1
        (folder / f"{kind}.{counts[kind]}.sigstore.json").write_bytes(attestation.bundle)
    (folder / "manifest.json").write_bytes(found.manifest.raw)
    if tree.verdict.publisher:
        (folder / "publisher.pem").write_text(tree.verdict.publisher.to_pem(), encoding="ascii")
