"""A run: rounds of load and kills, each followed by recovery and a check, until enough was killed."""

from __future__ import annotations

import itertools
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from support.machine import Machine
from support.measuring import machine

from chaos import checker as checking
from chaos import journal as journals
from chaos.checker import Checker
from chaos.clients import HttpClient
from chaos.contents import Contents
from chaos.cubes import CubeClient, CubeHome, run_cube_command, unhurt, visible_blobs
from chaos.deployment import Deployment, deployed
from chaos.journal import Journal
from chaos.monkey import Monkey
from chaos.plan import CUBE_ACCOUNTS, FULL, Profile, Round, Size, plan_round
from chaos.requests import Requests
from chaos.structure import Violation

_JOIN_S = 90.0
_WARM_UP = 5
_WARM_UP_S = 20.0
Say = Callable[[str], None]


@dataclass(frozen=True)
class Wanted:
    """How long a run is: from `first_round` on, to the end of the round that reaches `kills` or `minutes`."""

    seed: int
    profile: Profile = Profile.SQLITE
    kills: int = 150
    minutes: float = 10.0
    size: Size = FULL
    first_round: int = 0


@dataclass
class Result:
    """What a run did and found; `to_json` is the report's source."""

    wanted: Wanted
    rounds: list[dict[str, Any]] = field(default_factory=list)
    strikes: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    operations: Counter[tuple[str, str]] = field(default_factory=Counter)
    violations: list[dict[str, Any]] = field(default_factory=list)
    compared: int = 0
    starts: int = 0
    log_size: int = 0
    wall_s: float = 0.0

    def to_json(self) -> dict[str, Any]:
        operations: dict[str, dict[str, int]] = {}
        for (operation, outcome), count in sorted(self.operations.items()):
            operations.setdefault(operation, {})[outcome] = count
        return {
            "seed": self.wanted.seed,
            "profile": str(self.wanted.profile),
            "size": asdict(self.wanted.size),
            "wallSeconds": round(self.wall_s, 1),
            "strikes": dict(sorted(self.strikes.items())),
            "skipped": dict(sorted(self.skipped.items())),
            "registryStarts": self.starts,
            "operations": operations,
            "compared": self.compared,
            "logEntries": self.log_size,
            "rounds": self.rounds,
            "violations": self.violations,
            "machine": machine(),
        }


def run(wanted: Wanted, folder: Path, say: Say = lambda _: None) -> Result:
    """Run below `folder`, which must not hold anything worth keeping."""
    result, began = Result(wanted), time.monotonic()
    with (
        deployed(folder, wanted.profile) as deployment,
        Journal(folder / "journal.jsonl") as journal,
    ):
        session = _Session(wanted, deployment, journal)
        for number in itertools.count(wanted.first_round):
            planned = plan_round(wanted.seed, wanted.profile, number, wanted.size)
            session.play(planned, result)
            say(_line(result))
            late = time.monotonic() - began > wanted.minutes * 60
            if late or session.monkey.kills >= wanted.kills:
                break
        session.close(result)
    result.wall_s = time.monotonic() - began
    return result


class _Session:
    """One deployment with its clients, its monkey and its checker."""

    def __init__(self, wanted: Wanted, deployment: Deployment, journal: Journal) -> None:
        self._wanted, self._deployment, self._journal = wanted, deployment, journal
        self._contents = Contents(wanted.seed)
        self.monkey = Monkey(deployment, journal)
        self._checker = Checker(deployment.database, deployment.objects, deployment.endpoints)
        self._homes = {
            f"client-{number}": self._home(number) for number in range(wanted.size.cube_clients)
        }

    def _home(self, number: int) -> CubeHome:
        folder = self._deployment.folder / f"client-{number}"
        url = self._deployment.endpoints.urls[0]
        name = CUBE_ACCOUNTS[number]
        user = Machine(folder, url, self._deployment.tokens[name], own_process=True)
        return CubeHome(user, folder / "sources", f"{name}/cube", self._wanted.seed)

    def play(self, planned: Round, result: Result) -> None:
        """Load and kills, then recovery, then the check."""
        start, began = self._journal.size, time.monotonic()
        self._deployment.restart(planned.grace_s)
        kills = self.monkey.kills
        self._load(planned)
        ended = time.monotonic()
        self._deployment.recover()
        recovered = time.monotonic()
        found = self._retry_cubes(planned)
        events = list(journals.read(self._journal.path, start))
        found += self._checker.check(planned, events)
        if planned.sweeps:
            found += self._sweep()
        found += self._checker.check_server_logs(server.log for server in self._deployment.servers)
        result.operations.update((event.operation, str(event.outcome)) for event in events)
        result.violations += [
            {"round": planned.number, "kind": each.kind, "what": each.what} for each in found
        ]
        result.rounds.append(
            {
                "number": planned.number,
                "grace_s": planned.grace_s,
                "kills": self.monkey.kills - kills,
                "operations": len(events),
                "load_s": round(ended - began, 1),
                "recovery_s": round(recovered - ended, 1),
                "check_s": round(time.monotonic() - recovered, 1),
                "violations": len(found),
            }
        )
        self._tell(result)

    def close(self, result: Result) -> None:
        """A last sweep, wherever the run ended."""
        found = self._sweep()
        result.violations += [{"round": -1, "kind": each.kind, "what": each.what} for each in found]
        self._tell(result)

    def _tell(self, result: Result) -> None:
        result.strikes = Counter({str(fault): n for fault, n in self.monkey.counts.items()})
        result.skipped = Counter({str(fault): n for fault, n in self.monkey.skipped.items()})
        result.compared, result.log_size = self._checker.compared, self._checker.log_size
        result.starts = self._deployment.starts

    def _load(self, planned: Round) -> None:
        stop = threading.Event()
        threads: list[HttpClient | CubeClient] = [
            HttpClient(script, self._contents, self._requests(planned, number), stop)
            for number, script in enumerate(planned.scripts)
        ]
        threads += [
            CubeClient(home, commands, planned.number, self._journal, stop, self.monkey.count)
            for home, commands in zip(self._homes.values(), planned.cubes, strict=True)
        ]
        first = self._journal.count
        for thread in threads:
            thread.start()
        try:
            self._wait_for_load(first + _WARM_UP * len(threads))
            self.monkey.strike_all(planned)
        finally:
            stop.set()
            for thread in threads:
                thread.join(_JOIN_S)
        for thread in threads:
            assert not thread.is_alive(), f"{thread.name} hangs"
            if thread.failure:
                raise thread.failure

    def _wait_for_load(self, count: int) -> None:
        """Return once so many operations were done, or late: moments of kills count from here."""
        deadline = time.monotonic() + _WARM_UP_S
        while self._journal.count < count and time.monotonic() < deadline:
            time.sleep(0.02)

    def _requests(self, planned: Round, number: int) -> Requests:
        endpoints = self._deployment.endpoints
        return Requests(planned.number, f"http-{number}", endpoints, self._journal, number)

    def _retry_cubes(self, planned: Round) -> list[Violation]:
        """Clients that were killed go on, and come to their end; their stores hold nothing untrue."""
        found = list(checking.untrue_files(visible_blobs(self._homes)))
        for home, commands in zip(self._homes.values(), planned.cubes, strict=True):
            for what in map(unhurt, commands[-2:]):
                code, said = run_cube_command(home, what, planned.number, self._journal)
                if code:
                    found.append(Violation(f"memcube {what.words[0]} fails", said[-1500:]))
        return found + list(checking.untrue_files(visible_blobs(self._homes)))

    def _sweep(self) -> list[Violation]:
        self._deployment.sweep()
        found = self._checker.check_swept() + self._deployment.own_check()
        return found + self._deployment.strays()


def _line(result: Result) -> str:
    last = result.rounds[-1]
    return (
        f"round {last['number']}: {last['kills']} kills, {last['operations']} operations, "
        f"load {last['load_s']} s, recovery {last['recovery_s']} s, check {last['check_s']} s, "
        f"{last['violations']} violations; {sum(result.strikes.values())} strikes so far"
    )


def new_seed() -> int:
    return secrets.randbelow(1_000_000)
