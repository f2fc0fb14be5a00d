"""The registry of the demo: a process of its own, as a user would start it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from memcube_protocol.digest import Digest
from memcube_protocol.errors import MissingDependencyError, NotFoundError, UnavailableError

_STOP_S = 10


class DemoRegistry:
    """`memcube serve` with SQLite and local files in `data`; a context manager.

    Raises:
        MissingDependencyError: the registry is not installed.
        UnavailableError: it did not start.
    """

    def __init__(self, data: Path) -> None:
        self.data = data
        self.url = ""

    def __enter__(self) -> Self:
        command = [_program("memcube"), "serve", "--port", "0", "--data", str(self.data)]
        log = self.data.with_suffix(".log").open("wb")
        with log:
            self._process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, env=_environment(), text=True
            )
        assert self._process.stdout
        words = self._process.stdout.readline().split()
        self.url = next((word.rstrip(",") for word in words if word.startswith("http://")), "")
        if not self.url:
            self._stop()
            log_text = self.data.with_suffix(".log").read_text("utf-8", "replace")[-2000:]
            raise UnavailableError(
                f"the registry did not start: {log_text}",
                hint="run `memcube serve` to see why",
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def create_account(self, name: str, *scopes: str) -> str:
        """A new account; says a token of it."""
        self._administer("account", "create", name)
        chosen = [word for scope in scopes for word in ("--scope", scope)]
        return self._administer("token", "create", name, *chosen, "--quiet")

    def blob_file(self, digest: Digest) -> Path:
        """The file on the registry's disk that holds `digest`: found by its content.

        Raises:
            NotFoundError: there is none.
        """
        for path in self.data.rglob("*"):
            if path.is_file() and Digest.of(path.read_bytes()) == digest:
                return path
        raise NotFoundError(f"the registry's disk holds no blob {digest}", hint="push it first")

    def _administer(self, *arguments: str) -> str:
        command = [_program("memcube-registry"), *arguments, "--data", str(self.data)]
        done = subprocess.run(
            command, check=True, capture_output=True, env=_environment(), text=True
        )
        return done.stdout.strip()

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()


def _program(name: str) -> str:
    """The program beside this interpreter."""
    path = Path(sys.executable).with_name(name)
    if not path.exists():
        raise MissingDependencyError(
            f"{name} is not installed beside this Python",
            hint="pip install 'memcube[registry,torch,plaintext]'",
        )
    return str(path)


def _environment(drop: Sequence[str] = ("MEMCUBE_",)) -> dict[str, str]:
    """The environment without settings of the user's own client and registry."""
    return {key: text for key, text in os.environ.items() if not key.startswith(tuple(drop))}
