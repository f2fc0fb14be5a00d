"""`memcube` processes that publish and fetch cubes, and are killed at planned moments after their start."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from support.machine import Machine
from support.servers import command

from chaos.journal import Event, Journal, Outcome
from chaos.plan import CubeCommand, Fault

RECORDS = 2000
_AT_MOST_S = 60.0


@dataclass(frozen=True)
class CubeHome:
    """One user of `memcube`: a machine, a folder to publish, a cube of its own."""

    machine: Machine
    folder: Path
    name: str
    seed: int

    def source(self, version: str) -> Path:
        """The folder of a version, written at its first use: mostly what the one before held."""
        folder = self.folder / version
        plaintext = folder / "plaintext"
        if not plaintext.exists():
            plaintext.mkdir(parents=True)
            chance = random.Random(f"{self.seed}/{self.name}")
            lines = [
                f'{{"id":"r{number}","text":"{chance.randbytes(40).hex()}"}}\n'
                for number in range(RECORDS)
            ]
            lines[chance.randrange(RECORDS)] = f'{{"id":"version","text":"{version}"}}\n'
            (plaintext / "notes.jsonl").write_text("".join(lines))
        return folder

    def words(self, what: CubeCommand) -> list[str]:
        reference = f"{self.name}:{what.version}"
        if what.words == ("push",):
            return ["push", str(self.source(what.version)), reference, "--quiet"]
        return [*what.words, reference, "--quiet"]


class CubeClient(threading.Thread):
    """Runs its commands one after the other until `stop`; `killed` is told of each kill."""

    def __init__(
        self,
        home: CubeHome,
        commands: tuple[CubeCommand, ...],
        round_number: int,
        journal: Journal,
        stop: threading.Event,
        killed: Callable[[Fault], None],
    ) -> None:
        super().__init__(name="cube client", daemon=True)
        self._home, self._commands = home, commands
        self._round, self._journal = round_number, journal
        self._stop_asked, self._killed = stop, killed
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            for what in self._commands:
                if self._stop_asked.is_set():
                    return
                run_cube_command(self._home, what, self._round, self._journal, self._killed)
        except BaseException as error:  # a mistake of the harness must not look like a calm round
            self.failure = error


def run_cube_command(
    home: CubeHome,
    what: CubeCommand,
    round_number: int,
    journal: Journal,
    killed: Callable[[Fault], None] = lambda _: None,
) -> tuple[int, str]:
    """Exit code (negative: the signal) and output of one command, noted in the journal."""
    start = journal.now()
    process = subprocess.Popen(
        [command("memcube"), *home.words(what)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=home.machine.environment,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=what.kill_after_s or _AT_MOST_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        if what.kill_after_s is not None:
            killed(Fault.CLIENT)
    code = process.returncode
    outcome = Outcome.ACKNOWLEDGED if code == 0 else Outcome.UNKNOWN
    event = Event(
        round_number,
        home.machine.home.name,
        f"memcube {what.words[0]}",
        home.name,
        what.version,
        out.strip(),
        start,
        journal.now(),
        outcome,
        code,
        {} if code == 0 else {"answer": err[-600:]},
    )
    journal.write(event)
    return code, out + err


def unhurt(what: CubeCommand) -> CubeCommand:
    """`what` without its kill."""
    return replace(what, kill_after_s=None)


def visible_blobs(homes: Mapping[str, CubeHome]) -> list[Path]:
    """Every file that a client's store shows under a digest."""
    return [
        path
        for home in homes.values()
        for path in (home.machine.home / "store" / "blobs").rglob("*")
        if path.is_file()
    ]
