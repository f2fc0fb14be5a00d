"""The desk: what agents ask, answered in bounded sizes with ids to cite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from memcube.mcp import desk as desk_module
from memcube.mcp.desk import Desk
from memcube_protocol.errors import ConflictError, InvalidRequestError, NotFoundError
from support.mounted import HANDBOOK, mounted_desk

pytest.importorskip("qdrant_edge")
FERRY = f"{HANDBOOK}#ferry"


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with mounted_desk(tmp_path_factory.mktemp("desk")) as desk:
        yield desk


def ids(answer: dict) -> list[str]:
    return [one["id"] for one in answer["results"]]


def test_a_search_gives_ids_titles_and_addresses(desk: Desk) -> None:
    (found,) = desk.search("ferry")["results"]
    assert found == {
        "id": FERRY,
        "title": "travel: The ferry leaves at nine.",
        "url": "memcube://record/acme%2Fhandbook%3A1.0.0/ferry",
    }


def test_a_fetched_record_comes_between_delimiters_with_what_is_known_of_it(desk: Desk) -> None:
    fetched = desk.fetch(FERRY)
    assert "The ferry leaves at nine." in fetched["text"]
    assert fetched["text"].startswith("<memories-")
    assert fetched["metadata"]["cube"] == HANDBOOK
    assert fetched["metadata"]["source"] == "https://acme.example/ferry"
    assert fetched["metadata"]["updated"] == "2026-03-01T00:00:00Z"


@pytest.mark.parametrize("name", ["ferry", FERRY, "memcube://record/acme%2Fhandbook%3A1.0.0/ferry"])
def test_every_spelling_of_an_id_is_understood(desk: Desk, name: str) -> None:
    assert desk.fetch(name)["id"] == FERRY


@pytest.mark.parametrize("name", ["absent", "old", f"{HANDBOOK}#absent", "own#ferry"])
def test_what_is_not_there_or_out_of_date_is_not_read(desk: Desk, name: str) -> None:
    for act in (desk.fetch, lambda name: desk.read([name]), lambda name: desk.cite([name])):
        with pytest.raises(NotFoundError):
            act(name)


def test_several_records_are_read_in_the_order_asked_for(desk: Desk) -> None:
    text = desk.read(["pager", "ferry"])
    assert text.index("The pager") < text.index("The ferry")


def test_a_long_record_is_cut(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    record = desk.remember(None, "word " * 5000)
    monkeypatch.setattr(desk_module, "READ_TOKENS", 500)
    text = desk.fetch(record["id"])["text"]
    assert len(text) < 2000
    assert " …\n</memory" in text
    desk.forget(record["id"])


def test_a_citation_says_cube_digest_and_standing(desk: Desk) -> None:
    (cited,) = desk.cite([FERRY])["citations"]
    assert cited["digest"].startswith("sha256:")
    assert cited["standing"] == "local"
    assert cited["citation"] == (
        f"“travel: The ferry leaves at nine.”, record ferry of {HANDBOOK}, 2026-03-01"
    )


def test_context_keeps_to_its_filters_and_says_when_nothing_is_found(desk: Desk) -> None:
    assert "The ferry" in desk.context("ferry", tags=["boat"])
    assert desk.context("ferry", tags=["car"]) == "No mounted memory answers this."
    assert desk.context("drawer", types=["fact"]) == "No mounted memory answers this."


def test_cubes_are_listed_with_the_overlay_first(desk: Desk) -> None:
    listed = desk.list_cubes()
    assert [one["cube"] for one in listed["cubes"]] == ["own", HANDBOOK]
    assert listed["writable"] is True
    assert listed["cubes"][1]["records"] == 3
    assert desk.describe(HANDBOOK) == listed["cubes"][1]
    with pytest.raises(NotFoundError):
        desk.describe("acme/other")


def test_records_are_listed_in_pages(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk_module, "LISTED_RECORDS", 1)
    first = desk.list_records(HANDBOOK)
    assert (ids(first), first["next"]) == ([FERRY], FERRY)
    for name in ("ferry", FERRY, first["results"][0]["url"]):
        second = desk.list_records(HANDBOOK, after=name)
        assert ids(second) == [f"{HANDBOOK}#pager"]
        assert "next" not in second
    with pytest.raises(InvalidRequestError, match="no record of own"):
        desk.list_records("own", after=FERRY)
    with pytest.raises(NotFoundError):
        desk.list_records("acme/other")


def test_going_on_with_records_of_no_cube_is_refused(desk: Desk) -> None:
    with pytest.raises(InvalidRequestError, match="no cube is named") as caught:
        desk.list_memories(after="ferry")
    assert caught.value.hint
    assert desk.list_memories() == desk.list_cubes()


def test_what_is_remembered_is_found_read_and_forgotten(desk: Desk) -> None:
    kept = desk.remember("assistant 1.0", "Ada takes the ferry at ten.", tags=["boat"])
    assert kept["id"] in ids(desk.search("ferry"))
    assert desk.fetch(kept["id"])["metadata"]["author"] == "assistant 1.0"
    assert desk.forget(kept["id"])["stillIn"] == []
    assert kept["id"] not in ids(desk.search("ferry"))


def test_what_is_no_longer_true_is_replaced(desk: Desk) -> None:
    old = desk.remember(None, "Ada takes the ferry at ten.")
    new = desk.remember(None, "Ada takes the ferry at noon.", replaces=old["id"])
    own = ids(desk.list_records("own"))
    assert own == [new["id"]]
    desk.forget(new["id"])


def test_records_of_a_cube_are_neither_replaced_nor_forgotten(desk: Desk) -> None:
    for name, why in ((FERRY, "does not change"), ("ferry", "no record")):
        with pytest.raises(NotFoundError, match=why):
            desk.forget(name)
        with pytest.raises(NotFoundError, match=why):
            desk.remember(None, "The ferry never leaves.", replaces=name)
    assert ids(desk.list_records("own")) == []


def test_nothing_is_written_without_an_overlay(desk: Desk) -> None:
    reading = Desk(desk.memory)
    for act in (lambda: reading.remember(None, "x"), lambda: reading.forget("ferry")):
        with pytest.raises(ConflictError):
            act()
    assert reading.list_cubes()["writable"] is False


def test_an_unmounted_memory_is_neither_listed_nor_written(tmp_path: Path) -> None:
    with mounted_desk(tmp_path) as closed:
        pass
    for act in (closed.list_cubes, lambda: closed.remember(None, "x"), lambda: closed.forget("x")):
        with pytest.raises(ConflictError, match="unmounted"):
            act()
