"""`memcube keys sign|publish`: key documents that several people sign, each on a machine of their own."""

from __future__ import annotations

from pathlib import Path

import click

from memcube.cli.answer import Answer
from memcube.cli.command import command
from memcube.cli.documents import answer_about, answer_of, place_of, signers_named
from memcube.cli.options import open_client

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
    from memcube.keys import proposals

    with open_client() as client:
        signers = signers_named(client.context, signing)
        return answer_about(client.context, proposals.sign(file, signers), file)


@command(
    "publish",
    "memcube keys publish acme.keys",
    "memcube keys publish signed-by-ann.keys signed-by-ben.keys",
    "memcube keys publish acme",
)
@click.argument("what", nargs=-1, required=True, metavar="FILE…|NAMESPACE")
def publish(what: tuple[str, ...]) -> Answer:
    """Publish a change of keys that enough people signed: FILE, or several copies with a signature each.

    With a NAMESPACE, publish again what is known of it, and enter into the registry's log what is not
    there yet.
    """
    from memcube.keys import documents, proposals

    paths = [Path(name) for name in what]
    with open_client() as client:
        if len(paths) == 1 and not paths[0].is_file() and not paths[0].suffix:
            made = documents.resend(client.context, place_of(client.context, what[0]))
        else:
            made = proposals.publish(client.context, paths)
        return answer_of(client.context, made)
