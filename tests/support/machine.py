"""A user's machine: the `memcube` command with a home of its own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memcube.cli.run import run
from memcube.client import Client
from memcube.settings import Settings

from support.commands import run_here
from support.servers import clean_environment, command

if TYPE_CHECKING:
    from conftest import Person


@dataclass
class Machine:
    """A home folder for one user of the registry at `url`.

    Commands run inside this process, which spares a start of half a second each, or with
    `own_process` as users run them.
    """

    home: Path
    url: str
    token: str | None = None
    more: dict[str, str] = field(default_factory=dict)
    own_process: bool = False

    @property
    def environment(self) -> dict[str, str]:
        settings = {
            "MEMCUBE_HOME": str(self.home),
            "MEMCUBE_ENDPOINT": self.url,
            "MEMCUBE_KEYRING": "0",
            "MEMCUBE_KEY_UNENCRYPTED": "1",
            **({"MEMCUBE_TOKEN": self.token} if self.token else {}),
        }
        return clean_environment(**settings, **self.more)

    def run(
        self, *arguments: str | Path, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """`memcube` with `arguments`, whatever its exit code."""
        words = [*map(str, arguments)]
        if self.own_process:
            return subprocess.run(
                [command("memcube"), *words],
                input=stdin or "",
                capture_output=True,
                text=True,
                env=self.environment,
                timeout=110,
                check=False,
            )
        return run_here(run, words, self.environment, stdin or "")

    def ok(self, *arguments: str | Path, **options: Any) -> str:
        """Output of a command that has to succeed."""
        done = self.run(*arguments, **options)
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def json(self, *arguments: str | Path) -> dict[str, Any]:
        """Answer of a command that has to succeed, as JSON."""
        answer: dict[str, Any] = json.loads(self.ok(*arguments, "--json"))
        return answer

    @contextmanager
    def client(self) -> Iterator[Client]:
        """The SDK's client on this machine."""
        with Client(Settings.load(self.environment)) as client:
            yield client

    def fails(self, code: int, *arguments: str | Path) -> str:
        """What a command says on stderr that has to end with the exit code `code`."""
        done = self.run(*arguments)
        assert done.returncode == code, f"{arguments}: {done.returncode} {done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        assert "\nhint: " in done.stderr
        return done.stderr


@contextmanager
def client_on(home: Path, person: Person) -> Iterator[Client]:
    """The client of `person` on a machine of its own, whose home is `home`."""
    environ = {
        "MEMCUBE_HOME": str(home),
        "MEMCUBE_ENDPOINT": person.server.url,
        "MEMCUBE_TOKEN": person.token,
        "MEMCUBE_KEYRING": "0",
    }
    with Client(Settings.load(environ)) as client:
        yield client
