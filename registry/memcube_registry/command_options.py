"""What the registry's commands share: options that say which registry is meant, its database, tables."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from memcube_registry.checking.content import Sample
    from memcube_registry.database import Database
    from memcube_registry.settings import Settings

FOLDER: Final = click.Path(path_type=Path)
_PLACES: Final = (
    click.option("--config", type=FOLDER, help="TOML file with settings."),
    click.option("--data", "data_dir", type=FOLDER, help="Folder of the database and the blobs."),
    click.option("--database-url", help="sqlite:///FILE or postgresql://…"),
)
_READING: Final = (
    click.option("--all", "everything", is_flag=True, help="Read and hash every blob."),
    click.option(
        "--sample",
        type=click.IntRange(0),
        default=256,
        show_default=True,
        help="How many blobs to read and hash, drawn at random; every blob's size is checked.",
    ),
    click.option(
        "--threads",
        type=click.IntRange(1, 64),
        default=4,
        show_default=True,
        help="How many blobs to read or copy at once.",
    ),
)


class WholeHelp(click.Group):
    """A group that lists each command with its whole first sentence, which click would cut."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the commands."""
        rows = [(name, one.get_short_help_str(500)) for name, one in sorted(self.commands.items())]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def reading(command: Callable[..., None]) -> Callable[..., None]:
    """Options that say how much of the blobs is read."""
    for option in reversed(_READING):
        command = option(command)
    return command


def places(command: Callable[..., None]) -> Callable[..., None]:
    """Options that say which registry is meant; the command gets its `settings`, and logs to stderr."""

    @wraps(command)
    def with_settings(
        config: Path | None, data_dir: Path | None, database_url: str | None, **rest: Any
    ) -> None:
        from memcube_registry.observability.requests import configure_logging

        given = {"data_dir": data_dir, "database_url": database_url}
        settings = settings_of(config, given)
        configure_logging(settings.log_format, settings.log_level)
        command(settings, **rest)

    for option in reversed(_PLACES):
        with_settings = option(with_settings)
    return with_settings


def settings_of(config: Path | None, given: dict[str, Any]) -> Settings:
    """Settings from the file, the environment and those options that were given."""
    from memcube_registry.settings import load

    options = {name: value for name, value in given.items() if value is not None}
    return load(os.environ, file=config, options=options)


def existing_database(settings: Settings) -> Database:
    """The database of a registry that was started before: nothing is made here.

    Raises:
        NotFoundError: there is none.
    """
    from memcube_protocol.errors import NotFoundError
    from sqlalchemy import inspect

    from memcube_registry.database import Database

    database = Database.patient(settings)
    file = Path(database.url.database or "")
    is_there = not database.is_sqlite or file.is_file()
    if is_there:
        with database.read() as session:
            is_there = inspect(session.connection()).has_table("blob")
    if not is_there:
        database.close()
        raise NotFoundError(
            "there is no registry's database at this place",
            hint="name it with --data or --database-url; `memcube-registry settings` shows where it is",
        )
    return database


@contextmanager
def database_of(settings: Settings, *, may_be_new: bool = False) -> Iterator[Database]:
    """The registry's database, brought to this version; one that is not there is made if it may be new.

    Raises:
        NotFoundError: there is none, and it may not be new.
    """
    from memcube_registry.database import Database
    from memcube_registry.server import prepare

    if not may_be_new:
        existing_database(settings).close()
    prepare(settings)
    with closing(Database.of(settings)) as database:
        yield database


def sample_of(everything: bool, count: int, seed: int | None = None) -> Sample:
    """How many blobs are read whole: all, or `count` that `seed` draws, else chance."""
    import secrets

    from memcube_registry.checking.content import Sample

    return Sample(None if everything else count, secrets.randbits(32) if seed is None else seed)


def table_lines(numbers: Mapping[str, int]) -> list[str]:
    """A line for each number, with what it counts."""
    return [f"  {number:>12}  {what.replace('_', ' ')}" for what, number in numbers.items()]
