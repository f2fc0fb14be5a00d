"""`memcube-registry jobs`: what an operator sees and does."""

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from memcube_protocol.errors import ConflictError, NotFoundError
from memcube_registry.cli import group
from memcube_registry.database import Database, utc_now
from memcube_registry.jobs import service
from memcube_registry.jobs.models import State

Run = Callable[..., Result]
LEASE = timedelta(seconds=30)


@pytest.fixture
def run(tmp_path: Path, database_url: str) -> Run:
    def invoke(*words: str) -> Result:
        places = ["--data", str(tmp_path), "--database-url", database_url]
        return CliRunner().invoke(group, ["jobs", *words, *places], catch_exceptions=False)

    return invoke


@pytest.fixture
def dead(database: Database) -> int:
    """The number of a job that failed too often."""

    def work(session) -> int:
        service.enqueue(session, "countersign", "7 sha256:00", utc_now(), {"weight": 1})
        taken = None
        for attempt in range(service.ATTEMPTS_MAX):
            now = utc_now() + timedelta(hours=2 * attempt)
            taken = service.take(session, ["countersign"], now, lease=LEASE, name="x")
            assert taken
            service.fail(session, taken, "the disk is full", now)
        assert taken
        return taken.id

    return database.run(work)


def state_of(database: Database, job_id: int) -> tuple[State, int]:
    with database.read() as session:
        row = service.job_of(session, job_id)
        return row.state, row.attempts


def test_a_dead_job_is_seen_with_its_error(run: Run, dead: int) -> None:
    shown = run("list", "--state", "dead").output
    assert f"{dead}\tcountersign\t7 sha256:00\tdead\t{service.ATTEMPTS_MAX} tries" in shown
    assert "the disk is full" in shown
    assert run("list", "--state", "queued").output == ""
    assert run("list", "--kind", "other").output == ""
    assert "error: the disk is full" in run("show", str(dead)).output
    for found in (
        json.loads(run("show", str(dead), "--json").output),
        *json.loads(run("list", "--json").output),
    ):
        assert (found["id"], found["state"], found["payload"]) == (dead, "dead", {"weight": 1})


@pytest.mark.parametrize("which", ["by number", "all that are dead"])
def test_a_dead_job_is_tried_again(run: Run, database: Database, dead: int, which: str) -> None:
    words = [str(dead)] if which == "by number" else ["--dead"]
    assert run("retry", *words).output == "retrying 1 jobs\n"
    assert state_of(database, dead) == (State.QUEUED, 0)
    with database.read() as session:
        assert service.is_due(session, ["countersign"], utc_now(), LEASE)


def test_retry_wants_to_know_which(run: Run, dead: int) -> None:
    assert run("retry").exit_code == 2
    assert run("retry", "--dead", str(dead)).exit_code == 2


def test_a_job_is_given_up(run: Run, dead: int) -> None:
    assert run("cancel", str(dead)).output == "cancelled 1 jobs\n"
    with pytest.raises(NotFoundError) as caught:
        run("show", str(dead))
    assert "memcube-registry jobs list" in (caught.value.hint or "")


def test_a_job_that_runs_is_left_alone(run: Run, database: Database) -> None:
    database.run(lambda s: service.enqueue(s, "work", "one", utc_now()))
    taken = database.run(lambda s: service.take(s, ["work"], utc_now(), lease=LEASE, name="x"))
    assert taken
    for word in ("retry", "cancel"):
        with pytest.raises(ConflictError):
            run(word, str(taken.id))
