"""A user's machine: the `memcube` command with a home of its own, run as a process."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.servers import clean_environment, command


@dataclass
class Machine:
    """A home folder for one user of the registry at `url`."""

    home: Path
    url: str
    token: str | None = None
    more: dict[str, str] = field(default_factory=dict)

    def run(
        self, *arguments: str | Path, cwd: Path | None = None, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """`memcube` with `arguments`, whatever its exit code."""
        settings = {
            "MEMCUBE_HOME": str(self.home),
            "MEMCUBE_ENDPOINT": self.url,
            "MEMCUBE_KEYRING": "0",
            "MEMCUBE_KEY_UNENCRYPTED": "1",
            **({"MEMCUBE_TOKEN": self.token} if self.token else {}),
            **self.more,
        }
        return subprocess.run(
            [command("memcube"), *map(str, arguments)],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            env=clean_environment(**settings),
            cwd=cwd,
            timeout=110,
            check=False,
        )

    def ok(self, *arguments: str | Path, **options: Any) -> str:
        """Output of a command that has to succeed."""
        done = self.run(*arguments, **options)
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def json(self, *arguments: str | Path) -> dict[str, Any]:
        """Answer of a command that has to succeed, as JSON."""
        answer: dict[str, Any] = json.loads(self.ok(*arguments, "--json"))
        return answer

    def fails(self, code: int, *arguments: str | Path) -> str:
        """What a command says on stderr that has to end with the exit code `code`."""
        done = self.run(*arguments)
        assert done.returncode == code, f"{arguments}: {done.returncode} {done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        assert "\nhint: " in done.stderr
        return done.stderr
