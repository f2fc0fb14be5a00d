"""A PostgreSQL of this test run's own: made when first asked for, gone at the end."""

from __future__ import annotations

import atexit
import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from functools import lru_cache
from pathlib import Path
from typing import Any

import psycopg
import pytest


def postgres_url() -> str:
    """URL of a fresh, empty database; skips the test where PostgreSQL is not installed."""
    if shutil.which("initdb") is None or shutil.which("pg_ctl") is None:
        pytest.skip("PostgreSQL (initdb, pg_ctl) is not installed")
    folder = _cluster()
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(host=str(folder), user="memcube", dbname="postgres", autocommit=True) as c:
        c.execute(f'CREATE DATABASE "{name}"')
    return f"postgresql://memcube@/{name}?host={folder}"


@lru_cache(maxsize=1)
def _cluster() -> Path:
    """Folder of a running cluster that listens on a socket in it and nowhere else."""
    folder = Path(tempfile.mkdtemp(prefix="memcube-pg-"))
    # PostgreSQL refuses to run as root.
    account: dict[str, Any] = {"user": _account()} if os.getuid() == 0 else {}
    if account:
        shutil.chown(folder, account["user"])
    data = folder / "data"
    environ = {**os.environ, "LC_ALL": "C.UTF-8", "HOME": str(folder)}
    _run(["initdb", "-D", data, "-U", "memcube", "-A", "trust", "-N"], account, environ)
    options = f"-k {folder} -c listen_addresses='' -c fsync=off -c max_connections=200"
    log = folder / "log"
    _run(["pg_ctl", "-D", data, "-l", log, "-w", "-o", options, "start"], account, environ)
    atexit.register(_stop, folder, account, environ)
    return folder


def _stop(folder: Path, account: dict[str, Any], environ: dict[str, str]) -> None:
    _run(["pg_ctl", "-D", folder / "data", "-m", "immediate", "stop"], account, environ)
    shutil.rmtree(folder, ignore_errors=True)


def _run(command: list[Any], account: dict[str, Any], environ: dict[str, str]) -> None:
    subprocess.run(
        command,
        check=True,
        env=environ,
        cwd="/",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=90,
        **account,
    )


def _account() -> str:
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"
