"""Finds and runs the migrations: they travel in the wheel, or stand at the root of a checkout."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from alembic.config import Config
from memcube_protocol.errors import StorageError
from sqlalchemy import Engine

from alembic import command

BASE: Final = "base"
_PACKAGE: Final = Path(__file__).resolve().parent


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
    """Bring the schema behind `engine` to `revision`, up or (to `base`) down."""
    config = configuration()
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        if revision == BASE:
            command.downgrade(config, revision)
        else:
            command.upgrade(config, revision)


def configuration() -> Config:
    """Alembic's configuration, without a file of its own."""
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    return config
