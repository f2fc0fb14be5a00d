"""Options that several commands share, and the client that they open."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from memcube.cli.answer import Mode

if TYPE_CHECKING:
    from memcube.client import Client
    from memcube.context import Trust

Function = TypeVar("Function", bound=Callable[..., Any])


@contextmanager
def open_client(*, offline: bool = False) -> Iterator[Client]:
    """The client of this user, with progress bars where a person watches."""
    from memcube.cli.bars import progress_for
    from memcube.client import Client
    from memcube.settings import Settings

    settings = Settings.load()
    if offline:
        settings = replace(settings, offline=True)
    mode = click.get_current_context().find_object(Mode) or Mode()
    with progress_for(mode) as progress, Client(settings, progress=progress) as client:
        yield client


def offline_option(function: Function) -> Function:
    """`--offline`: use the local store only."""
    option = click.option("--offline", is_flag=True, help="Use the local store only.")
    return option(function)


def filter_options(function: Function) -> Function:
    """`--filter` and `--for`; read them with `filters_of`."""
    for option in (
        click.option(
            "--for",
            "model",
            metavar="MODEL",
            help="Only what fits this model: a folder, a name, or a base identity.",
        ),
        click.option(
            "--filter",
            "filters",
            multiple=True,
            metavar="KEY=VALUE",
            help="Only kind=plaintext|activation|parametric|attachment, memory=ID, model=NAME.",
        ),
    ):
        function = option(function)
    return function


def filters_of(filters: tuple[str, ...], model: str | None) -> tuple[str, ...]:
    """The filters that `--filter` and `--for` ask for; a checkpoint's folder stands for its weights.

    Raises:
        NotFoundError, InvalidTensorsError: the folder holds no checkpoint, or a damaged one.
    """
    if model is None:
        return filters
    if Path(model).is_dir():
        from memcube.memories.model_identity import checkpoint_identity

        model = str(checkpoint_identity(Path(model)))
    return (*filters, f"model={model}")


def trust_options(function: Function) -> Function:
    """`--trust` and the `--accept-…` options; read them with `trust_of`."""
    for option in (
        click.option(
            "--accept-rollback", is_flag=True, help="Accept an older release through this tag."
        ),
        click.option(
            "--accept-origin", metavar="NAME", help="Accept a copy of the cube NAME here."
        ),
        click.option(
            "--accept-publisher", metavar="KEY_ID", help="Accept this key instead of the pinned."
        ),
        click.option(
            "--trust",
            "trust_mode",
            type=click.Choice(["enforce", "warn"]),
            default="enforce",
            show_default=True,
            help="Refuse cubes without a valid release statement, or only warn.",
        ),
    ):
        function = option(function)
    return function


def trust_of(
    trust_mode: str,
    accept_publisher: str | None,
    accept_origin: str | None,
    accept_rollback: bool,
) -> Trust:
    """What the trust options say."""
    from memcube.context import Trust
    from memcube.trust import Acceptance
    from memcube.trust import Mode as TrustMode

    accept = Acceptance(accept_publisher, accept_origin, accept_rollback)
    return Trust(TrustMode(trust_mode), accept)
