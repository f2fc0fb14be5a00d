"""`memcube keys announce|rotate|revoke|delegate|recover|history`: who may release in a namespace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from memcube.cli.answer import Answer
from memcube.cli.command import command
from memcube.cli.documents import answer_about, answer_of, place_of, signers_named
from memcube.cli.options import KeyId, open_client

if TYPE_CHECKING:
    from memcube_signing.authority.document import KeyDocument, Quorum
    from memcube_signing.keys import PublicKey, Signer

    from memcube.context import Context

Function = TypeVar("Function", bound=Callable[..., Any])
_TIME = click.DateTime(["%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d"])


def signing_options(function: Function) -> Function:
    """`--key` and `--output`: which keys of this machine sign, and whether others have to."""
    for option in (
        click.option(
            "--output",
            metavar="FILE",
            type=click.Path(dir_okay=False, path_type=Path),
            help="Publish nothing yet: write a proposal, for others to sign (memcube keys sign).",
        ),
        click.option(
            "--key",
            "signing",
            metavar="NAME",
            multiple=True,
            help="Sign with this key; repeat it. Default: the key called default, without --output.",
        ),
    ):
        function = option(function)
    return function


def charge_options(function: Function) -> Function:
    """`--to` and `--threshold`: who takes charge."""
    for option in (
        click.option(
            "--threshold",
            type=click.IntRange(1, 64),
            default=1,
            show_default=True,
            help="How many of them have to sign.",
        ),
        click.option(
            "--to",
            "to",
            metavar="KEY",
            multiple=True,
            help="A key that takes charge: a name here, or a PEM file; repeat it.",
        ),
    ):
        function = option(function)
    return function


@command(
    "announce",
    "memcube keys announce alice",
    "memcube keys announce acme --key ann --key ben --key cleo --threshold 2 --recovery safe.pub",
    "memcube keys announce acme --to ann.pub --to ben.pub --threshold 2 --output acme.keys",
)
@click.argument("namespace")
@charge_options
@signing_options
@click.option("--recovery", metavar="KEY", multiple=True, help="A key kept apart; repeat it.")
@click.option(
    "--recovery-threshold",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="How many of the recovery keys decide.",
)
def announce(
    namespace: str,
    to: tuple[str, ...],
    signing: tuple[str, ...],
    threshold: int,
    recovery: tuple[str, ...],
    recovery_threshold: int,
    output: Path | None,
) -> Answer:
    """Say publicly which keys release in NAMESPACE, so that they can be replaced later.

    These are the keys named by --to; without it, those that sign. Readers who pinned a key before accept
    this if that key signs, too.
    """
    from memcube.keys import changes

    signing = signing or (() if to else ("default",))
    with open_client() as client:
        context, place = client.context, place_of(client.context, namespace)
        signers = signers_named(context, (*signing, *to))
        quorum = _required(_quorum(context, to or signing, threshold))
        apart = _quorum(context, recovery, recovery_threshold)
        document = changes.first(context, place, quorum, recovery=apart)
        return _finish(context, document, signers, output)


@command(
    "rotate",
    "memcube keys rotate alice --to release-2027",
    "memcube keys rotate acme --to ann --to dora.pub --threshold 2 --key ben --output acme.keys",
)
@click.argument("namespace")
@charge_options
@signing_options
def rotate(
    namespace: str,
    to: tuple[str, ...],
    threshold: int,
    signing: tuple[str, ...],
    output: Path | None,
) -> Answer:
    """Put other keys in charge of NAMESPACE. A key named by --to that is not here is made.

    The old keys sign, and the new ones, too. What the old keys released stays valid.
    """
    from memcube.keys import changes

    with open_client() as client:
        place = place_of(client.context, namespace)
        quorum = _required(_quorum(client.context, to, threshold, make=True))
        signers = signers_named(client.context, (*_named(signing, output), *to))
        changed = changes.rotated(quorum)
        document = changes.following(client.context, place, changed)
        return _finish(client.context, document, signers, output)


@command(
    "revoke",
    "memcube keys revoke alice 012a00ad… --since 2026-02-27 --to release-2027",
    "memcube keys revoke acme 012a00ad… --since 2026-02-27T08:00:00Z --key ben --key cleo",
)
@click.argument("namespace")
@click.argument("key_id", type=KeyId())
@click.option(
    "--since",
    type=_TIME,
    required=True,
    help="UTC. What was not logged before this time is not believed any more.",
)
@charge_options
@signing_options
def revoke(
    namespace: str,
    key_id: str,
    since: datetime,
    to: tuple[str, ...],
    threshold: int,
    signing: tuple[str, ...],
    output: Path | None,
) -> Answer:
    """Declare the key KEY_ID stolen since a time, and take it out of charge of NAMESPACE.

    Name its replacement with --to, unless enough other keys stay in charge.
    """
    from memcube.keys import changes

    with open_client() as client:
        place = place_of(client.context, namespace)
        instead = _quorum(client.context, to, threshold, make=True)
        signers = signers_named(client.context, (*_named(signing, output), *to))
        changed = changes.revoked(key_id, since.replace(tzinfo=UTC), instead=instead)
        document = changes.following(client.context, place, changed)
        return _finish(client.context, document, signers, output)


@command(
    "delegate",
    "memcube keys delegate acme research 'research-*' --to team.pub",
    "memcube keys delegate acme research/eve research-birds --to eve.pub --key team",
    "memcube keys delegate acme research --end",
)
@click.argument("namespace")
@click.argument("role")
@click.argument("patterns", nargs=-1)
@charge_options
@signing_options
@click.option("--end", is_flag=True, help="End the role, and those below it.")
def delegate(
    namespace: str,
    role: str,
    patterns: tuple[str, ...],
    to: tuple[str, ...],
    threshold: int,
    signing: tuple[str, ...],
    end: bool,
    output: Path | None,
) -> Answer:
    """Allow the ROLE to release the cubes of NAMESPACE that PATTERNS name: a name, or its start and *.

    A role such as research/eve belongs to research, whose keys may change it.
    """
    from memcube.keys import changes

    with open_client() as client:
        place = place_of(client.context, namespace)
        quorum = None if end else _required(_quorum(client.context, to, threshold))
        signers = signers_named(client.context, _named(signing, output))
        changed = changes.delegated(role, patterns, quorum)
        document = changes.following(client.context, place, changed)
        return _finish(client.context, document, signers, output)


@command(
    "recover",
    "memcube keys recover alice --to new --key safe",
    "memcube keys recover acme --to new --key safe1 --key safe2 --overrules 4 "
    "--stolen 012a00ad… --since 2026-02-27",
)
@click.argument("namespace")
@charge_options
@signing_options
@click.option("--overrules", type=click.IntRange(2), help="Void the documents from this number on.")
@click.option("--stolen", type=KeyId(), metavar="KEY_ID", help="Revoke this key as well.")
@click.option("--since", type=_TIME, help="Since when it is not believed. Default: ever.")
def recover(
    namespace: str,
    to: tuple[str, ...],
    threshold: int,
    signing: tuple[str, ...],
    overrules: int | None,
    stolen: str | None,
    since: datetime | None,
    output: Path | None,
) -> Answer:
    """Take NAMESPACE back with its recovery keys, after a theft, a loss, or a fork."""
    from memcube.keys import changes

    with open_client() as client:
        place = place_of(client.context, namespace)
        quorum = _required(_quorum(client.context, to, threshold, make=True))
        signers = signers_named(client.context, (*signing, *to))
        moment = (since or datetime(1970, 1, 1)).replace(tzinfo=UTC)  # noqa: DTZ001
        changed = (
            changes.revoked(stolen, moment, instead=quorum) if stolen else changes.rotated(quorum)
        )
        document = changes.overruling(client.context, place, changed, overrules)
        return _finish(client.context, document, signers, output)


@command("history", "memcube keys history alice", "memcube keys history alice --json")
@click.argument("namespace")
def history(namespace: str) -> Answer:
    """Show who is, and was, in charge of NAMESPACE."""
    from memcube_protocol.errors import NotFoundError

    from memcube.keys import documents

    with open_client() as client:
        place = place_of(client.context, namespace)
        found = documents.refresh(client.context, place)
        if found is None:
            raise NotFoundError(
                f"{place} has no key documents",
                hint=f"whoever owns it can begin: memcube keys announce {namespace}",
            )
        return answer_of(client.context, found, *found.documents[:-1])


def _named(signing: tuple[str, ...], output: Path | None) -> tuple[str, ...]:
    """The keys that sign: of a proposal nobody who is not named."""
    return signing or (() if output else ("default",))


def _finish(
    context: Context, document: KeyDocument, signers: Sequence[Signer], output: Path | None
) -> Answer:
    """Publish `document`, or write it for others to sign."""
    from memcube.keys import documents, proposals

    if output is None:
        published = documents.publish(context, *documents.signed(document, signers))
        return answer_of(context, published)
    return answer_about(context, proposals.propose(document, signers, output), output)


def _quorum(
    context: Context, names: Sequence[str], threshold: int, *, make: bool = False
) -> Quorum | None:
    from memcube_signing.authority.document import Quorum

    if not names:
        return None
    return Quorum.of([_key(context, name, make=make) for name in names], threshold)


def _key(context: Context, name: str, *, make: bool) -> PublicKey:
    """The public key in the file `name`, or of the key called so here."""
    from memcube_protocol.errors import NotFoundError
    from memcube_signing.keys import PublicKey

    if Path(name).is_file():
        return PublicKey.from_pem(Path(name).read_text("ascii"))
    try:
        return context.keys.entry(name).public_key
    except NotFoundError:
        if not make:
            raise
    return context.keys.make(name).entry.public_key


def _required(quorum: Quorum | None) -> Quorum:
    if quorum is None:
        raise click.UsageError("name at least one key that takes charge: --to KEY")
    return quorum
