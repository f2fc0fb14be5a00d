"""`memcube doctor` and `memcube prune` count the same: blocks of the disk, cubes apart from what is made of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from memcube.dumper import MemDumper
from memcube.figures import bytes_text
from memcube.store.files import disk_bytes, disk_bytes_below
from support.machine import Machine

pytest.importorskip("qdrant_edge")
NAME = "alice/backups"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    dumper = MemDumper(tmp_path / "cube", name=NAME, version="1.0.0")
    dumper.add_records(["The third copy lies in Tartu.", "The cat eats at nine."])
    machine = Machine(tmp_path / "home", "http://127.0.0.1:9")
    machine.ok("pack", dumper.folder)
    return machine


def told(machine: Machine, what: str) -> str:
    findings = json.loads(machine.run("doctor", "--json").stdout)["findings"]
    (found,) = [one["found"] for one in findings if one["what"] == what]
    return str(found)


def index_of(machine: Machine) -> Path:
    machine.ok("context", NAME, "Where is the third copy?")
    (index,) = [one for one in (machine.home / "indexes").iterdir() if one.is_dir()]
    return index


def test_an_index_is_counted_by_what_it_takes_and_apart_from_cubes(machine: Machine) -> None:
    assert told(machine, "made of cubes").startswith("nothing yet")
    index = disk_bytes_below(index_of(machine))
    assert told(machine, "made of cubes") == f"{bytes_text(index)} of indexes"
    blobs = (machine.home / "store" / "blobs").rglob("*")
    cubes = sum(disk_bytes(one.stat()) for one in blobs if one.is_file())
    assert told(machine, "store") == f"1 cube, {bytes_text(cubes)}"
    machine.ok("rm", NAME)
    freed = machine.ok("prune")
    assert f"Freed {bytes_text(cubes)}: " in freed
    assert f"Freed {bytes_text(index)} of indexes, made of cubes that are gone" in freed
    assert told(machine, "made of cubes").startswith("nothing yet")


def test_the_index_of_a_small_cube_takes_less_than_a_mebibyte(machine: Machine) -> None:
    """The engine gives its files sizes for what may come; their holes take nothing."""
    index = index_of(machine)
    assert disk_bytes_below(index) < 1 << 20 < sum(one.stat().st_size for one in index.rglob("*"))
