"""`memcube doctor` tells what is wrong as rows, also where nothing else works."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from memcube.cli.commands.doctor import can_be_written
from support.machine import Machine


def rows(machine: Machine) -> dict[str, tuple[str, str]]:
    findings = json.loads(machine.run("doctor", "--json").stdout)["findings"]
    return {one["what"]: (one["state"], one["found"]) for one in findings}


def test_wrong_settings_are_a_row_among_others(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "http://127.0.0.1:9")
    (tmp_path / "config.toml").write_text("paralel = 4\n")
    told = rows(machine)
    assert told["settings"][0] == "problem"
    assert "paralel" in told["settings"][1]
    assert "memcube[torch]" in told


def test_a_folder_that_is_not_there_can_be_written_where_it_can_be_made(tmp_path: Path) -> None:
    assert can_be_written(tmp_path / "new" / "home")
    (tmp_path / "file").write_text("")
    assert not can_be_written(tmp_path / "file" / "home")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_home_that_cannot_be_written_is_a_problem(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "home", "http://127.0.0.1:9")
    machine.home.mkdir(mode=0o500)
    state, found = rows(machine)["store"]
    assert state == "problem"
    assert "cannot be written" in found
