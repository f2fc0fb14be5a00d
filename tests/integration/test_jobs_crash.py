"""Processes that ask for jobs and do them are killed: each job that was asked for is done, by somebody."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from memcube_registry.accounts.models import Account
from memcube_registry.accounts.service import create_account
from memcube_registry.database import Database, utc_now
from memcube_registry.jobs import service
from memcube_registry.jobs.models import Job
from sqlmodel import select

SOON_S = 100

WORKER = """
import sys, time
from datetime import timedelta
from memcube_registry.database import Database
from memcube_registry.jobs.worker import Worker

url, pause_s = sys.argv[1], float(sys.argv[2])

def handle(task):
    print("began", task.subject, flush=True)
    time.sleep(pause_s)
    print("ended", task.subject, flush=True)

worker = Worker(Database(url), {"work": handle}, lease=timedelta(seconds=1), poll_s=0.05)
worker.start()
time.sleep(3600)
"""

ASKER = """
import sys
from memcube_registry.accounts.service import account_named, add_usage
from memcube_registry.database import Database, utc_now
from memcube_registry.jobs.service import enqueue

database, first = Database(sys.argv[1]), int(sys.argv[2])

def ask(session, number):
    add_usage(session, account_named(session, "ada").id, 1)
    enqueue(session, "work", f"job {number}", utc_now())

for number in range(first, first + 30):
    database.run(lambda session: ask(session, number))
    print("asked", number, flush=True)
"""


class Started:
    """A process of ours, whose lines are kept in a file; SIGKILL ends it."""

    def __init__(self, output: Path, source: str, *words: object) -> None:
        self.output = output
        with output.open("wb") as stream:
            arguments = [sys.executable, "-c", source, *map(str, words)]
            self.process = subprocess.Popen(arguments, stdout=stream)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def said(self, word: str) -> list[str]:
        """What follows `word` on the lines that begin with it and were written whole."""
        whole = self.output.read_text().rpartition("\n")[0].splitlines()
        return [line.partition(" ")[2] for line in whole if line.startswith(f"{word} ")]


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[..., Started]]:
    """Begins processes, and ends them in the end."""
    found: list[Started] = []

    def make(source: str, *words: object) -> Started:
        found.append(Started(tmp_path / f"output-{len(found)}", source, *words))
        return found[-1]

    yield make
    for one in found:
        one.kill()


def wait_until(holds: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + SOON_S
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def rows(database: Database) -> list[Job]:
    with database.read() as session:
        return service.jobs_of(session, limit=1000)


def test_a_job_whose_process_is_killed_is_done_by_another(database_url, database, begin) -> None:
    database.run(lambda s: service.enqueue(s, "work", "one", utc_now()))
    first = begin(WORKER, database_url, 3600)
    wait_until(lambda: first.said("began") == ["one"])
    first.kill()
    (row,) = rows(database)
    assert (row.state.value, row.attempts) == ("running", 1)
    second = begin(WORKER, database_url, 0)
    wait_until(lambda: second.said("ended") == ["one"])
    wait_until(lambda: rows(database) == [])


@pytest.mark.timeout(300)
def test_what_was_asked_for_before_a_crash_is_done_after_it(database_url, database, begin) -> None:
    with database.write() as session:
        create_account(session, "ada")
    chance = random.Random(7)
    askers: list[Started] = []
    workers = [begin(WORKER, database_url, 0.01) for _ in range(2)]
    for number in range(4):
        asker = begin(ASKER, database_url, number * 1000)
        askers.append(asker)
        wanted = chance.randrange(1, 25)
        wait_until(lambda asker=asker, wanted=wanted: len(asker.said("asked")) >= wanted)
        asker.kill()
        chance.choice(workers).kill()
        workers.append(begin(WORKER, database_url, 0.01))
    wait_until(lambda: rows(database) == [])
    asked = {f"job {number}" for asker in askers for number in asker.said("asked")}
    ended = {subject for worker in workers for subject in worker.said("ended")}
    assert len(asked) > 4
    assert asked <= ended, "acknowledged, and never done"
    with database.read() as session:
        changes = session.exec(select(Account.used_bytes)).one()
    assert changes == len(ended), "a change without its job, or a job without its change"
