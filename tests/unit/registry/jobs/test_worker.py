"""Workers: each job is done, by one of them at a time, whatever handlers raise and whoever stops."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from memcube_protocol.errors import StorageError
from memcube_registry.database import Database, utc_now
from memcube_registry.jobs import service
from memcube_registry.jobs.models import Job, State
from memcube_registry.jobs.worker import Handler, Task, Worker
from sqlmodel import select

SOON_S = 30
LATER = timedelta(hours=2)


def ask(database: Database, *subjects: str) -> None:
    for subject in subjects:
        database.run(lambda s, subject=subject: service.enqueue(s, "work", subject, utc_now()))


def rows(database: Database) -> list[Job]:
    with database.read() as session:
        return list(session.exec(select(Job).order_by(Job.id)))


def wait_until(holds: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + SOON_S
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


@pytest.fixture
def new_worker(database: Database) -> Iterator[Callable[..., Worker]]:
    """Makes workers with a handler, and stops them in the end."""
    made: list[Worker] = []

    def make(handler: Handler, **more) -> Worker:
        made.append(Worker(database, {"work": handler}, **more))
        return made[-1]

    yield make
    for one in made:
        one.stop()


def test_a_worker_does_what_is_asked_for_while_it_runs(database, new_worker) -> None:
    done: list[str] = []
    worker = new_worker(lambda task: done.append(task.subject))
    ask(database, "before")
    worker.start()
    wait_until(lambda: done == ["before"])
    ask(database, "after")
    wait_until(lambda: done == ["before", "after"])
    wait_until(lambda: rows(database) == [])


def test_a_job_is_done_at_once_where_somebody_waits_for_it(database, new_worker) -> None:
    done: list[str] = []
    worker = new_worker(lambda task: done.append(task.subject))
    ask(database, "one", "two")
    assert worker.do_now("work", "two")
    assert not worker.do_now("work", "two")
    assert done == ["two"]
    assert worker.work_off() == 1


def test_a_failure_is_noted_without_secrets_and_the_job_done_later(database, new_worker) -> None:
    tries: list[str] = []

    def handler(task: Task) -> None:
        tries.append(task.subject)
        if len(tries) == 1:
            raise StorageError("no room for mct_abcdefghijklmnop", hint="free some")

    now = utc_now()
    worker = new_worker(handler, clock=lambda _session: now)
    ask(database, "one")
    assert worker.work_off() == 1
    (row,) = rows(database)
    assert (row.state, row.error) == (State.QUEUED, "no room for [secret]")
    assert worker.work_off() == 0, "not before its pause is over"
    worker.clock = lambda _session: now + LATER
    assert worker.work_off() == 1
    assert rows(database) == []


def test_a_mistake_of_ours_ends_neither_the_worker_nor_the_other_jobs(database, new_worker) -> None:
    done: list[str] = []

    def handler(task: Task) -> None:
        if task.subject == "bad":
            raise KeyError("mistake")
        done.append(task.subject)

    outcomes: list[tuple[str, str]] = []
    now = utc_now()
    worker = new_worker(
        handler, seen=lambda *seen: outcomes.append(seen), clock=lambda _session: now
    )
    ask(database, "bad", "good")
    assert worker.work_off() == 2
    assert done == ["good"]
    assert outcomes == [("work", "failed"), ("work", "done")]
    (row,) = rows(database)
    assert row.error == "KeyError: 'mistake'"


def test_a_long_job_keeps_its_lease(database, new_worker) -> None:
    is_long_enough, begun = threading.Event(), threading.Event()

    def handler(_task: Task) -> None:
        begun.set()
        assert is_long_enough.wait(SOON_S)

    short = timedelta(seconds=0.6)
    worker = new_worker(handler, lease=short)
    ask(database, "one")
    worker.start()
    assert begun.wait(SOON_S)
    (first,) = rows(database)
    wait_until(lambda: rows(database)[0].leased_until > first.leased_until + 3 * short)
    assert rows(database)[0].lease == first.lease
    is_long_enough.set()
    wait_until(lambda: rows(database) == [])


def test_stopping_waits_for_the_job_that_runs_and_begins_no_other(database, new_worker) -> None:
    begun, may_end = threading.Event(), threading.Event()
    done: list[str] = []

    def handler(task: Task) -> None:
        begun.set()
        assert may_end.wait(SOON_S)
        done.append(task.subject)

    worker = new_worker(handler)
    ask(database, "one", "two")
    worker.start()
    assert begun.wait(SOON_S)
    stopping = threading.Thread(target=worker.stop)
    stopping.start()
    assert stopping.is_alive()
    may_end.set()
    stopping.join(SOON_S)
    assert not stopping.is_alive()
    assert done == ["one"]
    assert [(row.subject, row.state) for row in rows(database)] == [("two", State.QUEUED)]


def test_a_job_in_steps_is_given_back_when_its_process_stops(database, new_worker) -> None:
    begun = threading.Event()

    def handler(task: Task) -> None:
        begun.set()
        deadline_s = time.monotonic() + SOON_S
        while time.monotonic() < deadline_s:
            task.check()
            time.sleep(0.01)

    worker = new_worker(handler)
    ask(database, "one")
    worker.start()
    assert begun.wait(SOON_S)
    worker.stop()
    (row,) = rows(database)
    assert (row.state, row.attempts, row.lease) == (State.QUEUED, 0, None)
    assert new_worker(lambda _task: None).work_off() == 1


def test_no_job_is_begun_while_the_server_drains(database, new_worker) -> None:
    worker = new_worker(lambda _task: None, is_wanted=lambda: False)
    ask(database, "one")
    assert worker.work_off() == 0


def test_periodic_jobs_are_there_once_however_many_workers_there_are(database, new_worker) -> None:
    every = {"work": timedelta(hours=1)}
    done: list[str] = []
    workers = [new_worker(lambda task: done.append("x"), every=every) for _ in range(3)]
    for worker in workers:
        worker.start()
    wait_until(lambda: len(rows(database)) == 1)
    for worker in workers:
        worker.stop()
    later = [
        new_worker(lambda task: done.append("x"), clock=lambda _session: utc_now() + LATER)
        for _ in range(3)
    ]
    assert sum(worker.work_off() for worker in later) == 1
    assert done == ["x"]


def test_a_kind_without_a_handler_waits_for_a_process_that_has_one(database, new_worker) -> None:
    database.run(lambda s: service.enqueue(s, "of a later version", "one", utc_now()))
    assert new_worker(lambda _task: None).work_off() == 0
    assert len(rows(database)) == 1
