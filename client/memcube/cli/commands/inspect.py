"""`memcube inspect`: what a cube says of itself."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click
from memcube_protocol.config import Memory
from memcube_protocol.cube import Cube
from memcube_protocol.governance import Governance
from memcube_protocol.rules import Act, Asked, rulings

from memcube.cli.answer import Answer
from memcube.cli.command import command
from memcube.cli.options import offline_option, open_client
from memcube.figures import bytes_text, count_text, table_text


@command("inspect", "memcube inspect alice/notes", "memcube inspect alice/notes:1.0.0 --json")
@click.argument("reference")
@offline_option
def inspect(reference: str, offline: bool) -> Answer:
    """Show what the cube REFERENCE says about itself, without fetching its layers.

    These are the publisher's own words; `memcube verify` says whether they are signed.
    """
    with open_client(offline=offline) as client:
        found = client.inspect(reference)
    cube = Cube.read(found.manifest, found.config)
    value = {
        "reference": str(found.reference),
        "digest": str(cube.digest),
        "size": cube.size,
        "config": cube.config.to_json(),
        "files": [{"path": f.path, "size": f.size, "digest": str(f.digest)} for f in cube.files],
        "attestations": len(found.attestations),
    }
    return Answer(value, _text(cube, len(found.attestations)), str(cube.digest))


def _text(cube: Cube, attestations: int) -> str:
    config = cube.config
    rows = [
        ("Name", f"{config.name} {config.version}"),
        ("Title", config.title or "-"),
        ("Summary", config.summary or "-"),
        ("Created", config.created_at.isoformat()),
        ("Licence", config.governance.licence),
        ("Rules", _rules(config.governance)),
        ("Size", f"{count_text(len(cube.files), 'file')}, {bytes_text(cube.size)}"),
        ("Signatures", str(attestations)),
        ("Digest", str(cube.digest)),
    ]
    memories = [(f"  {memory.id}", _what(memory), memory.title or "") for memory in config.memories]
    return table_text(rows) + "\nMemories\n" + (table_text(memories) if memories else "  none")


def _rules(governance: Governance) -> str:
    """What the cube asks of who holds it, at any act."""
    now = datetime.now(UTC)
    said = {one.rule: one.value for act in Act for one in rulings(governance, Asked(act, now))}
    return "; ".join(f"{rule} = {value}" for rule, value in said.items()) or "none"


def _what(memory: Memory) -> str:
    if memory.records is not None:
        return f"plaintext, {count_text(memory.records, 'record')}"
    shape: dict[str, Any] = dict(memory.shape)
    return ", ".join([memory.kind, *(f"{key} {value}" for key, value in sorted(shape.items()))])
