"""`memcube push`: pack, sign and publish a cube."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from memcube.cli.answer import Answer
from memcube.cli.command import command
from memcube.cli.options import open_client, trust_of, trust_options
from memcube.figures import bytes_text

if TYPE_CHECKING:
    from memcube.context import Trust
    from memcube.publishing.publish import Published
    from memcube.publishing.vetting import Vetting


@command(
    "push",
    "memcube push my-cube",
    "memcube push notes alice/notes:1.0.0 --public",
    "memcube push alice/notes:1.0.0 registry.example/alice/notes",
    "memcube push my-cube hf://alice/notes",
    "memcube push alice/notes:1.0.0 --builds",
)
@click.argument("source")
@click.argument("reference", required=False)
@click.option("--key", metavar="NAME", help="Sign with this key instead of the default one.")
@click.option(
    "--public/--private",
    "public",
    default=None,
    help="Who may read it. Default: as it is; private.",
)
@click.option("--no-scan", is_flag=True, help="Look for nothing, and attach no scan.")
@click.option(
    "--allow-findings", is_flag=True, help="Publish although secrets or programs were found."
)
@click.option(
    "--yes",
    is_flag=True,
    help="Let everybody read it although its governance says confidential or personal.",
)
@click.option(
    "--builds", is_flag=True, help="Publish what `memcube build` made of this published cube here."
)
@click.option(
    "--again", is_flag=True, help="Ask for every file anew, and send what the registry has lost."
)
@trust_options
def push(
    source: str,
    reference: str | None,
    key: str | None,
    public: bool | None,
    no_scan: bool,
    allow_findings: bool,
    yes: bool,
    builds: bool,
    again: bool,
    trust_mode: str,
    accept_publisher: str | None,
    accept_origin: str | None,
    accept_rollback: bool,
) -> Answer:
    """Publish SOURCE: a folder, which is packed first, or a cube packed before.

    Its name and version come from memcube.toml, or from REFERENCE. The release is signed, and the
    tags are set last: the full version, then 1.4, 1 and latest where no newer version has them.
    Pushing the same again changes nothing; to resume an interrupted push, run it again. A CI job
    that the owner trusts needs no login (memcube publisher). With --builds, SOURCE is a published
    cube, and the KV caches, adapters and records that were built from it here are published.
    """
    from memcube.publishing.vetting import Vetting

    trust = trust_of(trust_mode, accept_publisher, accept_origin, accept_rollback)
    if builds:
        if reference:
            raise click.UsageError("--builds takes one reference: that of the published cube")
        return _push_builds(source, key, trust, Vetting(not no_scan, allow_findings))
    with open_client() as client:
        published = client.push(
            source,
            reference,
            key=key,
            public=public,
            trust=trust,
            vet=Vetting(not no_scan, allow_findings),
            expose=yes,
            again=again,
        )
    cube = published.cube
    value = {
        "reference": str(published.reference),
        "digest": str(cube.digest),
        "tags": list(published.tags),
        "unchanged": published.unchanged,
        "sentBytes": published.sent_bytes,
        "size": cube.size,
        "keyId": published.key_id,
        "lacking": published.lacking,
        "findings": dict(published.scan.counts) if published.scan else None,
        "notes": list(published.notes),
        "visibility": published.visibility,
        "job": published.job.to_json() if published.job else None,
    }
    return Answer(value, "\n".join(lines_of(published)), str(cube.digest))


def _push_builds(reference: str, key: str | None, trust: Trust, vet: Vetting) -> Answer:
    from memcube_protocol.reference import Reference

    from memcube.building.publishing import push_builds

    with open_client() as client:
        place = Reference.parse(reference)
        pushed = push_builds(client.context, place, key=key, trust=trust, vet=vet)
    value = {
        "reference": reference,
        "builds": [
            {
                "digest": str(one.build.digest),
                "memory": one.build.memory.to_json(),
                "referrer": str(one.referrer),
                "sentBytes": one.sent_bytes,
            }
            for one in pushed
        ],
    }
    lines = [
        f"Published {one.build.memory.id} ({one.build.memory.kind}) of {reference}: "
        f"{bytes_text(one.sent_bytes)} sent\nDigest: {one.build.digest}"
        for one in pushed
    ]
    return Answer(value, "\n".join(lines), "\n".join(str(one.build.digest) for one in pushed))


def lines_of(published: Published) -> list[str]:
    """What people read of a push."""
    from memcube.scanning.findings import scan_lines

    lines = [*_outcome(published), *(f"  {note}" for note in published.notes)]
    if published.scan and not published.unchanged:
        lines += scan_lines(published.scan)
    return [*lines, f"Digest: {published.cube.digest}"]


def _outcome(published: Published) -> list[str]:
    place, shown = published.reference, published.visibility
    if published.lacking:
        missing = f"{published.lacking} more have to sign before a tag is set"
        lines = [f"Attached 1 signature: {missing}", f"Next: memcube cosign {place}"]
        return lines + [f"Now {shown}"] * bool(shown)
    if published.unchanged:
        sent = f"{bytes_text(published.sent_bytes)} sent again" if published.sent_bytes else ""
        return [
            f"Unchanged {place}: {sent or 'nothing was sent'}" + (f"; now {shown}" if shown else "")
        ]
    # Signatures are sent as well: what was sent is no part of the cube's own size.
    sent = f"{bytes_text(published.sent_bytes)} sent with signatures"
    size = f"the cube has {bytes_text(published.cube.size)}"
    return [
        f"Published {place}: {sent}, {size}" + (f"; {shown}" if shown else ""),
        f"Tags: {', '.join(published.tags)}",
        f"Signed by: {published.key_id}",
        *([f"Made by: {published.job.subject} at {published.job.issuer}"] if published.job else []),
    ]
