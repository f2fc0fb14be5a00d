"""Our client against `hf upload` and `hf download`, on the test server of the Hub, 1 GiB at a time."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.hub_machine import NOBODYS_REGISTRY
from support.machine import Machine
from support.measuring import GIB, MIB, Cost, alternate, measure, medians, report, write_random
from support.servers import clean_environment, command, run

FILES = 32
ROUNDS = 3
CUBE_BYTES = int(os.environ.get("BENCH_HUB_MIB", GIB // MIB)) * MIB
TESTS = Path(__file__).parents[1]
OURS, PEER = "memcube", "hf"


@dataclass(frozen=True)
class Served:
    """An empty Hub as a process of its own: its address, a token, and the process."""

    url: str
    token: str
    pid: int

    def environment(self, home: Path) -> dict[str, str]:
        """Variables of a user whose caches are new."""
        return clean_environment(
            HF_ENDPOINT=self.url,
            HF_TOKEN=self.token,
            HF_HOME=str(home),
            HF_HUB_DISABLE_XET="1",
            HF_HUB_DISABLE_TELEMETRY="1",
            HF_HUB_DISABLE_UPDATE_CHECK="1",
            HF_HUB_DISABLE_PROGRESS_BARS="1",
        )


@contextmanager
def fresh_hub(folder: Path) -> Iterator[Served]:
    """A Hub on which nothing lies, with its files below `folder`, which is emptied after."""
    folder.mkdir(parents=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "support.hub", str(folder), "bench"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=clean_environment(PYTHONPATH=str(TESTS)),
        text=True,
    )
    try:
        assert process.stdout is not None
        started = json.loads(process.stdout.readline())
        yield Served(started["url"], started["token"], process.pid)
    finally:
        process.communicate(timeout=60)
        shutil.rmtree(folder)


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """A folder that is emptied at once: these files are large."""
    yield tmp_path
    shutil.rmtree(tmp_path, ignore_errors=True)


def make_cube(folder: Path) -> Path:
    """A cube folder with attachments of random bytes."""
    done = run([command("memcube"), "init", str(folder), "--name", "bench/cube"])
    assert done.returncode == 0, done.stderr
    (folder / "attachments").mkdir()
    for number in range(FILES):
        write_random(folder / "attachments" / f"part-{number:02}.wav", CUBE_BYTES // FILES)
    return folder


def with_memcube(cube: Path, scratch: Path) -> dict[str, Cost]:
    """Pack, sign and upload; upload what is packed; pull on another machine, verified."""
    found: dict[str, Cost] = {}
    for packed in (False, True):
        with fresh_hub(scratch / "hub") as hub:
            home = scratch / "memcube"
            publisher = Machine(home, NOBODYS_REGISTRY, more=hub.environment(home / "hf"))
            if packed:
                publisher.own_process = True
                publisher.ok("pack", cube)
            source = "bench/cube" if packed else str(cube)
            name = "upload of a packed cube" if packed else "upload"
            words = [command("memcube"), "push", source, "hf://bench/cube"]
            found[name] = measure(words, server=hub.pid, env=publisher.environment)
            if not packed:
                reader = Machine(scratch / "reader", NOBODYS_REGISTRY, more=publisher.more)
                words = [command("memcube"), "pull", "hf://bench/cube"]
                found["download"] = measure(words, server=hub.pid, env=reader.environment)
                shutil.rmtree(reader.home)
            shutil.rmtree(home)
    return found


def with_hf(cube: Path, scratch: Path) -> dict[str, Cost]:
    with fresh_hub(scratch / "hub") as hub:
        environment = hub.environment(scratch / "hf")
        words = [command("hf"), "upload", "bench/cube", str(cube), "."]
        upload = measure(words, server=hub.pid, env=environment)
        target = scratch / "out"
        words = [command("hf"), "download", "bench/cube", "--local-dir", str(target)]
        download = measure(words, server=hub.pid, env=environment)
        shutil.rmtree(target)
        shutil.rmtree(scratch / "hf", ignore_errors=True)
    return {"upload": upload, "download": download}


def test_upload_and_download_of_one_gibibyte(scratch: Path) -> None:
    cube = make_cube(scratch / "cube")
    others: dict[str, dict[str, list[Cost]]] = {OURS: {}, PEER: {}}

    def upload(name: str, way: Callable[[Path, Path], dict[str, Cost]]) -> Cost:
        costs = way(cube, scratch)
        for what, cost in costs.items():
            others[name].setdefault(what, []).append(cost)
        return costs["upload"]

    alternate(
        {OURS: lambda: upload(OURS, with_memcube), PEER: lambda: upload(PEER, with_hf)}, ROUNDS
    )
    rows = [
        [
            what,
            f"{name} {_verb(name, what)}",
            cost.wall_s,
            cost.total_cpu_s,
            cost.client_cpu_s,
            cost.peak_bytes // MIB,
        ]
        for what in ("upload", "upload of a packed cube", "download")
        for name in (OURS, PEER)
        if what in others[name]
        for cost in [medians(others[name][what])]
    ]
    columns = ["1 GiB", "with", "wall s", "CPU s in all", "client CPU s", "client peak MiB"]
    title = f"1 GiB in {FILES} files to and from the Hub's test server, medians of {ROUNDS}"
    if CUBE_BYTES == GIB:
        report("hub", title, columns, rows)
    else:
        print(json.dumps(rows, indent=1))


def _verb(name: str, what: str) -> str:
    if name == PEER:
        return what
    return "pull, verified" if what == "download" else "push"
