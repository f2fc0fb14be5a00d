"""`memcube yank` and `memcube deprecate`: withdraw a release that is published already."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from memcube.cli.answer import Answer
from memcube.cli.command import command
from memcube.cli.options import open_client

if TYPE_CHECKING:
    from memcube.publishing.withdrawing import Withdrawn

Function = TypeVar("Function", bound=Callable[..., Any])
REASONS: Final = (
    *("outdated", "wrong", "licence", "personal-data", "harmful", "compromised", "other"),
)


def status_options(function: Function) -> Function:
    """Options that both commands share."""
    for option in (
        click.option("--undo", is_flag=True, help="Say that the release may be used again."),
        click.option("--key", metavar="NAME", help="Sign with this key; it signed the release."),
        click.option("--use", "replacement", metavar="REF", help="What to use instead."),
        click.option("--message", metavar="TEXT", help="One line for those who use it."),
    ):
        function = option(function)
    return function


@command(
    "yank",
    'memcube yank alice/notes:1.0.0 --reason wrong --message "chapter two" --use alice/notes:1.0.1',
    "memcube yank alice/notes:1.0.0 --undo",
)
@click.argument("reference")
@click.option(
    "--reason", type=click.Choice(REASONS), default="wrong", show_default=True, help="Why."
)
@status_options
def yank(
    reference: str,
    reason: str,
    message: str | None,
    replacement: str | None,
    key: str | None,
    undo: bool,
) -> Answer:
    """Withdraw the release REFERENCE: moving tags no longer lead to it.

    Whoever asks for its full version or digest still gets it, with a warning, so that what depends
    on it keeps working; a release that is harmful, compromised or exposes personal data is always
    refused. Nothing is deleted.
    """
    return _state("active" if undo else "yanked", reference, reason, message, replacement, key)


@command(
    "deprecate",
    "memcube deprecate alice/notes:1.0.0 --use alice/notes:2.0.0",
    "memcube deprecate alice/notes:1.0.0 --undo",
)
@click.argument("reference")
@click.option(
    "--reason", type=click.Choice(REASONS), default="outdated", show_default=True, help="Why."
)
@status_options
def deprecate(
    reference: str,
    reason: str,
    message: str | None,
    replacement: str | None,
    key: str | None,
    undo: bool,
) -> Answer:
    """Advise against the release REFERENCE: whoever uses it gets a warning, and it still works."""
    return _state("active" if undo else "deprecated", reference, reason, message, replacement, key)


def _state(
    state: str,
    reference: str,
    reason: str,
    message: str | None,
    replacement: str | None,
    key: str | None,
) -> Answer:
    from memcube_protocol.reference import Reference
    from memcube_signing.predicates.status import Reason, State

    from memcube.publishing.withdrawing import set_status

    with open_client() as client:
        withdrawn = set_status(
            client.context,
            Reference.parse(reference),
            State(state),
            Reason(reason),
            message=message,
            replacement=replacement,
            key=key,
        )
    return _told(withdrawn)


def _told(withdrawn: Withdrawn) -> Answer:
    status = withdrawn.status
    value = {
        "reference": str(withdrawn.reference),
        "digest": str(status.subject),
        "version": status.version,
        "status": str(status.state),
        "reason": str(status.reason),
        "message": status.message,
        "replacement": status.replacement,
        "keyId": withdrawn.key_id,
    }
    text = f"{status.origin} {status.version} is {status.state}"
    return Answer(value, f"{text}\nSigned by: {withdrawn.key_id}", str(status.subject))
