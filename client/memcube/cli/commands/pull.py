"""`memcube pull`: fetch a cube and verify it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from memcube.cli.answer import Answer
from memcube.cli.command import command
from memcube.cli.options import (
    filter_options,
    filters_of,
    offline_option,
    open_client,
    trust_of,
    trust_options,
)
from memcube.figures import bytes_text, count_text

if TYPE_CHECKING:
    from memcube.building.holding import HeldBuild
    from memcube.client import Client
    from memcube.consuming.verifying import Verified


@command(
    "pull",
    "memcube pull alice/notes",
    "memcube pull alice/notes:1.0.0 --filter kind=plaintext",
    "memcube pull registry.example/alice/notes@sha256:…",
    "memcube pull hf://alice/notes",
)
@click.argument("reference")
@filter_options
@offline_option
@trust_options
def pull(
    reference: str,
    filters: tuple[str, ...],
    model: str | None,
    offline: bool,
    trust_mode: str,
    accept_publisher: str | None,
    accept_origin: str | None,
    accept_rollback: bool,
) -> Answer:
    """Fetch the cube REFERENCE into the local store and verify it.

    Only bytes that are not there yet are fetched. The publisher is remembered at the first pull; a
    different one later, or a missing signature, stops the pull. With --for, builds for that model
    are fetched too, if the publisher signed them.
    """
    trust = trust_of(trust_mode, accept_publisher, accept_origin, accept_rollback)
    with open_client(offline=offline) as client:
        wanted = filters_of(filters, model)
        verified = client.pull(reference, filters=wanted, trust=trust)
        builds = _builds(client, verified, wanted) if model else ()
    made = [
        {"digest": str(one.build.digest), "memory": one.build.memory.id, "own": one.is_own}
        for one in builds
    ]
    lines = lines_of(verified)
    lines[-1:-1] = [f"Build: {one.build.memory.id} ({one.build.memory.kind})" for one in builds]
    value = {**value_of(verified), "builds": made}
    return Answer(value, "\n".join(lines), str(verified.cube.digest))


def _builds(client: Client, verified: Verified, filters: tuple[str, ...]) -> tuple[HeldBuild, ...]:
    from memcube_protocol.selection import Selection

    from memcube.building.finding import trusted_builds

    return trusted_builds(client.context, verified, Selection.parse(filters))


def value_of(verified: Verified) -> dict[str, Any]:
    """The stable JSON of a verified cube."""
    return {
        "reference": str(verified.reference),
        "digest": str(verified.cube.digest),
        "packedHere": verified.is_local,
        "files": [file.path for file in verified.files],
        "fetchedBytes": verified.fetched_bytes,
        "verdict": verified.verdict.to_json(),
    }


def lines_of(verified: Verified) -> list[str]:
    """What people read of a verified cube."""
    files = count_text(len(verified.files), "file")
    size = bytes_text(sum(file.size for file in verified.files))
    fetched = bytes_text(verified.fetched_bytes)
    told = "Packed here, unsigned:" if verified.is_local else "Verified"
    return [
        f"{told} {verified.reference}: {files}, {size}, {fetched} fetched",
        *standing_lines(verified),
        *scanned_lines(verified),
        f"Digest: {verified.cube.digest}",
    ]


def standing_lines(verified: Verified) -> list[str]:
    """What people read of where a cube comes from."""
    verdict = verified.verdict
    lines = [f"warning: {warning}" for warning in verdict.warnings]
    if verdict.publisher:
        first = " (first use: remembered)" if verdict.standing == "first-use" else ""
        lines.append(f"Signed by: {verdict.publisher.id}{first}")
    return lines


def scanned_lines(verified: Verified) -> list[str]:
    """What people read of the publisher's scan."""
    from memcube.scanning.findings import attested_scan, scan_lines

    return scan_lines(attested_scan(verified)) if verified.verdict.publisher else []
