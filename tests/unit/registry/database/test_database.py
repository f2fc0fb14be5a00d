"""Sessions lose no write, see one snapshot, and turn the database's refusals into ours."""

from __future__ import annotations

import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone

import pytest
from memcube_protocol.errors import (
    ConflictError,
    DiskFullError,
    InvalidRequestError,
    InvalidSettingError,
    NotFoundError,
    StorageError,
)
from memcube_registry.accounts.models import Account
from memcube_registry.accounts.service import account_named, add_usage, create_account
from memcube_registry.accounts.tokens import revoke_token
from memcube_registry.database import Database
from sqlalchemy.exc import IntegrityError, StatementError
from sqlmodel import Session, select
from support.postgres import postgres_url


def count_up(session: Session) -> None:
    account = session.exec(select(Account)).one()
    account.used_bytes += 1
    session.add(account)


def test_no_concurrent_increment_is_lost(database: Database) -> None:
    with database.write() as session:
        create_account(session, "ada")
    failures: list[Exception] = []

    def work() -> None:
        try:
            for _ in range(10):
                database.run(count_up)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.read() as session:
        counted = session.exec(select(Account)).one().used_bytes
    assert failures == []
    assert counted == 40


def test_a_write_that_raises_changes_nothing(database: Database) -> None:
    def change_my_mind() -> None:
        with database.write() as session:
            create_account(session, "ada")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        change_my_mind()
    with database.read() as session:
        assert session.exec(select(Account)).all() == []


def test_what_a_reader_changes_is_never_kept(sqlite_url: str) -> None:
    database = Database(sqlite_url)
    with database.read() as session:
        create_account(session, "ada")
    with database.read() as session:
        assert session.exec(select(Account)).all() == []
    database.close()


def test_a_reader_sees_one_snapshot_while_others_write(database: Database) -> None:
    with database.write() as session:
        account_id = create_account(session, "ada").id
    assert account_id is not None
    with database.read() as session:
        before = session.exec(select(Account.used_bytes)).one()
        database.run(lambda s: add_usage(s, account_id, 5))
        assert session.exec(select(Account.used_bytes)).one() == before
    with database.read() as session:
        assert session.exec(select(Account.used_bytes)).one() == before + 5


def test_a_write_that_comes_second_is_a_conflict_on_postgresql() -> None:
    database = Database(postgres_url())
    database.migrate()
    with database.write() as session:
        create_account(session, "ada")

    def come_second() -> None:
        with database.write() as session:
            session.exec(select(Account)).one()
            other = threading.Thread(target=lambda: database.run(count_up))
            other.start()
            other.join()
            count_up(session)

    with pytest.raises(ConflictError):
        come_second()
    database.close()


@pytest.mark.parametrize("statement", ["SELECT absent FROM account", "SELECT 1 FROM absent"])
def test_tables_of_another_version_are_told_as_such(database: Database, statement: str) -> None:
    with pytest.raises(StorageError, match="not those of this version") as refused:  # noqa: SIM117
        with database.read() as session:
            session.connection().exec_driver_sql(statement)
    assert "memcube-registry migrate" in str(refused.value.hint)


def test_foreign_keys_hold(database: Database) -> None:
    from memcube_registry.catalog.models import Repository

    def orphan(session: Session) -> None:
        session.add(Repository(name="ada/x", account_id=12345))

    with pytest.raises((IntegrityError, ConflictError)):
        database.run(orphan)


def test_instants_come_back_in_utc_whatever_zone_they_were_given_in(database: Database) -> None:
    given = datetime(2030, 6, 1, 12, 0, 0, 123456, tzinfo=timezone(timedelta(hours=8)))
    with database.write() as session:
        create_account(session, "ada").created_at = given
    with database.read() as session:
        found = session.exec(select(Account)).one().created_at
    assert found == given
    assert found.tzinfo is UTC or found.utcoffset() == timedelta(0)


def test_an_instant_without_a_zone_is_refused(database: Database) -> None:
    with pytest.raises(StatementError, match="time zone"), database.write() as session:
        create_account(session, "ada").created_at = datetime(2030, 1, 1)  # noqa: DTZ001


@pytest.mark.parametrize(
    "url", ["", "nonsense", "mysql://localhost/x", "sqlite://", "sqlite:///:memory:", "http://x/y"]
)
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(InvalidSettingError):
        Database(url)


def test_the_error_of_a_url_does_not_show_its_password() -> None:
    with pytest.raises(InvalidSettingError) as refusal:
        Database("mysql://root:hunter2@localhost/x")
    assert "hunter2" not in str(refusal.value)


def test_what_no_column_could_hold_is_the_requests_mistake_and_not_ours(database: Database) -> None:
    # SQLite looks for a text with a NUL, and finds none.
    with pytest.raises((InvalidRequestError, NotFoundError)), database.read() as session:
        account_named(session, "ada\0")
    for number in (1 << 63, 10**30):
        with pytest.raises(InvalidRequestError):
            database.run(
                lambda session, n=number: revoke_token(session, 1, n, now=datetime.now(UTC))
            )


def test_a_full_disk_is_said_so_and_changes_nothing(sqlite_url: str) -> None:
    with closing(Database(sqlite_url)) as database:
        database.migrate()

        def fill(session: Session) -> None:
            # A limit of SQLite's own is refused as a full disk is.
            session.connection().exec_driver_sql("PRAGMA max_page_count = 1")
            for number in range(1000):
                create_account(session, f"account-{number}")
                session.flush()

        with pytest.raises(DiskFullError, match="no space is left for the database"):
            database.run(fill)
        with database.read() as session:
            assert session.exec(select(Account)).all() == []
