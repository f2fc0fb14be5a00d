"""What mounts leave in the indicators, and how `memcube usage` shows it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from memcube.client import Client
from memcube.dumper import MemDumper
from memcube.usage import Sidecar
from support.machine import Machine
from support.quirky import quirky

pytest.importorskip("qdrant_edge")
TEAM, OWN = "acme/team", "alice/notes"


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """A machine with two cubes that were packed there."""
    folder = tmp_path_factory.mktemp("usage")
    machine = Machine(folder / "home", "http://127.0.0.1:9")
    told = {TEAM: ["Ada is on call.", "The ferry leaves at nine."], OWN: ["On call pagers beep."]}
    for name, texts in told.items():
        dumper = MemDumper(folder / name.replace("/", "-"), name=name, version="1.0.0")
        dumper.add_records(
            {"id": f"{name.partition('/')[2]}-{number}", "text": text}
            for number, text in enumerate(texts)
        )
        machine.ok("pack", dumper.folder)
    return machine


@pytest.fixture(autouse=True)
def fresh_indicators(machine: Machine) -> None:
    machine.ok("usage", "--forget")


def use(client: Client) -> None:
    """One mount of both cubes: a search, a reading, and text for an answer."""
    with client.mount([TEAM, OWN]) as memory:
        assert memory.search("when does the ferry leave", limit=1)[0].record.id == "team-1"
        memory.read("notes-0")
        assert "Ada" in memory.context("who is on call")


def test_searches_readings_and_answers_are_counted_by_record(machine: Machine) -> None:
    with machine.client() as client:
        use(client)
    kept = Sidecar(machine.home / "usage")
    team = {one.record: one for one in kept.records(TEAM)}
    assert (team["team-1"].accesses, team["team-1"].answers) == (1, 0)
    assert (team["team-0"].accesses, team["team-0"].answers) == (0, 1)
    assert team["team-0"].score > 0
    (answer,) = kept.answers(TEAM)
    assert {(one.cube, one.record) for one in answer.used} == {(TEAM, "team-0"), (OWN, "notes-0")}
    assert [one.mounts for one in kept.versions(OWN)] == [1]


def test_only_what_fits_the_budget_counts_as_used_for_the_answer(machine: Machine) -> None:
    with machine.client() as client, client.mount([TEAM, OWN]) as memory:
        assert memory.context("who is on call", budget_tokens=105)
    (answer,) = Sidecar(machine.home / "usage").answers(TEAM)
    assert [one.record for one in answer.used] == ["team-0"]


def test_no_question_and_no_text_is_kept(machine: Machine) -> None:
    with machine.client() as client:
        use(client)
    for path in (machine.home / "usage").iterdir():
        content = path.read_bytes().lower()
        assert b"ferry" not in content
        assert b"on call" not in content
        assert b"who is" not in content


def test_the_command_shows_cubes_versions_records_and_answers(machine: Machine) -> None:
    assert "No cube was used" in machine.ok("usage")
    assert "was not used on this machine yet" in machine.ok("usage", "alice/other")
    with machine.client() as client:
        use(client)
    shown = {row.split()[0]: row.split()[1:5] for row in machine.ok("usage").splitlines()}
    assert shown[TEAM] == ["1", "1", "1", "2"]
    assert shown[OWN] == ["1", "1", "1", "1"]
    told = machine.ok("usage", TEAM, "--answers")
    assert "acme/team: 1 mount, 1 record found, 1 answer, last used 20" in told
    assert "team-0, notes-0" in told or "notes-0, team-0" in told
    value = machine.json("usage", TEAM, "--answers")
    assert {one["record"] for one in value["records"]} == {"team-0", "team-1"}
    assert value["strength"] > 0
    assert len(value["answers"]) == len(value["versions"]) == 1
    assert len(machine.json("usage", TEAM, "--limit", "1")["records"]) == 1


def test_one_cube_is_forgotten_and_the_other_stays(machine: Machine) -> None:
    with machine.client() as client:
        use(client)
    assert "Forgot how acme/team" in machine.ok("usage", TEAM, "--forget")
    assert "nothing to forget" in machine.ok("usage", TEAM, "--forget")
    assert [cube["cube"] for cube in machine.json("usage")["cubes"]] == [OWN]


def test_nothing_is_counted_where_the_user_says_so(machine: Machine) -> None:
    quiet = Machine(machine.home, machine.url, more={"MEMCUBE_USAGE": "0"})
    with quiet.client() as client:
        use(client)
    assert "Nothing is counted: usage = false" in quiet.ok("usage")
    assert not (machine.home / "usage" / "usage.db").exists()


@pytest.mark.parametrize("harm", ["damaged", "a folder", "no permission"])
def test_a_mount_works_whatever_became_of_the_file(machine: Machine, harm: str) -> None:
    folder: Path = machine.home / "usage"
    folder.mkdir(exist_ok=True)
    path = folder / "usage.db"
    if harm == "damaged":
        path.write_bytes(b"rubbish" * 2000)
    elif harm == "a folder":
        path.mkdir()
    else:
        path.touch(mode=0)
    try:
        with machine.client() as client:
            use(client)
    finally:
        path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)


def test_a_file_that_cannot_be_read_is_an_error_with_a_way_out(machine: Machine) -> None:
    folder: Path = machine.home / "usage"
    folder.mkdir(exist_ok=True)
    (folder / "usage.db").write_bytes(b"rubbish" * 2000)
    done = machine.run("usage", "--json")
    problem = json.loads(done.stdout)
    assert problem["code"] == "storage"
    assert "memcube usage --forget" in problem["hint"]
    machine.ok("usage", "--forget")
    machine.ok("usage")


def test_a_pulled_cube_is_found_by_its_short_and_its_long_name(tmp_path: Path) -> None:
    with quirky() as registry:
        machine = Machine(tmp_path / "home", registry.url)
        dumper = MemDumper(tmp_path / "cube", name="acme/pulled", version="1.0.0")
        dumper.add_records(["Ada is on call."])
        machine.ok("push", dumper.folder)
        reader = Machine(tmp_path / "reader", registry.url)
        reader.ok("mount", "acme/pulled", "--ask", "who is on call")
        for name in ("acme/pulled", f"{registry.host}/acme/pulled:1.0.0"):
            value = reader.json("usage", name)
            assert value["cube"] == f"{registry.host}/acme/pulled"
            assert (value["mounts"], value["answers"]) == (1, 1)
