"""Options that several commands share, and the client that they open."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from memcube.cli.answer import Mode

if TYPE_CHECKING:
    from memcube.cli.bars import Pause, Watch
    from memcube.client import Client
    from memcube.context import Trust
    from memcube.trust import SigningKey

Function = TypeVar("Function", bound=Callable[..., Any])
_KEY_ID: Final = re.compile(r"[0-9a-f]{64}")


class Number(click.FloatRange):
    """A number between two others; click lets NaN through, which lies between none."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The number that `value` spells."""
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value} is no number.", param, ctx)
        return float(number)


class KeyId(click.ParamType[str]):
    """The id of a public key: 64 hexadecimal digits."""

    name = "key id"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        """`value` itself, if it has the form."""
        text = str(value)
        if _KEY_ID.fullmatch(text) is None:
            self.fail(f"{text[:80]!r} is not a key id: 64 hexadecimal digits", param, ctx)
        return text


@contextmanager
def open_client(*, offline: bool = False) -> Iterator[Client]:
    """The client of this user, with progress bars where a person watches."""
    from memcube.cli.bars import progress_for
    from memcube.client import Client
    from memcube.settings import Settings
    from memcube.trust import KeyStore

    settings = Settings.load()
    if offline:
        settings = replace(settings, offline=True)
    mode = click.get_current_context().find_object(Mode) or Mode()
    with progress_for(mode) as (progress, pause):
        keys = KeyStore.of(settings, ask=_asking(pause), tell=_tell_of_new_key)
        with Client(settings, progress=progress, keys=keys) as client:
            yield client


@contextmanager
def watching() -> Iterator[Watch]:
    """Bars for long work of this machine, where a person watches."""
    from memcube.cli.bars import steps_for

    mode = click.get_current_context().find_object(Mode) or Mode()
    with steps_for(mode) as watch:
        yield watch


def _asking(pause: Pause) -> Callable[[str], str] | None:
    """The terminal, without bars that would run over a question."""
    from memcube.trust import terminal

    ask = terminal()
    if ask is None:
        return None

    def asked(question: str) -> str:
        with pause():
            return ask(question)

    return asked


def _tell_of_new_key(made: SigningKey) -> None:
    from memcube.cli.answer import sanitised

    path = made.entry.path
    sys.stderr.write(sanitised(f"{made.message}\n"))
    sys.stderr.write(
        sanitised(
            f"keep a copy of both files, {path.name} and {path.stem}.pub: readers pin this key\n"
        )
    )


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
        from memcube.settings import Settings
        from memcube.store.checks import CHECKS_FILE, FileChecks

        checks = FileChecks(Settings.load().home / CHECKS_FILE)
        model = str(checkpoint_identity(Path(model), checks=checks))
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
            "--accept-publisher",
            type=KeyId(),
            metavar="KEY_ID",
            help="Accept this key instead of the pinned.",
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
    from memcube_protocol.reference import HUB_SCHEME, Reference

    from memcube.context import Trust
    from memcube.trust import Acceptance, location_of
    from memcube.trust import Mode as TrustMode

    if accept_origin and accept_origin.startswith(HUB_SCHEME):
        accept_origin = location_of(Reference.parse(accept_origin))
    accept = Acceptance(accept_publisher, accept_origin, accept_rollback)
    return Trust(TrustMode(trust_mode), accept)
