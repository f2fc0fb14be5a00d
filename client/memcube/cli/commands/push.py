"""`memcube push`: pack, sign and publish a cube."""

from __future__ import annotations

import click

from memcube.cli.answer import Answer
from memcube.cli.command import command
from memcube.cli.options import open_client, trust_of, trust_options
from memcube.cli.words import bytes_text


@command(
    "push",
    "memcube push my-cube",
    "memcube push notes alice/notes:1.0.0 --public",
    "memcube push alice/notes:1.0.0 registry.example/alice/notes",
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
@trust_options
def push(
    source: str,
    reference: str | None,
    key: str | None,
    public: bool | None,
    no_scan: bool,
    allow_findings: bool,
    trust_mode: str,
    accept_publisher: str | None,
    accept_origin: str | None,
    accept_rollback: bool,
) -> Answer:
    """Publish SOURCE: a folder, which is packed first, or a cube packed before.

    Its name and version come from memcube.toml, or from REFERENCE. The release is signed, and the
    tags are set last: the full version, then 1.4, 1 and latest where no newer version has them.
    Pushing the same again changes nothing; an interrupted push goes on where it stopped.
    """
    from memcube.vetting import Vetting, scan_lines

    trust = trust_of(trust_mode, accept_publisher, accept_origin, accept_rollback)
    with open_client() as client:
        published = client.push(
            source,
            reference,
            key=key,
            public=public,
            trust=trust,
            vet=Vetting(not no_scan, allow_findings),
        )
    cube, place = published.cube, published.reference
    value = {
        "reference": str(place),
        "digest": str(cube.digest),
        "tags": list(published.tags),
        "unchanged": published.unchanged,
        "sentBytes": published.sent_bytes,
        "size": cube.size,
        "keyId": published.key_id,
        "lacking": published.lacking,
        "findings": dict(published.scan.counts) if published.scan else None,
    }
    if published.lacking:
        text = (
            f"Attached 1 signature: {published.lacking} more have to sign before a tag is set\n"
            f"Next: memcube cosign {place}"
        )
    elif published.unchanged:
        text = f"Unchanged {place}: nothing was sent"
    else:
        sent = f"{bytes_text(published.sent_bytes)} sent of {bytes_text(cube.size)}"
        tags = ", ".join(published.tags)
        text = f"Published {place}: {sent}\nTags: {tags}\nSigned by: {published.key_id}"
    if published.scan and not published.unchanged:
        text = "\n".join([text, *scan_lines(published.scan)])
    return Answer(value, f"{text}\nDigest: {cube.digest}", str(cube.digest))
