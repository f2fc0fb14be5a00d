"""Finds and runs the migrations: they travel in the wheel, or stand at the root of a checkout."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from alembic.config import Config
from alembic.script import ScriptDirectory
from memcube_protocol.errors import StorageError
from sqlalchemy import Connection, Engine

from alembic import command

BASE: Final = "base"
# Alembic keeps the running migration in global variables; between processes the database decides.
_ONE_AT_A_TIME: Final = threading.Lock()
_PACKAGE: Final = Path(__file__).resolve().parents[1]


def migrations_folder() -> Path:
    """The folder of the migrations.

    Raises:
        StorageError: the installation holds none.
    """
    for folder in (_PACKAGE / "migrations", _PACKAGE.parents[1] / "alembic"):
        if (folder / "env.py").is_file():
            return folder
    raise StorageError(
        "this installation of memcube holds no database migrations",
        hint="install memcube again: pip install --force-reinstall 'memcube[registry]'",
    )


def migrate(engine: Engine, revision: str) -> None:
    """Bring the schema behind `engine` to `revision`, up or (to `base`) down.

    `engine` begins SQLite's transactions as writes, so that two processes migrate in turn.
    """
    config = configuration()
    with _ONE_AT_A_TIME, engine.connect() as connection, _without_foreign_keys(connection):
        config.attributes["connection"] = connection
        if revision == BASE:
            command.downgrade(config, revision)
        else:
            command.upgrade(config, revision)


@contextmanager
def _without_foreign_keys(connection: Connection) -> Iterator[None]:
    """SQLite changes a table by making it anew; the rows that refer to it must not go with the old one."""
    if connection.dialect.name != "sqlite":
        yield
        return
    # Inside a transaction, which SQLAlchemy would begin, this pragma does nothing.
    driver = connection.connection.driver_connection
    assert driver is not None, "the connection is open"
    driver.execute("PRAGMA foreign_keys = OFF")
    try:
        yield
    finally:
        driver.execute("PRAGMA foreign_keys = ON")


def configuration() -> Config:
    """Alembic's configuration, without a file of its own."""
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    return config


def newest_revision() -> str:
    """The revision of the tables as this version of memcube knows them."""
    newest = ScriptDirectory.from_config(configuration()).get_current_head()
    assert newest is not None, "there is a migration"
    return newest
