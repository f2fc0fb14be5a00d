"""Several cubes in use at once: one search, one budget, every hit with its cube."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from memcube.client import Client
from memcube.dumper import MemDumper
from memcube.memories.plaintext.context import estimate_tokens
from memcube.memories.plaintext.hit import Hit
from memcube.memories.plaintext.ranking import Diversity
from memcube.mounting import MountedMemory
from memcube.settings import Settings
from memcube_protocol.errors import ConflictError, InvalidError, NotFoundError
from memcube_protocol.records import Record, Relation

pytest.importorskip("qdrant_edge")
TEAM, OWN = "acme/team:1.0.0", "alice/notes:1.0.0"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    home = tmp_path_factory.mktemp("several")
    environ = {"MEMCUBE_HOME": str(home / "home"), "MEMCUBE_KEYRING": "0"}
    with Client(Settings.load(environ)) as client:
        team = MemDumper(home / "team", name="acme/team", version="1.0.0")
        team.add_records(
            [
                Record(
                    id="call",
                    text="Ada is on call this week.",
                    relations=(Relation(type="before", target="ferry"),),
                ),
                Record(id="ferry", text="The ferry leaves at nine."),
                Record(id="old", text="Bob was on call.", valid_to="2020-01-01T00:00:00Z"),
                *(Record(id=f"n{n}", text=f"On call note number {n}.") for n in range(9)),
            ]
        )
        own = MemDumper(home / "own", name="alice/notes", version="1.0.0")
        own.add_records(
            [
                Record(id="ferry", text="The ferry to Hiiumaa is never on time."),
                Record(id="pager", text="The pager for who is on call lies in the drawer."),
            ]
        )
        client.pack(team.folder)
        client.pack(own.folder)
        yield client


@pytest.fixture
def memory(client: Client) -> Iterator[MountedMemory]:
    with client.mount(["acme/team", "alice/notes"]) as memory:
        yield memory


def test_a_search_finds_in_all_cubes_and_says_in_which(memory: MountedMemory) -> None:
    found = memory.search("a ferry, or a call", limit=4)
    assert [hit.cube for hit in found] == [TEAM, OWN, TEAM, OWN]
    assert [step.cube for step in memory.steps] == [TEAM, OWN]


def test_what_is_found_need_not_repeat_itself(memory: MountedMemory) -> None:
    first, *_ = alike = memory.search("on call", limit=6)
    spread = memory.search("on call", limit=6, diversity=Diversity(weight=0.6))
    assert spread[0] == first

    def notes(hits: list[Hit]) -> int:
        return sum(hit.record.id.startswith("n") for hit in hits)

    assert notes(spread) < notes(alike)
    assert memory.search("on call", limit=0, diversity=Diversity(weight=0.6)) == []


def test_neighbours_are_of_the_same_cube_in_both_directions(memory: MountedMemory) -> None:
    (after,) = memory.neighbours("call")
    assert after.record.text == "The ferry leaves at nine."
    (before,) = memory.neighbours("ferry", cube=TEAM)
    assert (before.record.id, before.incoming) == ("call", True)
    assert memory.neighbours("ferry", cube=OWN) == []
    with pytest.raises(NotFoundError):
        memory.neighbours("nobody")


def test_the_users_priority_wins(client: Client) -> None:
    with client.mount({"acme/team": 1, "alice/notes": 3}) as memory:
        assert memory.search("ferry", limit=1)[0].cube == OWN
        assert [cube.priority for cube in memory.cubes] == [3, 1]


@pytest.mark.parametrize("none", [0, -1, 101, 1.5, "3", True])
def test_a_priority_that_is_none_is_refused(client: Client, none: Any) -> None:
    with pytest.raises(InvalidError, match="a priority of"):
        client.mount({"acme/team": none})


@pytest.mark.parametrize("none", [0, -1, 1.5, "800", True])
def test_a_budget_that_is_none_is_refused_and_not_replaced(client: Client, none: Any) -> None:
    for act in (client.mount, client.plan):
        with pytest.raises(InvalidError, match="a budget of"):
            act("acme/team", budget_tokens=none)


def test_a_record_is_read_by_id_and_cube(memory: MountedMemory) -> None:
    assert memory.read("ferry").cube == TEAM
    assert memory.read("ferry", cube=OWN).record.text.startswith("The ferry to Hiiumaa")
    for absent in [("old", None), ("pager", TEAM), ("ferry", "no/cube")]:
        with pytest.raises(NotFoundError):
            memory.read(*absent)


def test_all_records_that_may_be_shown_come_by_cube_and_id(memory: MountedMemory) -> None:
    told = [(hit.cube, hit.record.id) for hit in memory.records()]
    assert told == [
        (TEAM, "call"),
        (TEAM, "ferry"),
        *((TEAM, f"n{n}") for n in range(9)),
        (OWN, "ferry"),
        (OWN, "pager"),
    ]


def test_one_budget_holds_over_all_cubes_and_names_the_cube_of_each(client: Client) -> None:
    with client.mount(["acme/team", "alice/notes"], budget_tokens=150) as memory:
        text = memory.context("who is on call")
        assert estimate_tokens(text) <= 150
        assert f"cube: {TEAM}" in text
        assert estimate_tokens(memory.context("who is on call", budget_tokens=600)) > 150


def test_a_cube_that_is_named_twice_is_mounted_once(client: Client) -> None:
    with client.mount(["acme/team", "acme/team:1.0.0"]) as memory:
        assert [cube.name for cube in memory.cubes] == [TEAM]


def test_a_cube_is_mounted_as_it_was_pulled(client: Client) -> None:
    with client.mount(client.open("acme/team")) as memory:
        assert memory.read("call").record.text == "Ada is on call this week."


def test_nothing_is_remembered_without_an_overlay(memory: MountedMemory) -> None:
    with pytest.raises(ConflictError):
        memory.remember("Carol is on call.")
    with pytest.raises(ConflictError):
        memory.forget("call")


def test_what_was_unmounted_says_so(client: Client) -> None:
    memory = client.mount("acme/team")
    memory.close()
    memory.close()
    for act in (
        lambda: memory.search("call"),
        lambda: memory.read("call"),
        lambda: memory.prefix_ids,
    ):
        with pytest.raises(ConflictError):
            act()


def test_an_embedder_of_the_users_own_is_used_for_every_cube(client: Client) -> None:
    def letters(texts: Sequence[str]) -> list[list[float]]:
        return [[float(text.count(letter) + 1) for letter in "aeiou"] for text in texts]

    with client.mount(["acme/team", "alice/notes"], embedder=letters) as memory:
        assert all("BM25 and" in step.why or "vectors" in step.why for step in memory.steps)
        assert memory.search("who is on call", limit=1)


def test_indexes_and_folders_go_with_their_cubes(client: Client, tmp_path: Path) -> None:
    dumper = MemDumper(tmp_path / "brief", name="alice/brief", version="1.0.0")
    dumper.add_records(["A passing note."])
    digest = client.pack(dumper.folder).cube.digest
    with client.mount("alice/brief"):
        pass
    homes = [client.context.settings.home / made for made in ("indexes", "builds")]
    homes[1].mkdir(exist_ok=True)
    (homes[1] / digest.hex).mkdir()

    def made() -> list[Path]:
        return [path for home in homes for path in home.glob(f"*{digest.hex}") if path.is_dir()]

    assert len(made()) == 2
    client.prune()
    assert len(made()) == 2
    client.rm("alice/brief")
    client.prune()
    assert [path for path in made() if not path.name.startswith(".")] == []
    with client.mount("acme/team") as memory:
        assert memory.search("call")
