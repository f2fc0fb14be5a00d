"""The guide to a registry for a team: its settings, its commands and its nginx make one that works."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from conftest import fresh
from support.machine import Machine
from support.nginx import nginx
from support.postgres import postgres_url
from support.published import write_cube
from support.servers import clean_environment, command, first_line, free_port, stop_process
from support.swift import SwiftServer
from support.wire import Wire

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "guide" / "run-a-registry-for-a-team.md").read_text("utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)


def replaced(text: str, pairs: dict[str, str]) -> str:
    for old, new in pairs.items():
        text = text.replace(old, new)
    return text


@contextmanager
def serving(config: Path, port: int, folder: Path, environ: dict[str, str]) -> Iterator[None]:
    """The guide's command for one machine, on a port of its own."""
    (line,) = [line for line in GUIDE.splitlines() if line.startswith("memcube-registry serve")]
    words = line.replace("/etc/memcube/registry.toml", str(config)).split()
    with (folder / f"server-{port}.log").open("wb") as log:
        process = subprocess.Popen(
            [command(words[0]), *words[1:], "--port", str(port), "--host", "127.0.0.1"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environ,
            start_new_session=True,
        )
    try:
        told = first_line(process, 60)
        assert told.startswith("memcube registry at"), (folder / f"server-{port}.log").read_text()
        yield
    finally:
        stop_process(process)


@pytest.mark.timeout(240)
def test_the_guide_makes_a_registry_that_works(s3_server: SwiftServer, tmp_path: Path) -> None:
    port, ports = free_port(), [free_port(), free_port()]
    host = f"127.0.0.1:{port}"
    pairs = {
        "https://registry.example.org": f"http://{host}",
        "registry.example.org <": f"{host} <",
        "10.0.0.0/24": "127.0.0.0/8",
        "/etc/memcube": str(tmp_path / "etc"),
        "/var/lib/memcube": str(tmp_path / "data"),
        "/mnt/backup": str(tmp_path / "backup"),
        "postgresql://memcube:SECRET@postgres:5432/memcube": postgres_url(),
        "https://s3.example.org": s3_server.endpoint_url,
        's3_bucket = "cubes"': f's3_bucket = "{fresh("bucket")}"',
    }
    assert all(old in GUIDE for old in pairs)
    machine = Machine(tmp_path / "alice", f"http://{host}")
    environ = machine.environment | s3_server.environment | clean_environment()
    environ |= {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "MEMCUBE_HOME": str(machine.home),
        "MEMCUBE_KEYRING": "0",
    }
    del environ["MEMCUBE_REGISTRY_WORKERS"]  # the guide's file says how many

    def run(script: str) -> None:
        done = subprocess.run(
            ["bash", "-c", "set -euo pipefail\n" + replaced(script, pairs)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environ,
            timeout=110,
            check=False,
        )
        assert done.returncode == 0, script + done.stdout + done.stderr

    keys, migrate, people, login, backup = blocks("sh")
    (settings,) = blocks("toml")
    run(keys)
    config = tmp_path / "etc" / "registry.toml"
    config.write_text(replaced(settings, pairs), encoding="utf-8")
    run(migrate)
    with ExitStack() as stack:
        for each in ports:
            stack.enter_context(serving(config, each, tmp_path, environ))
        url = stack.enter_context(nginx(tmp_path / "nginx", ports, port)).url
        run(people)
        run(login)
        write_cube(tmp_path / "cube", "research/notes", "1.0.0")
        machine.own_process = True
        machine.ok("push", tmp_path / "cube")
        assert machine.json("verify", f"{host}/research/notes:1.0.0")["standing"] == "trusted"
        assert [Wire(f"http://127.0.0.1:{each}").get("/readyz").status for each in ports] == [
            200,
            200,
        ]
        assert Wire(url).get("/.well-known/memcube.json").json()["registry"] == f"http://{host}"
        run(backup)
    assert list((tmp_path / "backup" / "snapshots").iterdir())
    assert (tmp_path / "etc" / "log.key").stat().st_mode & 0o777 == 0o600


def test_what_the_guide_names_exists() -> None:
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", GUIDE):
        assert (ROOT / "docs" / "guide" / link).exists(), link
    figures = (ROOT / "registry" / "memcube_registry" / "observability" / "metrics.py").read_text(
        "utf-8"
    )
    for name in re.findall(r"`(memcube_[a-z_]+)", GUIDE):
        assert name.removesuffix("_total") in figures, name
