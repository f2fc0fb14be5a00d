"""The migrations lead to the models and back, on both databases."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import memcube_registry.tables  # noqa: F401 - the whole metadata
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from memcube_registry.database import Database
from sqlalchemy import inspect
from sqlmodel import SQLModel
from support.postgres import postgres_url

KINDS = ["sqlite", "postgresql"]


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'registry.db'}"
    return postgres_url()


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    database = Database(url)
    yield database
    database.close()


def differences(database: Database) -> list[object]:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, SQLModel.metadata))


def tables(database: Database) -> set[str]:
    return set(inspect(database.engine).get_table_names()) - {"alembic_version"}


def test_up_down_and_up_again_leads_to_the_models(database: Database) -> None:
    database.migrate()
    assert differences(database) == []
    assert tables(database) == set(SQLModel.metadata.tables)
    database.migrate("base")
    assert tables(database) == set()
    database.migrate()
    assert differences(database) == []


def test_migrating_twice_changes_nothing(database: Database) -> None:
    database.migrate()
    database.migrate()
    assert differences(database) == []


def test_two_processes_that_start_together_migrate_in_turn(url: str) -> None:
    code = (
        "import sys; from memcube_registry.database import Database as D; D(sys.argv[1]).migrate()"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, url]) for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    database = Database(url)
    assert differences(database) == []
    database.close()


def test_foreign_keys_are_enforced_after_a_migration(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'registry.db'}")
    database.migrate()
    with database.read() as session:
        assert session.connection().exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
    database.close()
