"""Doing jobs: one thread in each process looks for what is due, and one handler for each kind does it."""

from __future__ import annotations

import math
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, TypeVar

from memcube_protocol.errors import MemcubeError
from sqlmodel import Session

from memcube_registry.database import Database
from memcube_registry.jobs import service
from memcube_registry.jobs.models import State
from memcube_registry.jobs.service import Taken
from memcube_registry.observability.requests import blotted, log

Result = TypeVar("Result")

LEASE: Final = timedelta(seconds=30)
POLL_S: Final = 1.0
_SCHEDULED_S: Final = 60.0
_LONGEST_PAUSE_S: Final = 10.0
"""Between two looks at a database that does not answer."""


class HaltedError(Exception):
    """A handler's word that it left off because it was told to: the job is given back as it was."""


@dataclass(frozen=True, slots=True)
class Task:
    """What a handler is told of its job."""

    subject: str
    payload: Mapping[str, object]
    _ended: tuple[threading.Event, ...] = ()

    def texts(self, name: str) -> list[str]:
        """The texts that the payload lists under `name`."""
        found = self.payload.get(name)
        return [str(one) for one in found] if isinstance(found, list) else []

    def check(self) -> None:
        """Let a long job end between two of its steps.

        Raises:
            HaltedError: the process stops, or has lost the job to another.
        """
        if any(event.is_set() for event in self._ended):
            raise HaltedError


Handler = Callable[[Task], None]
"""Does one job, or raises. It may be called for a job that was done, whole or in part, before."""
Seen = Callable[[str, str], None]
"""Is told of each try: the job's kind, and `done`, `failed`, `dead` or `halted`."""


@dataclass(slots=True)
class Worker:
    """Does jobs of the kinds that have a handler. Safe for threads, processes and replicas.

    `every` says which kinds are periodic, and how often they come; `timedelta(0)`: never.
    `clock` is the database's own, so that the clocks of replicas need not agree.
    """

    database: Database
    handlers: Mapping[str, Handler]
    every: Mapping[str, timedelta] = field(default_factory=dict)
    lease: timedelta = LEASE
    poll_s: float = POLL_S
    """Time between two looks for what is due; 0: `start` does nothing."""
    clock: Callable[[Session], datetime] | None = None
    seen: Seen | None = None
    is_wanted: Callable[[], bool] = lambda: True
    """Whether new jobs may be begun: not while the server drains."""
    _stopped: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to look for jobs, in a thread."""
        if not self.poll_s:
            return
        self._thread = threading.Thread(target=self._run, name="jobs", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Begin no more jobs, and return once the one that runs is done or given back."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def work_off(self) -> int:
        """Do what is due until nothing is, or `stop`; how many jobs were tried."""
        # A read first: most looks find nothing, and a write would cost more.
        count, kinds = 0, list(self.handlers)
        is_due = self.is_wanted() and self._is_due()
        while is_due and not self._stopped.is_set() and self.is_wanted():
            if (taken := self._take(kinds)) is None:
                break
            self._do(taken)
            count += 1
        return count

    def do_now(self, kind: str, subject: str) -> bool:
        """Do that job here and now, due or not; False where there is none, or others have it.

        A failure is logged and noted in the job, which is tried again later.
        """
        try:
            taken = self._take([kind], subject)
        except MemcubeError as error:
            log.warning("a job waits", kind=kind, subject=subject, error=str(error))
            return False
        if taken is None:
            return False
        self._do(taken)
        return True

    def _run(self) -> None:
        pause_s, scheduled_s = self.poll_s, -math.inf
        while not self._stopped.is_set():
            try:
                # Again and again: a clock that jumped back would put periodic jobs off.
                if time.monotonic() - scheduled_s > _SCHEDULED_S:
                    self._schedule()
                    scheduled_s = time.monotonic()
                self.work_off()
                pause_s = self.poll_s
            except Exception as error:  # a loop that ends would be worse than one failure
                log.error("looking for jobs failed", error=str(error))
                pause_s = min(max(self.poll_s, _LONGEST_PAUSE_S), pause_s * 2)
            self._stopped.wait(pause_s)

    def _schedule(self) -> None:
        def work(session: Session) -> None:
            now = self._now(session)
            for kind, every in self.every.items():
                if every:
                    service.schedule(session, kind, every, now)
                else:
                    service.unschedule(session, kind)

        self.database.run(work, locks=True)

    def _is_due(self) -> bool:
        with self.database.read() as session:
            kinds = list(self.handlers)
            return service.is_due(session, kinds, self._now(session), self.lease)

    def _take(self, kinds: list[str], subject: str | None = None) -> Taken | None:
        name = f"{socket.gethostname()[:64]}:{os.getpid()}:{secrets.token_hex(8)}"
        return self.database.run(
            lambda session: service.take(
                session, kinds, self._now(session), lease=self.lease, name=name, subject=subject
            ),
            locks=True,
        )

    def _do(self, taken: Taken) -> None:
        started_s = time.perf_counter()
        try:
            with self._kept(taken) as lost:
                task = Task(taken.subject, taken.payload, (self._stopped, lost))
                self.handlers[taken.kind](task)
        except HaltedError:
            self._note(lambda session, now: service.give_back(session, taken, now))
            self._tell(taken, "halted")
        except Exception as error:  # whatever a handler raises, the job must not be lost
            self._fail(taken, error)
        else:
            self._note(lambda session, now: service.finish(session, taken, now))
            self._tell(taken, "done")
            duration_ms = round((time.perf_counter() - started_s) * 1000, 2)
            log.info("job done", kind=taken.kind, subject=taken.subject, duration_ms=duration_ms)

    def _fail(self, taken: Taken, error: Exception) -> None:
        is_ours = not isinstance(error, MemcubeError)
        words = f"{type(error).__name__}: {error}" if is_ours else str(error)
        text = blotted(words)
        state = self._note(lambda session, now: service.fail(session, taken, text, now))
        self._tell(taken, "dead" if state is State.DEAD else "failed")
        (log.error if is_ours or state is State.DEAD else log.warning)(
            "job failed",
            kind=taken.kind,
            subject=taken.subject,
            attempts=taken.attempts,
            state=state and state.value,
            error=text,
            exc_info=error if is_ours else None,
        )

    @contextmanager
    def _kept(self, taken: Taken) -> Iterator[threading.Event]:
        """The lease is renewed for as long as this lasts; the event says that it was lost."""
        done, lost = threading.Event(), threading.Event()

        def renew() -> None:
            while not done.wait(self.lease.total_seconds() / 3):
                held = self._note(
                    lambda session, now: service.renew(session, taken, now, self.lease)
                )
                if held is False:
                    lost.set()
                    return

        thread = threading.Thread(target=renew, name="lease", daemon=True)
        thread.start()
        try:
            yield lost
        finally:
            done.set()
            thread.join()

    def _note(self, work: Callable[[Session, datetime], Result]) -> Result | None:
        """What `work` returns; None where the database does not answer: then the lease runs out."""
        try:
            return self.database.run(lambda session: work(session, self._now(session)), locks=True)
        except MemcubeError as error:
            log.warning("a job's state could not be noted", error=str(error))
            return None

    def _tell(self, taken: Taken, outcome: str) -> None:
        if self.seen is not None:
            self.seen(taken.kind, outcome)

    def _now(self, session: Session) -> datetime:
        return self.clock(session) if self.clock else self.database.now(session)
