"""Does what the plan says at the moments that it says, and counts."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable

from chaos.deployment import Deployment
from chaos.journal import Event, Journal, Outcome
from chaos.plan import Fault, Round, Strike

_WATCH_S = 0.1


class Monkey:
    """Strikes one deployment; `counts` says how often, by kind."""

    def __init__(self, deployment: Deployment, journal: Journal) -> None:
        self.counts: Counter[Fault] = Counter()
        self.skipped: Counter[Fault] = Counter()
        self._deployment, self._journal = deployment, journal
        self._lock = threading.Lock()
        self._acts: dict[Fault, Callable[[Round, Strike], bool]] = {
            Fault.WORKER: self._kill_worker,
            Fault.PARENT: self._kill_parent,
            Fault.REGISTRY: self._kill_registry,
            Fault.DATABASE: self._kill_database,
            Fault.STORE: self._kill_store,
            Fault.DISK: self._fill_disk,
            Fault.CLOCK: self._move_clock,
        }

    @property
    def kills(self) -> int:
        with self._lock:
            return sum(count for fault, count in self.counts.items() if fault.is_kill)

    def count(self, fault: Fault) -> None:
        """Note a strike; clients that are killed report themselves."""
        with self._lock:
            self.counts[fault] += 1

    def strike_all(self, planned: Round) -> None:
        """All strikes of a round; one that is late is struck at once."""
        began = time.monotonic()
        for strike in planned.strikes:
            self._wait_until(began + strike.at_s)
            start = self._journal.now()
            done = self._acts[strike.fault](planned, strike)
            if done:
                self.count(strike.fault)
            else:
                self.skipped[strike.fault] += 1
            outcome = Outcome.ACKNOWLEDGED if done else Outcome.REFUSED
            event = (planned.number, "monkey", "strike", "", str(strike.fault), "")
            self._journal.write(Event(*event, start, self._journal.now(), outcome))

    def _wait_until(self, moment: float) -> None:
        """Wait as a supervisor does: a registry that ended is begun again."""
        while (left := moment - time.monotonic()) > 0:
            for server in self._deployment.servers:
                self._deployment.begin(server)
            time.sleep(min(left, _WATCH_S))

    def _kill_worker(self, planned: Round, strike: Strike) -> bool:
        server = self._deployment.server(strike.choice)
        workers = self._deployment.workers(server)
        return bool(workers) and _kill(workers[strike.choice % len(workers)])

    def _kill_parent(self, planned: Round, strike: Strike) -> bool:
        """Only the process that watches the others; a supervisor begins a new one."""
        server = self._deployment.server(strike.choice)
        process = server.process
        if process is None or not _kill(process.pid):
            return False
        process.wait()
        if process.stdout:
            process.stdout.close()
        server.process = None
        time.sleep(strike.lasts_s)
        self._deployment.begin(server)
        return True

    def _kill_registry(self, planned: Round, strike: Strike) -> bool:
        self._deployment.kill_everything()
        if strike.choice >= 0:
            time.sleep(strike.lasts_s)
            self._deployment.start(planned.grace_s)
        return True

    def _kill_database(self, planned: Round, strike: Strike) -> bool:
        cluster = self._deployment.cluster
        if cluster is None:
            return False
        if strike.choice % 3 == 0:
            return cluster.kill_backend()
        cluster.kill()
        time.sleep(strike.lasts_s)
        self._deployment.start_database()
        return True

    def _kill_store(self, planned: Round, strike: Strike) -> bool:
        swift = self._deployment.swift
        if swift is None:
            return False
        swift.kill()
        time.sleep(strike.lasts_s)
        swift.start()
        return True

    def _fill_disk(self, planned: Round, strike: Strike) -> bool:
        disk = self._deployment.disk
        if disk is None:
            return False
        disk.fill()
        time.sleep(strike.lasts_s)
        disk.free()
        return True

    def _move_clock(self, planned: Round, strike: Strike) -> bool:
        clock = self._deployment.clock
        if clock is None:
            return False
        clock.move(strike.shift_s)
        time.sleep(strike.lasts_s)
        clock.move(0)
        return True


def _kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True
