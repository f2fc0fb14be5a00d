"""`memcube cp`: copy a cube with its signatures and builds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from memcube.cli.answer import Answer
from memcube.cli.command import command
from memcube.cli.options import open_client, trust_of, trust_options
from memcube.figures import bytes_text, count_text

if TYPE_CHECKING:
    from memcube.copying.registries import Copied


@command(
    "cp",
    "memcube cp alice/notes:1.0.0 bob/notes",
    "memcube cp registry.example/alice/notes:1.0.0 mirror.example/alice/notes",
    "memcube cp registry.example/alice/notes:1.0.0 bob/notes --public",
    "memcube cp alice/notes:1.0.0 hf://alice/notes",
    "memcube cp alice/notes:1.0.0 oci:/media/stick/notes",
    "memcube cp --all-tags registry.example/alice/notes mirror.example/alice/notes",
)
@click.argument("source")
@click.argument("target")
@click.option("--all-tags", "-a", is_flag=True, help="Copy every version and every other tag.")
@click.option("--no-builds", is_flag=True, help="Leave builds, and what is attested to them.")
@click.option(
    "--public/--private",
    "public",
    default=None,
    help="Who may read the copy. Default: as it is; private.",
)
@click.option(
    "--yes",
    is_flag=True,
    help="Let everybody read it although its governance says confidential or personal.",
)
@trust_options
def cp(
    source: str,
    target: str,
    all_tags: bool,
    no_builds: bool,
    public: bool | None,
    yes: bool,
    trust_mode: str,
    accept_publisher: str | None,
    accept_origin: str | None,
    accept_rollback: bool,
) -> Answer:
    """Copy the cube SOURCE with its signatures and builds to TARGET.

    The copy keeps its origin, and the target has its own readers (--public, --private). What the target has is not sent again; within one registry blobs are
    mounted, and between two they stream through this machine; what goes to the Hub is kept on the way.
    Either may be a folder, oci:FOLDER[:TAG], as skopeo and oras read and write it.
    """
    from memcube.copying.registries import CopyTerms
    from memcube.publishing.exposure import Exposure
    from memcube.publishing.visibility import visibility_of

    terms = CopyTerms(
        trust=trust_of(trust_mode, accept_publisher, accept_origin, accept_rollback),
        builds=not no_builds,
        exposure=Exposure(visibility_of(public), confidential=yes),
    )
    with open_client() as client:
        if not all_tags:
            copied = client.cp(source, target, **terms)
            return Answer(_value(copied), _text(copied), str(copied.digest))
        found = list(client.cp_all(source, target, **terms))
    text = "\n".join(map(_text, found)) or f"{source} has no tags"
    quiet = "\n".join(str(copied.digest) for copied in found)
    return Answer({"copies": [_value(copied) for copied in found]}, text, quiet)


def _value(copied: Copied) -> dict[str, Any]:
    return {
        "reference": str(copied.reference),
        "digest": str(copied.digest),
        "attached": copied.attached,
        "sentBytes": copied.moved.sent_bytes,
        "mountedBytes": copied.moved.mounted_bytes,
        "changed": copied.changed,
    }


def _text(copied: Copied) -> str:
    attached = count_text(copied.attached, "attached manifest")
    if not copied.changed:
        return f"{copied.reference} is there already, {attached}\nDigest: {copied.digest}"
    sent = f"{bytes_text(copied.moved.sent_bytes)} sent"
    mounted = copied.moved.mounted_bytes
    moved = f"{sent}, {bytes_text(mounted)} mounted" if mounted else sent
    return f"Copied to {copied.reference}: {moved}, {attached}\nDigest: {copied.digest}"
