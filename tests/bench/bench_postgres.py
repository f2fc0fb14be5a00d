"""Requests a second of one registry on PostgreSQL with one, two and four processes, and who was busy."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from conftest import NO_LIMITS
from memcube_protocol.digest import Digest
from support.measuring import cpu_seconds, report
from support.postgres import postgres_url
from support.repository import ACCEPT, Repository
from support.samples import one_image
from support.servers import MemcubeServer, memcube_server
from support.wire import Wire

PROCESSES = (1, 2, 4)
SECONDS = 5
UPLOADS = 400


def postgres_pid(url: str) -> int:
    """The server's first process, above those of all connections."""
    with psycopg.connect(url) as connection:
        folder = connection.execute("SHOW data_directory").fetchone()
    assert folder is not None
    return int((Path(folder[0]) / "postmaster.pid").read_text().split()[0])


def read_by_wrk(repository: Repository, reference: str) -> float:
    done = subprocess.run(
        [
            "wrk",
            "-t1",
            "-c16",
            f"-d{SECONDS}s",
            "-H",
            f"Accept: {ACCEPT['Accept']}",
            "-H",
            f"Authorization: {repository.wire.authorization}",
            repository.wire.url + repository.path(f"manifests/{reference}"),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Non-2xx" not in done.stdout, done.stdout
    found = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    assert found, done.stdout
    return float(found.group(1))


def push_small_blobs(wire: Wire) -> float:
    """Blobs a second from eight clients: two requests and two transactions each."""

    def push(number: int) -> None:
        content = b"%d %d" % (number, time.perf_counter_ns())
        repository = Repository(wire, f"bench/cube-{number % 8}")
        assert repository.add_blob(content) == Digest.of(content)

    began = time.perf_counter()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(push, range(UPLOADS)))
    return UPLOADS / (time.perf_counter() - began)


def test_processes_on_postgresql(tmp_path: Path) -> None:
    if shutil.which("wrk") is None:
        pytest.skip("wrk is not installed")
    rows = []
    for processes in PROCESSES:
        url = postgres_url()
        settings = NO_LIMITS | {
            "MEMCUBE_REGISTRY_WORKERS": str(processes),
            "MEMCUBE_REGISTRY_DATABASE_URL": url,
        }
        with memcube_server(tmp_path / str(processes), settings) as server:
            rows += [[what, processes, *row] for what, row in measured(server, postgres_pid(url))]
    rows.sort(key=lambda row: (str(row[0]), row[1]))
    columns = ["what", "processes", "a second", "cores busy: registry", "cores busy: PostgreSQL"]
    report("postgres", "One registry on PostgreSQL, 16 connections of wrk, 8 of the pushes", columns, rows)  # fmt: skip


def measured(server: MemcubeServer, database: int) -> list[tuple[str, list[float]]]:
    server.create_account("bench")
    wire = server.wire.bearer(server.create_token("bench", "pull", "push"))
    sample, repository = one_image("v1"), Repository(wire, "bench/cube")
    sample.push(repository)
    assert server.process is not None
    acts = {
        "manifest by tag, with a token": lambda: read_by_wrk(repository, "v1"),
        "manifest by digest, with a token": lambda: read_by_wrk(repository, str(sample.top)),
        "push of a small blob": lambda: push_small_blobs(wire),
    }
    found = []
    for what, act in acts.items():
        pids = (server.process.pid, database)
        before, began = [cpu_seconds(pid) for pid in pids], time.perf_counter()
        rate = act()
        seconds = time.perf_counter() - began
        busy = [(cpu_seconds(pid) - then) / seconds for pid, then in zip(pids, before, strict=True)]
        found.append((what, [round(rate), *busy]))
    return found
