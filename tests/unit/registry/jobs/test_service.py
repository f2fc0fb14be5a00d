"""Jobs as rows: asked for once, taken by one, tried again, dead in the end, and never lost."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from memcube_protocol.errors import ConflictError, NotFoundError
from memcube_registry.database import Database
from memcube_registry.jobs import service
from memcube_registry.jobs.models import Job, State
from memcube_registry.jobs.service import ATTEMPTS_MAX, Figures, Taken
from sqlmodel import Session, select

START = datetime(2030, 1, 1, tzinfo=UTC)
LEASE = timedelta(seconds=60)


class Queue:
    """The table of jobs with a clock that stands still until it is moved."""

    def __init__(self, database: Database) -> None:
        self.database, self.now = database, START

    def wait(self, **duration: float) -> None:
        self.now += timedelta(**duration)

    def ask(self, subject: str = "one", kind: str = "work", **payload: object) -> None:
        self.run(lambda s: service.enqueue(s, kind, subject, self.now, payload))

    def take(self, subject: str | None = None, name: str = "worker") -> Taken | None:
        return self.run(
            lambda s: service.take(s, ["work"], self.now, lease=LEASE, name=name, subject=subject)
        )

    def took(self) -> Taken:
        taken = self.take()
        assert taken
        return taken

    def finish(self, taken: Taken) -> None:
        self.run(lambda s: service.finish(s, taken, self.now))

    def fail(self, taken: Taken, error: str = "no") -> State | None:
        return self.run(lambda s: service.fail(s, taken, error, self.now))

    def run(self, work):
        return self.database.run(work, locks=True)

    @property
    def rows(self) -> list[Job]:
        with self.database.read() as session:
            return service.jobs_of(session)

    @property
    def figures(self) -> Figures:
        with self.database.read() as session:
            return service.figures(session, self.now)


@pytest.fixture
def queue(database: Database) -> Queue:
    return Queue(database)


def test_a_job_is_taken_by_one_and_gone_when_it_is_done(queue: Queue) -> None:
    queue.ask(weight=3)
    taken = queue.took()
    assert (taken.kind, taken.subject, taken.payload, taken.attempts) == (
        "work",
        "one",
        {"weight": 3},
        1,
    )
    assert queue.take() is None
    queue.finish(taken)
    assert queue.rows == []


def test_what_is_asked_for_twice_is_queued_once(queue: Queue) -> None:
    queue.ask()
    queue.wait(seconds=5)
    queue.ask(weight=2)
    (row,) = queue.rows
    assert (row.due_at, row.payload) == (START, {"weight": 2})
    queue.finish(queue.took())
    assert queue.rows == []


def test_what_is_asked_for_while_it_runs_is_done_once_more(queue: Queue) -> None:
    queue.ask()
    taken = queue.took()
    queue.ask()
    assert queue.take() is None, "never by two at once"
    queue.finish(taken)
    again = queue.took()
    queue.finish(again)
    assert queue.rows == []


def test_a_change_that_is_rolled_back_leaves_no_job(queue: Queue) -> None:
    def change_my_mind(session: Session) -> None:
        service.enqueue(session, "work", "one", queue.now)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        queue.database.run(change_my_mind)
    assert queue.rows == []


def test_what_is_due_longest_comes_first_and_other_kinds_not_at_all(queue: Queue) -> None:
    queue.ask("foreign", kind="other")
    queue.ask("first")
    queue.wait(seconds=1)
    queue.ask("second")
    assert [queue.took().subject, queue.took().subject] == ["first", "second"]
    assert queue.take() is None


def test_many_at_once_never_take_the_same_job(queue: Queue) -> None:
    subjects = [f"job {number}" for number in range(24)]
    for subject in subjects:
        queue.ask(subject)

    def take_all(name: str) -> list[str]:
        found = []
        while taken := queue.take(name=name):
            found.append(taken.subject)
        return found

    with ThreadPoolExecutor(6) as pool:
        shares = list(pool.map(take_all, [f"worker {number}" for number in range(6)]))
    assert sorted(subject for share in shares for subject in share) == sorted(subjects)


def test_a_failure_is_kept_and_tried_again_after_longer_and_longer_pauses(queue: Queue) -> None:
    queue.ask()
    pauses = []
    for _ in range(4):
        assert queue.fail(queue.took(), "the disk is full") is State.QUEUED
        (row,) = queue.rows
        assert row.error == "the disk is full"
        pauses.append((row.due_at - queue.now).total_seconds())
        assert queue.take() is None
        queue.now = row.due_at
    assert pauses == [1, 2, 4, 8]


def test_a_job_that_keeps_failing_is_dead_and_its_last_error_kept(queue: Queue) -> None:
    queue.ask()
    for attempt in range(ATTEMPTS_MAX):
        queue.fail(queue.took(), f"error {attempt}")
        queue.wait(hours=2)
    (row,) = queue.rows
    assert (row.state, row.error) == (State.DEAD, f"error {ATTEMPTS_MAX - 1}")
    assert queue.take() is None
    assert queue.figures == Figures(dead=1)


def test_a_dead_job_lives_again_when_it_is_asked_for(queue: Queue) -> None:
    queue.ask()
    for _ in range(ATTEMPTS_MAX):
        queue.fail(queue.took())
        queue.wait(hours=2)
    queue.ask()
    assert queue.took().attempts == 1


def test_the_job_of_a_killed_process_is_taken_when_its_lease_has_run_out(queue: Queue) -> None:
    queue.ask()
    first = queue.took()
    queue.wait(seconds=60)
    assert queue.take(name="another") is None
    queue.wait(seconds=1)
    second = queue.take(name="another")
    assert second
    assert second.attempts == 2
    queue.finish(first)
    assert queue.fail(first) is None
    assert not queue.run(lambda s: service.renew(s, first, queue.now, LEASE))
    assert [row.lease for row in queue.rows] == ["another"], "the first has no say any more"
    queue.finish(second)
    assert queue.rows == []


def test_a_lease_that_is_renewed_is_nobody_elses(queue: Queue) -> None:
    queue.ask()
    taken = queue.took()
    for _ in range(5):
        queue.wait(seconds=50)
        assert queue.run(lambda s: service.renew(s, taken, queue.now, LEASE))
        assert queue.take(name="another") is None


def test_a_lease_from_a_clock_that_ran_ahead_is_no_lease(queue: Queue) -> None:
    queue.wait(days=1)
    queue.ask()
    queue.took()
    queue.wait(days=-1)
    assert queue.take(name="another")


def test_a_job_from_a_clock_that_ran_ahead_is_done_all_the_same(queue: Queue) -> None:
    queue.wait(days=1)
    queue.ask("new")
    queue.ask("failed")
    taken = queue.take("failed")
    assert taken
    queue.fail(taken)
    queue.wait(days=-1)
    assert [queue.took().subject, queue.took().subject] == ["new", "failed"]


def test_a_job_that_kills_its_process_every_time_is_dead_in_the_end(queue: Queue) -> None:
    queue.ask()
    for _ in range(ATTEMPTS_MAX):
        queue.took()
        queue.wait(hours=2)
    assert queue.take() is None
    (row,) = queue.rows
    assert row.state is State.DEAD
    assert row.error


def test_a_job_that_is_given_back_is_free_at_once_and_not_counted(queue: Queue) -> None:
    queue.ask()
    taken = queue.took()
    queue.run(lambda s: service.give_back(s, taken, queue.now))
    assert queue.took().attempts == 1


def test_one_job_can_be_taken_before_its_time(queue: Queue) -> None:
    queue.ask()
    queue.fail(queue.took())
    assert queue.take() is None
    assert queue.take("another") is None
    assert queue.take("one")
    assert queue.take("one") is None


class TestPeriodic:
    EVERY = timedelta(hours=1)

    def schedule(self, queue: Queue, every: timedelta = EVERY) -> None:
        queue.run(lambda s: service.schedule(s, "work", every, queue.now))

    def test_comes_again_and_again_once_for_all(self, queue: Queue) -> None:
        for _ in range(3):
            self.schedule(queue)
        assert queue.take() is None
        for _ in range(3):
            queue.wait(hours=1)
            taken = queue.took()
            assert queue.take() is None
            queue.finish(taken)
            assert queue.take() is None

    def test_a_restart_does_not_put_it_off(self, queue: Queue) -> None:
        self.schedule(queue)
        queue.wait(minutes=50)
        self.schedule(queue)
        queue.wait(minutes=10)
        assert queue.take()

    def test_a_shorter_period_counts_at_once(self, queue: Queue) -> None:
        self.schedule(queue)
        self.schedule(queue, timedelta(minutes=1))
        queue.wait(minutes=1)
        assert queue.take()

    def test_never_dies_of_failures(self, queue: Queue) -> None:
        self.schedule(queue)
        for _ in range(ATTEMPTS_MAX + 3):
            queue.wait(hours=1)
            assert queue.fail(queue.took(), "no") is State.QUEUED
        (row,) = queue.rows
        assert row.due_at <= queue.now + self.EVERY

    def test_ends_when_the_settings_say_so(self, queue: Queue) -> None:
        self.schedule(queue)
        queue.run(lambda s: service.unschedule(s, "work"))
        assert queue.rows == []

    def test_is_not_cancelled(self, queue: Queue) -> None:
        self.schedule(queue)
        (row,) = queue.rows
        with pytest.raises(ConflictError):
            queue.run(lambda s: service.cancel(s, row.id))


class TestOperators:
    def test_see_what_waits_runs_and_is_dead(self, queue: Queue) -> None:
        for subject in ("one", "two"):
            queue.ask(subject)
        queue.took()
        queue.wait(seconds=90)
        assert queue.figures == Figures(queued=1, running=1, oldest_s=90)
        with queue.database.read() as session:
            (row,) = service.jobs_of(session, state=State.RUNNING)
            assert row.subject == "one"
            assert service.jobs_of(session, kind="other") == []

    def test_try_a_job_at_once(self, queue: Queue) -> None:
        queue.ask()
        queue.fail(queue.took())
        (row,) = queue.rows
        queue.run(lambda s: service.retry(s, row.id, queue.now))
        assert queue.took().attempts == 1

    def test_give_a_job_up(self, queue: Queue) -> None:
        queue.ask()
        (row,) = queue.rows
        queue.run(lambda s: service.cancel(s, row.id))
        assert queue.rows == []
        with pytest.raises(NotFoundError):
            queue.run(lambda s: service.cancel(s, row.id))

    def test_do_neither_to_what_runs(self, queue: Queue) -> None:
        queue.ask()
        taken = queue.took()
        for act in (
            lambda s: service.retry(s, taken.id, queue.now),
            lambda s: service.cancel(s, taken.id),
        ):
            with pytest.raises(ConflictError):
                queue.run(act)
        assert queue.database.run(lambda s: s.exec(select(Job.state)).one()) is State.RUNNING
