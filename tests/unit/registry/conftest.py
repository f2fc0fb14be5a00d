"""Fixtures of the registry's unit tests: a migrated database of each kind, and people with tokens."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from memcube_registry.accounts import service, tokens
from memcube_registry.accounts.models import Account
from memcube_registry.accounts.scopes import parse_scopes
from memcube_registry.database import Database, utc_now
from support.postgres import migrated_url


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty SQLite database with every table, to copy: migrating takes longer than most tests."""
    path = tmp_path_factory.mktemp("migrated") / "registry.db"
    made = Database(f"sqlite:///{path}")
    made.migrate()
    with made.engine.connect() as connection:
        connection.exec_driver_sql("COMMIT")
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    made.close()
    return path


@pytest.fixture
def sqlite_url(tmp_path: Path, migrated: Path) -> str:
    """URL of an SQLite database with every table: for what does not depend on the database."""
    return f"sqlite:///{shutil.copy(migrated, tmp_path / 'registry.db')}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of a database with every table; the test runs on each kind."""
    if request.param == "sqlite":
        yield request.getfixturevalue("sqlite_url")
        return
    with migrated_url() as url:
        yield url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A database with every table; the test runs on each kind."""
    made = Database(database_url)
    yield made
    made.close()


@pytest.fixture
def new_account(database: Database) -> Callable[[str], Account]:
    """Makes people."""

    def make(name: str) -> Account:
        with database.write() as session:
            return service.create_account(session, name)

    return make


@pytest.fixture
def new_token(database: Database) -> Callable[..., str]:
    """Makes tokens of an account."""

    def make(account: Account, scopes: str = "pull push delete") -> str:
        with database.write() as session:
            return tokens.create_token(
                session, account, "test", parse_scopes(scopes), now=utc_now()
            )[0]

    return make
