"""`memcube keys sign|publish`: key documents that several people sign, each on a machine of their own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from memcube.cli.answer import Answer
from memcube.cli.command import command
from memcube.cli.options import open_client

if TYPE_CHECKING:
    from memcube_signing.authority.proposal import Proposal

    from memcube.context import Context

_FILE = click.Path(dir_okay=False, path_type=Path)


@command("sign", "memcube keys sign acme.keys", "memcube keys sign acme.keys --key safe")
@click.argument("file", type=_FILE)
@click.option(
    "--key",
    "signing",
    metavar="NAME",
    multiple=True,
    default=("default",),
    show_default=True,
    help="Sign with this key; repeat it.",
)
def sign(file: Path, signing: tuple[str, ...]) -> Answer:
    """Sign the change of keys that FILE proposes, and show it. Needs no network.

    Somebody wrote FILE with --output, for instance of memcube keys rotate. Read what is shown: it takes
    effect when enough have signed and somebody publishes it.
    """
    from memcube import key_proposals
    from memcube.cli.commands.namespace_keys import signers_named

    with open_client() as client:
        signers = signers_named(client.context, signing)
        return answer_about(client.context, key_proposals.sign(file, signers), file)


@command(
    "publish",
    "memcube keys publish acme.keys",
    "memcube keys publish signed-by-ann.keys signed-by-ben.keys",
    "memcube keys publish acme",
)
@click.argument("what", nargs=-1, required=True, metavar="FILE…|NAMESPACE")
def publish(what: tuple[str, ...]) -> Answer:
    """Publish a change of keys that enough have signed: FILE, or several copies with a signature each.

    With a NAMESPACE, publish again what is known of it, and enter into the registry's log what is not
    there yet.
    """
    from memcube import key_proposals, key_registry
    from memcube.cli.commands.namespace_keys import answer_of, place_of

    paths = [Path(name) for name in what]
    with open_client() as client:
        if len(paths) == 1 and not paths[0].is_file() and not paths[0].suffix:
            made = key_registry.resend(client.context, place_of(client.context, what[0]))
        else:
            made = key_proposals.publish(client.context, paths)
    return answer_of(made)


def answer_about(context: Context, proposal: Proposal, file: Path) -> Answer:
    """What `proposal` would change, who has signed it, and whether that is enough as far as known here."""
    from memcube.cli.commands.namespace_keys import lines_of, value_of
    from memcube.key_proposals import is_complete

    document, complete = proposal.document, is_complete(context, proposal)
    before = context.authorities.load(document.authority)
    lines = ["now, as far as known here:", *lines_of(before.current)] if before else []
    lines += ["proposed:", *lines_of(document)]
    lines += [f"  signed by: {key_id}" for key_id in sorted(proposal.key_ids)]
    if complete:
        lines.append(f"Enough have signed: memcube keys publish {file}")
    else:
        lines.append(f"Not enough have signed yet: memcube keys sign {file}")
    value = {
        "file": str(file),
        "document": value_of(document),
        "signedBy": sorted(proposal.key_ids),
        "complete": complete,
    }
    return Answer(value, "\n".join(lines), str(document.digest))
