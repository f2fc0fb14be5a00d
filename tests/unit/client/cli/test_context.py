"""`memcube context`: the text for a prompt on stdout, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from memcube.dumper import MemDumper
from memcube_protocol.errors import EXIT_LIMIT, EXIT_NOT_FOUND, EXIT_USAGE
from support.kv import kv_folder
from support.machine import Machine

pytest.importorskip("qdrant_edge")
NAME, HANDBOOK = "alice/backups", "alice/handbook"


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    folder = tmp_path_factory.mktemp("context")
    dumper = MemDumper(folder / "cube", name=NAME, version="1.0.0")
    dumper.add_records(["The third copy lies in Tartu.", "The cat eats at nine."])
    machine = Machine(folder / "home", "http://127.0.0.1:9")
    machine.ok("pack", dumper.folder)
    handbook = MemDumper(folder / "handbook", name=HANDBOOK, version="1.0.0")
    kv_folder(handbook.folder, "Copies are kept for a year.")
    machine.ok("pack", handbook.folder)
    return machine


def test_the_output_is_the_context_and_nothing_else(machine: Machine) -> None:
    done = machine.run("context", NAME, "Where is the third copy?")
    with machine.client() as client, client.mount(NAME) as memory:
        assert done.stdout == memory.context("Where is the third copy?") + "\n"
    assert "Tartu" in done.stdout
    assert done.stderr == ""
    assert machine.ok("context", NAME, "Where is the third copy?", "-q") == done.stdout


def test_a_question_can_come_from_a_pipe(machine: Machine) -> None:
    piped = machine.ok("context", NAME, "-", stdin="When does the cat eat?\n")
    assert "nine" in piped
    assert machine.fails(EXIT_NOT_FOUND, "context", "alice/absent", "x", "--offline")
    assert machine.run("context", NAME, "-", stdin="x" * (2**20 + 1)).returncode == EXIT_LIMIT


def test_a_question_without_a_cube_is_told_what_is_missing(machine: Machine) -> None:
    told = machine.fails(EXIT_USAGE, "context", "Where is the third copy?")
    assert "memcube context REFERENCE QUESTION" in told


def test_where_nothing_answers_nothing_is_printed(machine: Machine) -> None:
    assert machine.ok("context", NAME, "quantum") == ""


def test_a_budget_bounds_the_text_and_json_holds_it(machine: Machine) -> None:
    answer = json.loads(machine.ok("context", NAME, "copy", "--json"))
    assert "Tartu" in answer["context"]
    assert answer["budgetTokens"] == 1024
    assert [NAME in reference for reference in answer["references"]] == [True]
    assert machine.ok("context", NAME, "copy", "--budget", "1") == ""


def test_texts_of_kv_memories_come_before_the_records_of_several_cubes(machine: Machine) -> None:
    text = machine.ok("context", NAME, HANDBOOK, "copy")
    assert text.index("kept for a year") < text.index("Tartu")


def test_own_memories_and_the_cubes_of_a_profile_are_looked_through(
    machine: Machine, tmp_path: Path
) -> None:
    from memcube.overlay import Overlay

    Overlay.open(tmp_path / "notes").remember("My own copy lies at home.")
    config = machine.home / "config.toml"
    config.write_text(f'[profile.work]\ncubes = ["{NAME}"]\n')
    try:
        words = ("--profile", "work", "--overlay", tmp_path / "notes")
        text = machine.ok("context", "copy", *words)
    finally:
        config.unlink()
    assert "at home" in text
    assert "Tartu" in text
