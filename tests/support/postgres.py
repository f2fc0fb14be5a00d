"""A PostgreSQL of this test run's own: made when first asked for, gone at the end.

Every process of the tests has one cluster. A test gets a database of its own in it: empty, or a copy
of one that was migrated once, for migrating takes longer than most tests.
"""

from __future__ import annotations

import atexit
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import psycopg
import pytest
from memcube_registry.database import Database

from support.measuring import descendants


@dataclass(frozen=True)
class Cluster:
    """A PostgreSQL server that listens on a socket in `folder` and nowhere else."""

    folder: Path

    def url(self, name: str) -> str:
        """The URL of its database `name`."""
        return f"postgresql://memcube@/{name}?host={self.folder}"

    def start(self) -> None:
        """Start it; what was committed before it was killed is there again."""
        options = (
            f"-k {self.folder} -c listen_addresses='' -c fsync=off -c full_page_writes=off"
            " -c autovacuum=off -c max_connections=200"
        )
        self._control("-l", self.folder / "log", "-w", "-o", options, "start")

    def stop(self, how: str = "immediate") -> None:
        """Stop it: `immediate` as a crash would, `fast` in order."""
        self._control("-m", how, "-w", "stop")

    def kill(self) -> None:
        """End it as a power cut would; what it had begun is gone when this returns."""
        pid = self._pid()
        for process in reversed(descendants(pid)):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        while self.is_running():
            time.sleep(0.01)

    def kill_backend(self) -> bool:
        """End one process that serves a client, if there is one: the others end and recover."""
        found = self.execute(
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'"
            " AND pid <> pg_backend_pid() ORDER BY pid LIMIT 1"
        )
        if found:
            os.kill(found[0][0], signal.SIGKILL)
        return bool(found)

    def is_running(self) -> bool:
        """Whether its first process is there, and not only waiting to be reaped."""
        try:
            return " Z " not in Path(f"/proc/{self._pid()}/stat").read_text()
        except FileNotFoundError:
            return False

    def _pid(self) -> int:
        return int((self.folder / "data" / "postmaster.pid").read_text().splitlines()[0])

    def remove(self) -> None:
        """Stop it and forget everything."""
        if (self.folder / "data" / "postmaster.pid").exists():
            self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def execute(self, statement: str, database: str = "postgres") -> list[Any]:
        """Run one statement as its owner; the rows that it returns."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def create(self, template: str | None = None) -> str:
        """The name of a new database: a copy of `template`, or empty."""
        name = f"test_{uuid.uuid4().hex}"
        self.execute(f'CREATE DATABASE "{name}"' + (f' TEMPLATE "{template}"' if template else ""))
        return name

    def drop(self, name: str) -> None:
        """Remove a database, whoever is connected to it."""
        self.execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    def _control(self, *words: Any) -> None:
        _run("pg_ctl", "-D", self.folder / "data", *words, home=self.folder)


def new_cluster() -> Cluster:
    """A running cluster; skips the test where PostgreSQL is not installed."""
    if shutil.which("initdb") is None or shutil.which("pg_ctl") is None:
        pytest.skip("PostgreSQL (initdb, pg_ctl) is not installed")
    folder = Path(tempfile.mkdtemp(prefix="memcube-pg-"))
    if os.getuid() == 0:
        shutil.chown(folder, _account())
    _run("initdb", "-D", folder / "data", "-U", "memcube", "-A", "trust", "-N", home=folder)
    cluster = Cluster(folder)
    cluster.start()
    return cluster


@contextmanager
def own_cluster() -> Iterator[Cluster]:
    """A cluster that a test may kill."""
    cluster = new_cluster()
    try:
        yield cluster
    finally:
        cluster.remove()


@lru_cache(maxsize=1)
def shared_cluster() -> Cluster:
    """The cluster of this process."""
    cluster = new_cluster()
    atexit.register(cluster.remove)
    return cluster


def postgres_url() -> str:
    """URL of a fresh, empty database; skips the test where PostgreSQL is not installed."""
    cluster = shared_cluster()
    return cluster.url(cluster.create())


@contextmanager
def migrated_url() -> Iterator[str]:
    """URL of a fresh database with every table, which is gone afterwards."""
    cluster = shared_cluster()
    name = cluster.create(_template())
    try:
        yield cluster.url(name)
    finally:
        cluster.drop(name)


@lru_cache(maxsize=1)
def _template() -> str:
    """The name of a database with every table and no row, to copy."""
    cluster = shared_cluster()
    name = cluster.create()
    with closing(Database(cluster.url(name))) as database:
        database.migrate()
    return name


def _run(*command: Any, home: Path) -> None:
    # PostgreSQL refuses to run as root.
    account: dict[str, Any] = {"user": _account()} if os.getuid() == 0 else {}
    subprocess.run(
        command,
        check=True,
        env={**os.environ, "LC_ALL": "C.UTF-8", "HOME": str(home)},
        cwd="/",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=90,
        **account,
    )


def _account() -> str:
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"
