"""`memcube tag`: give a published cube one more tag."""

from __future__ import annotations

from dataclasses import replace

import click

from memcube.cli.answer import Answer
from memcube.cli.command import command
from memcube.cli.options import open_client, trust_of, trust_options


@command("tag", "memcube tag alice/notes:1.0.0 stable")
@click.argument("reference")
@click.argument("tag", metavar="TAG")
@click.option("-y", "--yes", is_flag=True, help="Move TAG back to an earlier release.")
@trust_options
def tag(
    reference: str,
    tag: str,
    yes: bool,
    trust_mode: str,
    accept_publisher: str | None,
    accept_origin: str | None,
    accept_rollback: bool,
) -> Answer:
    """Point TAG at the published cube REFERENCE, which is verified first.

    Full versions such as 1.4.0 never move; only `memcube push` makes them. A tag that points to a
    later release moves back only with --yes: readers take that for an attack.
    """
    trust = trust_of(trust_mode, accept_publisher, accept_origin, accept_rollback)
    with open_client() as client:
        tagged = client.tag(reference, tag, trust=trust, backwards=yes)
    place, digest = str(replace(tagged, digest=None)), str(tagged.digest)
    text = f"{place} now leads to {reference}\nDigest: {digest}"
    return Answer({"reference": place, "digest": digest}, text, digest)
