"""Registries run as processes on free loopback ports, with their data in temporary folders."""

from __future__ import annotations

import os
import queue
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from memcube_registry.cli import run as registry_command

from support.commands import run_here
from support.wire import Wire

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
_URL = re.compile(r"https?://[^\s/,]+")
_BIN = Path(sys.executable).parent


def command(name: str) -> str:
    """Path of a command of this environment, else of the machine."""
    local = _BIN / name
    found = str(local) if local.exists() else shutil.which(name)
    assert found, f"{name} is not installed"
    return found


def clean_environment(**more: str) -> dict[str, str]:
    """This process's environment without settings of memcube, plus `more`.

    A registry runs one worker unless `more` says otherwise: each costs a start. Bytecode is kept, as
    where memcube is installed: compiling every module takes longer than most commands.
    """
    dropped = "PYTHONDONTWRITEBYTECODE"
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("MEMCUBE_") and name != dropped
    }
    return kept | {"PYTHONUNBUFFERED": "1", "MEMCUBE_REGISTRY_WORKERS": "1"} | more


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def stop_process(process: subprocess.Popen[str], how: signal.Signals = signal.SIGTERM) -> None:
    """End a process that leads its own group, and whatever it started."""
    if process.poll() is None:
        os.killpg(process.pid, how)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.stdout is not None:
        process.stdout.close()


def first_line(process: subprocess.Popen[str], timeout_s: float) -> str:
    """The first line that `process` prints; its later output is read and dropped."""
    lines: queue.Queue[str] = queue.Queue()
    assert process.stdout is not None
    stream = process.stdout

    def drain() -> None:
        try:
            for line in stream:
                lines.put(line)
        except ValueError:
            pass  # closed while reading: the process was stopped
        lines.put("")

    threading.Thread(target=drain, daemon=True).start()
    try:
        return lines.get(timeout=timeout_s)
    except queue.Empty:
        return ""


@dataclass
class MemcubeServer:
    """Our registry: `memcube serve` on `data`, with accounts made by `memcube-registry`."""

    data: Path
    log: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    port: int = 0
    process: subprocess.Popen[str] | None = None
    url: str = ""

    def start(self) -> None:
        self.port = self.port or free_port()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [command("memcube"), "serve", "--port", str(self.port), "--data", str(self.data)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=clean_environment(**self.settings),
                start_new_session=True,
            )
        found = _URL.search(first_line(self.process, START_TIMEOUT_S))
        if not found:
            self.stop()
            raise AssertionError(f"memcube serve did not start:\n{self.log_text()[-4000:]}")
        self.url = found.group()

    def stop(self) -> None:
        if self.process is not None:
            stop_process(self.process)
            self.process = None

    def kill(self) -> None:
        """End the server as a power cut would."""
        if self.process is not None:
            stop_process(self.process, signal.SIGKILL)
            self.process = None

    @property
    def wire(self) -> Wire:
        return Wire(self.url)

    def log_text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""

    def admin(
        self, *arguments: str, check: bool = True, own_process: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """`memcube-registry` with `arguments`, on this server's data.

        It runs inside this process, or in one of its own: several at once have to.
        """
        words = [*arguments, "--data", str(self.data)]
        environment = clean_environment(**self.settings)
        if own_process:
            done = run([command("memcube-registry"), *words], env=environment)
        else:
            done = run_here(registry_command, words, environment)
        assert not check or done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done

    def create_account(self, name: str) -> None:
        self.admin("account", "create", name)

    def create_token(self, account: str, *scopes: str) -> str:
        """A fresh API token of `account`."""
        options = [part for scope in scopes for part in ("--scope", scope)]
        return self.admin("token", "create", account, *options, "--quiet").stdout.strip()


@contextmanager
def memcube_server(
    folder: Path, settings: Mapping[str, str] | None = None, *, port: int = 0
) -> Iterator[MemcubeServer]:
    """A running server whose data and log lie in `folder`; on a free port unless it is given."""
    folder.mkdir(exist_ok=True)
    server = MemcubeServer(folder / "data", folder / "server.log", dict(settings or {}), port)
    server.start()
    try:
        yield server
    finally:
        server.stop()


DOCKER_REGISTRY_CONFIG = """\
version: 0.1
log: {{level: warn, accesslog: {{disabled: true}}}}
storage:
  {storage}
  delete: {{enabled: true}}
  maintenance: {{uploadpurging: {{enabled: false}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""


@contextmanager
def docker_registry(
    folder: Path, extra: str = "", *, storage: str = ""
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """URL and process of the reference registry, with its data in `folder` unless `storage` says where."""
    port = free_port()
    config = folder / "config.yml"
    chosen = storage or f"filesystem: {{rootdirectory: {folder / 'blobs'}}}"
    config.write_text(DOCKER_REGISTRY_CONFIG.format(storage=chosen, port=port) + extra)
    with (folder / "registry.log").open("wb") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", str(config)],
            stdout=log,
            stderr=log,
            text=True,
            # With a bundle of certificates its S3 driver ends in a panic.
            env=clean_environment(OTEL_TRACES_EXPORTER="none", AWS_CA_BUNDLE=""),
            start_new_session=True,
        )
    try:
        wait_for_port(port)
        yield f"http://127.0.0.1:{port}", process
    finally:
        stop_process(process)


def wait_for_port(port: int, timeout_s: float = START_TIMEOUT_S) -> None:
    """Return once something listens on `port`."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"nothing listens on port {port}")


def run(arguments: Sequence[str], **options: object) -> subprocess.CompletedProcess[str]:
    """A finished command, whatever its exit code."""
    settings: dict[str, object] = {"capture_output": True, "text": True, "timeout": 110}
    return subprocess.run(list(arguments), check=False, **(settings | options))  # type: ignore[call-overload]
