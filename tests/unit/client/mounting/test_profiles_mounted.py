"""A role mounts its own memories and no others, up to its own ceiling, for its own uses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from memcube.client import Client
from memcube.dumper import MemDumper
from memcube.memories.plaintext.filters import Filters
from memcube.settings import Settings
from memcube_protocol.errors import (
    EXIT_NOT_FOUND,
    EXIT_RULE,
    InvalidRequestError,
    NotFoundError,
    RuleRefusedError,
)
from support.machine import Machine

pytest.importorskip("qdrant_edge")

CONFIG = """
[profile.work]
cubes = [{ cube = "acme/team", priority = 1 }, { cube = "alice/notes", priority = 9 }]
budget_tokens = 120
sensitivity = "internal"

[profile.home]
cubes = ["alice/notes"]

[profile.secret]
cubes = ["alice/diary"]
sensitivity = "confidential"

[profile.texts]
cubes = ["acme/team"]
filters = ["memory=plaintext"]

[profile.caches]
cubes = ["acme/team"]
filters = ["kind=activation"]
"""
RECORDS = {
    "acme/team": [
        {"id": "call", "text": "Ada is on call this week.", "sensitivity": "internal"},
        {"id": "pay", "text": "What Ada earns while on call.", "sensitivity": "restricted"},
        *({"id": f"n{n}", "text": f"On call note number {n}."} for n in range(9)),
    ],
    "alice/notes": [{"id": "pager", "text": "The pager for who is on call lies in the drawer."}],
    "alice/diary": [
        {"id": "dream", "text": "A dream of being on call."},
        {"id": "told", "text": "Ada told all of her week on call.", "sensitivity": "public"},
    ],
}
GOVERNANCE = {"alice/diary": '\n[governance]\nsensitivity = "restricted"\n'}


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    folder: Path = tmp_path_factory.mktemp("profiles")
    machine = Machine(folder / "home", "http://127.0.0.1:9")
    machine.home.mkdir()
    (machine.home / "config.toml").write_text(CONFIG)
    for name, records in RECORDS.items():
        dumper = MemDumper(folder / name.replace("/", "-"), name=name, version="1.0.0")
        dumper.add_records(records)
        with (dumper.folder / "memcube.toml").open("a") as toml:
            toml.write(GOVERNANCE.get(name, ""))
        machine.ok("pack", dumper.folder)
    return machine


@pytest.fixture(scope="module")
def client(machine: Machine) -> Client:
    return Client(Settings.load(machine.environment))


def test_a_profile_mounts_its_cubes_with_their_priorities_and_its_budget(client: Client) -> None:
    with client.mount(profile="work") as memory:
        assert [(cube.name, cube.priority) for cube in memory.cubes] == [
            ("alice/notes:1.0.0", 9),
            ("acme/team:1.0.0", 1),
        ]
        assert memory.budget_tokens == 120
        assert memory.search("on call", limit=1)[0].record.id == "pager"
    with client.mount(profile="work", budget_tokens=60) as memory:
        assert memory.budget_tokens == 60


def test_one_role_does_not_see_the_memories_of_another(client: Client) -> None:
    with client.mount(profile="home") as memory:
        assert {hit.cube for hit in memory.records()} == {"alice/notes:1.0.0"}


def test_records_above_the_ceiling_stay_out_however_they_are_asked_for(client: Client) -> None:
    """The cube calls itself public: its publisher forgot to say what its records are."""
    with client.mount(profile="work") as memory:
        found = memory.search("what Ada earns on call", limit=50)
        asked = memory.search("Ada earns", filters=Filters(sensitivity="restricted"))
        lower = memory.search("Ada on call", filters=Filters(sensitivity="public"))
        listed = {hit.record.id for hit in memory.records()}
        for hits in (found, asked):
            assert "pay" not in {hit.record.id for hit in hits}
            assert "call" in {hit.record.id for hit in hits}
        assert "call" not in {hit.record.id for hit in lower}
        assert "pay" not in listed
        assert "call" in listed
        assert "earns" not in memory.context("what does Ada earn", budget_tokens=2000)
        with pytest.raises(NotFoundError):
            memory.read("pay")
    with client.mount("acme/team") as memory:
        assert memory.read("pay")


def test_a_record_without_a_label_has_the_sensitivity_of_its_cube(client: Client) -> None:
    with client.mount(["alice/diary", "alice/notes"]) as memory:
        for asked, wanted in (
            ("public", {"pager", "told"}),  # a label of its own counts, also a lower one
            ("confidential", {"pager", "told"}),
            ("restricted", {"pager", "told", "dream"}),
        ):
            found = memory.search("on call", filters=Filters(sensitivity=asked))
            assert {hit.record.id for hit in found} == wanted
        assert memory.read("dream").record.sensitivity == "restricted"
        assert memory.read("pager").record.sensitivity is None


def test_a_cube_above_the_ceiling_of_the_role_is_refused(client: Client) -> None:
    with pytest.raises(RuleRefusedError, match="at most confidential"):
        client.mount(profile="secret")
    (choice,) = client.plan(profile="secret").choices
    assert "sensitivity = restricted: here at most confidential is taken" in choice.why
    with client.mount("alice/diary") as memory:
        assert memory.read("dream")


def test_the_filters_of_a_profile_hold_unless_others_are_given(client: Client) -> None:
    with client.mount(profile="texts") as memory:
        assert memory.read("call")
    with pytest.raises(NotFoundError, match="activation"):
        client.mount(profile="caches")
    with client.mount(profile="caches", filters=["kind=plaintext"]) as memory:
        assert memory.read("call")


def test_cubes_or_a_profile_are_named_and_not_both(client: Client) -> None:
    for references, profile in ((["alice/diary"], "work"), ("alice/diary", "work"), ((), None)):
        with pytest.raises(InvalidRequestError):
            client.mount(references, profile=profile)
    with pytest.raises(NotFoundError, match="no profile 'wrok'"):
        client.mount(profile="wrok")


def test_the_command_mounts_a_profile(machine: Machine) -> None:
    told = machine.ok("mount", "--profile", "work", "--ask", "who has the pager on call")
    assert "The pager for who is on call" in told
    assert "earns" not in told
    assert "alice/notes" in machine.ok("mount", "--profile", "work", "--dry-run")
    machine.fails(EXIT_NOT_FOUND, "mount", "--profile", "wrok")
    assert "at most confidential" in machine.fails(EXIT_RULE, "mount", "--profile", "secret")


def test_a_dry_run_says_what_the_mount_would_end_with_and_shows_the_overlay(
    machine: Machine, tmp_path: Path
) -> None:
    from memcube.overlay import Overlay

    planned = machine.ok("mount", "--profile", "secret", "--dry-run")
    assert "a mount would be refused: the rules of " in planned
    assert json.loads(machine.ok("mount", "--profile", "secret", "--dry-run", "--json"))[
        "refusedCubes"
    ]
    Overlay.open(tmp_path / "own").close()
    for words in ((), ("--profile", "work")):
        planned = machine.ok("mount", *words, "--overlay", tmp_path / "own", "--dry-run")
        assert "your own overlay, searched by words" in planned
        assert "refused" not in planned
