"""Jobs in the database: asked for, taken, and what became of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from memcube_protocol.errors import ConflictError, NotFoundError
from sqlalchemy import ColumnElement, case, delete, func, or_, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, col, select

from memcube_registry.database import table_of
from memcube_registry.jobs.models import Job, State

ATTEMPTS_MAX: Final = 24
"""How often a job is tried before it is dead: with these pauses, for about half a day."""
_FIRST_PAUSE: Final = timedelta(seconds=1)
_LONGEST_PAUSE: Final = timedelta(hours=1)
_ERROR_CHARS: Final = 2000
_VANISHED: Final = "the process that ran it ended without a word"


@dataclass(frozen=True, slots=True)
class Taken:
    """A job as it stood when `lease` was given for it."""

    id: int
    kind: str
    subject: str
    payload: Mapping[str, Any]
    wanted: int
    attempts: int
    lease: str


@dataclass(frozen=True, slots=True)
class Figures:
    """How many jobs there are of each state, and how long the one that has waited longest is due."""

    queued: int = 0
    running: int = 0
    dead: int = 0
    oldest_s: float = 0.0


def enqueue(
    session: Session,
    kind: str,
    subject: str,
    now: datetime,
    payload: Mapping[str, Any] | None = None,
) -> None:
    """Ask for a job, in the transaction of the change that needs it.

    One that waits already is not queued twice; one that runs is done once more; a dead one lives again.
    """
    values = {"kind": kind, "subject": subject, "payload": dict(payload or {}), "due_at": now}
    _insert_or(session, values, _asked_again)


def schedule(session: Session, kind: str, every: timedelta, now: datetime) -> None:
    """Have a periodic job of that kind, once for all processes; the first run is one period away.

    A job that is there stays where it stands, but waits no longer than a period.
    """
    every_s, due_at = int(every.total_seconds()), now + every
    values = {"kind": kind, "subject": "", "payload": {}, "due_at": due_at, "every_s": every_s}
    _insert_or(session, values, lambda new: {"every_s": every_s, "due_at": _earlier(new)})


def unschedule(session: Session, kind: str) -> None:
    """Have no periodic job of that kind."""
    session.execute(delete(Job).where(col(Job.kind) == kind, col(Job.every_s).is_not(None)))


def is_due(session: Session, kinds: Collection[str], now: datetime, lease: timedelta) -> bool:
    """Whether `take` would find something."""
    query = select(Job.id).where(col(Job.kind).in_(kinds), _is_ready(now, lease)).limit(1)
    return session.exec(query).first() is not None


def take(
    session: Session,
    kinds: Collection[str],
    now: datetime,
    *,
    lease: timedelta,
    name: str,
    subject: str | None = None,
) -> Taken | None:
    """The job that is due longest, leased to `name`; with `subject` that very job, due or not.

    None where there is none, or others have it. Jobs whose last process vanished once too often die.
    """
    session.execute(
        update(Job)
        .where(_is_expired(now, lease), col(Job.attempts) >= ATTEMPTS_MAX, ~_is_periodic())
        .values(state=State.DEAD, lease=None, leased_until=None, error=_VANISHED)
        .execution_options(synchronize_session=False)
    )
    query = select(Job).where(col(Job.kind).in_(kinds))
    if subject is None:
        query = query.where(_is_ready(now, lease))
    else:
        queued = col(Job.state) == State.QUEUED
        query = query.where(col(Job.subject) == subject, or_(queued, _is_expired(now, lease)))
    order = (col(Job.due_at), col(Job.id))
    # SQLite has no such locks: there, writers come one after the other.
    row = session.exec(query.order_by(*order).limit(1).with_for_update(skip_locked=True)).first()
    if row is None:
        return None
    row.state, row.lease, row.leased_until = State.RUNNING, name, now + lease
    row.attempts += 1
    session.add(row)
    session.flush()
    return Taken(_id(row), row.kind, row.subject, row.payload, row.wanted, row.attempts, name)


def renew(session: Session, taken: Taken, now: datetime, lease: timedelta) -> bool:
    """Keep the lease for longer; False where another process has the job by now."""
    row = _held(session, taken)
    if row is None:
        return False
    row.leased_until = now + lease
    session.add(row)
    return True


def finish(session: Session, taken: Taken, now: datetime) -> None:
    """The job was done. It is gone, unless it is periodic, or was asked for while it ran."""
    row = _held(session, taken)
    if row is None:
        return
    if row.every_s is None and row.wanted == taken.wanted:
        session.delete(row)
        return
    is_wanted_again = row.wanted != taken.wanted
    row.attempts, row.error = 0, None
    _queue(session, row, now if is_wanted_again else now + _period(row))


def fail(session: Session, taken: Taken, error: str, now: datetime) -> State | None:
    """The job failed, and is tried again after a pause, or is dead; None: it is another process's."""
    row = _held(session, taken)
    if row is None:
        return None
    row.error = error[:_ERROR_CHARS]
    pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(row.attempts - 1, 20))
    if row.every_s is not None:
        # It never dies: its next turn may go well.
        _queue(session, row, now + min(pause, _period(row)))
    elif row.wanted == taken.wanted and row.attempts >= ATTEMPTS_MAX:
        row.state, row.lease, row.leased_until = State.DEAD, None, None
        session.add(row)
    else:
        _queue(session, row, now + pause)
    return row.state


def give_back(session: Session, taken: Taken, now: datetime) -> None:
    """The process stops in the middle of the job, which another may take at once."""
    row = _held(session, taken)
    if row is not None:
        row.attempts -= 1
        _queue(session, row, now)


def jobs_of(
    session: Session, *, state: State | None = None, kind: str | None = None, limit: int = 100
) -> list[Job]:
    """Jobs, those due first in front."""
    query = select(Job).order_by(col(Job.due_at), col(Job.id)).limit(limit)
    if state is not None:
        query = query.where(Job.state == state)
    if kind is not None:
        query = query.where(Job.kind == kind)
    return list(session.exec(query))


def ids_of(session: Session, state: State) -> list[int]:
    """The numbers of all jobs of that state."""
    return [_id(row) for row in session.exec(select(Job).where(Job.state == state))]


def job_of(session: Session, job_id: int) -> Job:
    """The job of that number.

    Raises:
        NotFoundError: there is none; one that was done is gone.
    """
    row = session.get(Job, job_id)
    if row is None:
        raise NotFoundError(
            f"there is no job {job_id}",
            hint="one that was done is gone; memcube-registry jobs list shows the others",
        )
    return row


def retry(session: Session, job_id: int, now: datetime) -> None:
    """Have a job tried at once, with all its attempts anew.

    Raises:
        NotFoundError: see `job_of`.
        ConflictError: it is running.
    """
    row = _idle(session, job_id)
    row.attempts = 0
    _queue(session, row, now)


def cancel(session: Session, job_id: int) -> None:
    """Give a job up for good.

    Raises:
        NotFoundError: see `job_of`.
        ConflictError: it is running, or is periodic.
    """
    row = _idle(session, job_id)
    if row.every_s is not None:
        raise ConflictError(
            f"job {job_id} comes again every {row.every_s} seconds",
            hint="a setting of the registry says how often, and whether at all",
        )
    session.delete(row)


def figures(session: Session, now: datetime) -> Figures:
    """What an operator watches."""
    query = select(Job.state, func.count()).group_by(col(Job.state))
    counts = dict(session.exec(query).all())
    due = select(func.min(Job.due_at)).where(Job.state == State.QUEUED)
    oldest = session.exec(due).one()
    waited_s = (now - oldest).total_seconds() if oldest else 0.0
    return Figures(
        queued=counts.get(State.QUEUED, 0),
        running=counts.get(State.RUNNING, 0),
        dead=counts.get(State.DEAD, 0),
        oldest_s=max(0.0, waited_s),
    )


def _insert_or(session: Session, values: dict[str, Any], change: Any) -> None:
    """Insert a job, or change the one of that kind and subject: without a read that could be overtaken."""
    values = {"state": State.QUEUED, "wanted": 1, "attempts": 0, **values}
    dialect = session.get_bind().dialect.name
    insert: Any = postgresql.insert if dialect == "postgresql" else sqlite.insert
    statement = insert(table_of(Job)).values(created_at=values["due_at"], **values)
    keys = ["kind", "subject"]
    session.execute(
        statement.on_conflict_do_update(index_elements=keys, set_=change(statement.excluded))
    )


def _asked_again(new: Any) -> dict[str, Any]:
    table = table_of(Job).c
    is_dead = table.state == State.DEAD
    return {
        "payload": new.payload,
        "wanted": table.wanted + 1,
        "due_at": _earlier(new),
        "attempts": case((is_dead, 0), else_=table.attempts),
        "state": case((is_dead, new.state), else_=table.state),
    }


def _earlier(new: Any) -> ColumnElement[datetime]:
    due_at = table_of(Job).c.due_at
    return case((due_at < new.due_at, due_at), else_=new.due_at)


def _is_ready(now: datetime, lease: timedelta) -> ColumnElement[bool]:
    """Whether a job may be taken. Clocks jump: a new job waits for none, and none too long for its pause."""
    is_new, is_odd = col(Job.attempts) == 0, col(Job.due_at) > now + _LONGEST_PAUSE
    is_due = or_(col(Job.due_at) <= now, ~_is_periodic() & or_(is_new, is_odd))
    return or_((col(Job.state) == State.QUEUED) & is_due, _is_expired(now, lease))


def _is_expired(now: datetime, lease: timedelta) -> ColumnElement[bool]:
    """Whether a job's process has vanished. A lease from a clock that ran ahead is none."""
    until = col(Job.leased_until)
    return (col(Job.state) == State.RUNNING) & ((until < now) | (until > now + 2 * lease))


def _is_periodic() -> ColumnElement[bool]:
    return col(Job.every_s).is_not(None)


def _period(row: Job) -> timedelta:
    return timedelta(seconds=row.every_s or 0)


def _queue(session: Session, row: Job, due_at: datetime) -> None:
    row.state, row.due_at, row.lease, row.leased_until = State.QUEUED, due_at, None, None
    session.add(row)


def _held(session: Session, taken: Taken) -> Job | None:
    """The row of a job, locked, if this lease still holds it."""
    query = select(Job).where(Job.id == taken.id, Job.lease == taken.lease).with_for_update()
    return session.exec(query).one_or_none()


def _idle(session: Session, job_id: int) -> Job:
    row = job_of(session, job_id)
    session.refresh(row, with_for_update=True)
    if row.state is State.RUNNING:
        raise ConflictError(
            f"job {job_id} is running",
            hint="wait for its end; the lease of a process that was killed runs out by itself",
        )
    return row


def _id(row: Job) -> int:
    assert row.id is not None, "as read from the database"
    return row.id
