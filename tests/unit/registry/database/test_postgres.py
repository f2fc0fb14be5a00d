"""PostgreSQL refuses, stalls, ends and comes back: each has its error, and nothing is done twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from memcube_protocol.errors import ConflictError, UnavailableError, outcome_of
from memcube_registry.accounts.models import Account
from memcube_registry.accounts.service import create_account
from memcube_registry.database import Database, postgres
from memcube_registry.database import database as databases
from memcube_registry.database.postgres import NAME, Options
from memcube_registry.settings import Settings
from sqlmodel import Session, col, select, text, update
from support.postgres import Cluster, migrated_url, own_cluster

SOON_S = 30
BRIEF_S = 0.2
"""A limit that is to be reached. On a busy machine what is no part of a test may reach it, too."""


@pytest.fixture
def url() -> Iterator[str]:
    with migrated_url() as made:
        yield made


@pytest.fixture
def open_database(url: str) -> Iterator[Callable[..., Database]]:
    """Opens the database with options, and closes it in the end."""
    opened: list[Database] = []

    def make(**options: float) -> Database:
        opened.append(Database(url, Options(**options)))  # type: ignore[arg-type]
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def sleep(session: Session, seconds: float) -> None:
    session.connection().execute(text("SELECT pg_sleep(:seconds)"), {"seconds": seconds})


def people(database: Database, *names: str) -> None:
    with database.write() as session:
        for name in names:
            create_account(session, name)


def add(session: Session, name: str, count: int = 1) -> None:
    session.execute(
        update(Account)
        .where(col(Account.name) == name)
        .values(used_bytes=col(Account.used_bytes) + count)
    )


def within_limits(act: Callable[[], None]) -> None:
    """`act`, again as long as it reaches a limit that is too brief for a busy machine."""
    deadline_s = time.monotonic() + SOON_S
    while True:
        try:
            return act()
        except UnavailableError:
            assert time.monotonic() < deadline_s


def counted(database: Database, name: str) -> int:
    with database.read() as session:
        return session.exec(select(Account.used_bytes).where(Account.name == name)).one()


def test_two_that_wait_for_one_another_both_succeed(
    open_database: Callable[..., Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL looks for a deadlock after a second: however slow the machine, no other limit comes first.

    Nor does that for connecting, which else ends one of the two where a machine takes 5 s for it.
    """
    patience_s = 10 * SOON_S
    monkeypatch.setattr(databases, "RETRY_S", patience_s)
    database = open_database(
        connect_timeout_s=patience_s, lock_timeout_s=0, statement_timeout_s=0, idle_timeout_s=0
    )
    people(database, "ada", "bob")
    both_hold_one = threading.Barrier(2)
    calls: list[str] = []

    def cross(first: str, second: str) -> None:
        def work(session: Session) -> None:
            add(session, first)
            calls.append(first)
            if len(calls) <= 2:
                both_hold_one.wait(patience_s)
            add(session, second)

        database.run(work)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(cross, ["ada", "bob"], ["bob", "ada"]))
    assert len(calls) > 2, "nobody had to begin anew: this was no deadlock"
    assert [counted(database, name) for name in ("ada", "bob")] == [2, 2]


def test_a_statement_that_takes_too_long_is_ended(open_database) -> None:
    """And nothing else: its connection is good for the next one."""
    database = open_database(connections=1, statement_timeout_s=BRIEF_S)
    with pytest.raises(UnavailableError) as refusal:
        database.run(lambda session: sleep(session, SOON_S))
    assert outcome_of(refusal.value).http_status == 503
    with pytest.raises(UnavailableError), database.read() as session:
        sleep(session, SOON_S)
    within_limits(lambda: people(database, "ada"))


def test_a_lock_that_does_not_come_free_is_given_up(open_database) -> None:
    database, patient = open_database(lock_timeout_s=BRIEF_S), open_database(idle_timeout_s=0)
    people(patient, "ada")
    with patient.write() as session:
        add(session, "ada")
        with pytest.raises(UnavailableError):
            database.run(lambda other: add(other, "ada"))
    assert counted(database, "ada") == 1


def test_a_transaction_that_does_nothing_is_ended_and_changes_nothing(open_database) -> None:
    database, patient = open_database(idle_timeout_s=BRIEF_S), open_database()
    people(patient, "ada")

    def dawdle() -> None:
        with database.write() as session:
            add(session, "ada")
            deadline = time.monotonic() + SOON_S
            while is_in_transaction() and time.monotonic() < deadline:
                time.sleep(0.05)
            add(session, "ada")

    def is_in_transaction() -> bool:
        query = (
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE state = 'idle in transaction' AND datname = current_database()"
        )
        with patient.glance() as connection:
            return bool(connection.execute(text(query)).scalar_one())

    with pytest.raises(UnavailableError):
        dawdle()
    assert counted(patient, "ada") == 0


def test_who_finds_every_connection_taken_is_told_to_come_again(open_database) -> None:
    database = open_database(connections=2, lock_timeout_s=BRIEF_S, idle_timeout_s=0)
    with database.read() as one, database.read() as two:
        for session in (one, two):
            session.connection()
        with pytest.raises(UnavailableError):
            people(database, "ada")
    people(database, "ada")


def test_the_limits_come_from_the_settings(url: str, tmp_path) -> None:
    settings = Settings(
        data_dir=tmp_path,
        database_url=url,
        postgres_statement_timeout_s=1.5,
        postgres_lock_timeout_s=0,
        postgres_idle_timeout_s=7,
    )
    database = Database.of(settings)
    names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
    with database.read() as session:
        shown = [session.connection().execute(text(f"SHOW {name}")).scalar_one() for name in names]
        called = session.connection().execute(text("SHOW application_name")).scalar_one()
    database.close()
    assert shown == ["1500ms", "0", "7s"]
    assert called == NAME


def test_what_is_read_again_and_again_is_prepared_once(open_database) -> None:
    """Also where it is refused: at a ROLLBACK, psycopg would forget what it prepared."""
    database = open_database(connections=1)

    def read() -> None:
        with database.read() as session:
            session.connection().execute(text("SELECT 'again and again'"))
            raise ConflictError("refused", hint="none")

    for _ in range(12):
        with pytest.raises(ConflictError):
            read()
    prepared = "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%again and%'"
    with database.glance() as connection:
        assert connection.execute(text(prepared)).scalar_one() == 1


def test_a_glance_leaves_no_transaction_open(open_database) -> None:
    database = open_database(connections=1)
    query = text("SELECT state FROM pg_stat_activity WHERE pid = :pid")
    with database.glance() as connection:
        pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
        with open_database().glance() as other:
            assert other.execute(query, {"pid": pid}).scalar_one() == "idle"


@pytest.mark.parametrize("rest_s", [0.0, 60.0], ids=["rested", "was just used"])
def test_a_connection_that_was_ended_in_the_pool_is_replaced(
    open_database, monkeypatch: pytest.MonkeyPatch, rest_s: float
) -> None:
    monkeypatch.setattr(postgres, "_REST_S", rest_s)
    database, other = open_database(connections=1), open_database()
    with database.read() as session:
        before = session.connection().execute(text("SELECT pg_backend_pid()")).scalar_one()
    with other.glance() as connection:
        ended = connection.execute(
            text("SELECT pg_terminate_backend(:pid, 30000)"), {"pid": before}
        )
        assert ended.scalar_one()
    with database.read() as session:
        after = session.connection().execute(text("SELECT pg_backend_pid()")).scalar_one()
    assert after != before


def test_a_taken_key_is_a_conflict_and_not_tried_for_long(open_database) -> None:
    database = open_database()
    calls = 0

    def work(session: Session) -> None:
        nonlocal calls
        calls += 1
        session.add(Account(name="ada", skeleton=f"ada{calls}"))
        session.flush()

    database.run(work)
    calls = 1
    with pytest.raises(ConflictError):
        database.run(work)
    assert calls < 10


def test_a_read_whose_connection_is_lost_says_so_and_the_next_one_succeeds(open_database) -> None:
    database = open_database(connections=1)
    with pytest.raises(UnavailableError), database.read() as session:
        session.connection().execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
    with database.read() as session:
        assert session.connection().scalar(text("SELECT 1")) == 1


def test_a_connection_that_was_closed_in_the_pool_is_replaced(open_database) -> None:
    database = open_database(connections=1)
    with database.read() as session:
        driver = session.connection().connection.driver_connection
    driver.close()
    with database.read() as session:
        assert session.connection().scalar(text("SELECT 1")) == 1


def test_work_whose_connection_is_lost_is_not_done_again(open_database) -> None:
    """Its commit may have been heard: only who asked knows whether it may be repeated."""
    database = open_database()
    people(database, "ada")
    calls = []

    def work(session: Session) -> None:
        calls.append(1)
        add(session, "ada")
        session.connection().execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    with pytest.raises(UnavailableError):
        database.run(work)
    assert calls == [1]
    assert counted(database, "ada") == 0


class TestOutage:
    @pytest.fixture
    def cluster(self) -> Iterator[Cluster]:
        with own_cluster() as made:
            yield made

    @pytest.fixture
    def database(self, cluster: Cluster) -> Iterator[Database]:
        made = Database(cluster.url(cluster.create()))
        made.migrate()
        yield made
        made.close()

    def test_is_unavailable_and_over_without_a_new_pool(
        self, cluster: Cluster, database: Database
    ) -> None:
        people(database, "ada")
        for how in ("immediate", "fast"):
            cluster.stop(how)
            with pytest.raises(UnavailableError):
                counted(database, "ada")
            with pytest.raises(UnavailableError):
                database.run(lambda session: add(session, "ada"))
            cluster.start()
            assert counted(database, "ada") == 0, "the first try after it succeeds"

    def test_under_load_loses_nothing_that_was_acknowledged(
        self, cluster: Cluster, database: Database
    ) -> None:
        people(database, *(f"person{number}" for number in range(4)))
        acknowledged, unknown = [0] * 4, [0] * 4
        finished = threading.Event()

        def work(number: int) -> None:
            while not finished.is_set():
                try:
                    database.run(lambda session: add(session, f"person{number}"))
                    acknowledged[number] += 1
                except UnavailableError:
                    unknown[number] += 1
                    time.sleep(0.02)

        def wait_for_more() -> None:
            before, deadline = list(acknowledged), time.monotonic() + SOON_S
            while any(now < then + 5 for now, then in zip(acknowledged, before, strict=True)):
                assert time.monotonic() < deadline
                time.sleep(0.01)

        with ThreadPoolExecutor(4) as pool:
            running = [pool.submit(work, number) for number in range(4)]
            try:
                for _ in range(3):
                    wait_for_more()
                    cluster.stop()
                    cluster.start()
                wait_for_more()
            finally:
                finished.set()
            for one in running:
                one.result()
        for number in range(4):
            found = counted(database, f"person{number}")
            assert acknowledged[number] <= found <= acknowledged[number] + unknown[number]
        assert sum(unknown)
