"""Lists that lie: names that are none, control characters, pages without end, ways to other hosts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from memcube import Client
from memcube.hub import reading
from memcube.remote import listing
from memcube.settings import Settings
from memcube_protocol.errors import NetworkError
from support.machine import Machine
from support.scripted import Answer, Received, Scripted, scripted

HOSTILE = [
    "\x1b]0;owned\x07",
    "../../etc/passwd",
    "A/B",
    "ann/no\nnewline",
    "ann/\u202enotes",
    7,
    None,
]
MEMCUBE = "/.well-known/memcube.json"


def _json(value: Any, link: str = "") -> Answer:
    headers = {"Content-Type": "application/json"} | ({"Link": link} if link else {})
    return Answer(200, headers, json.dumps(value).encode())


@pytest.fixture
def answers() -> dict[str, Answer]:
    """What the place answers, by the beginning of the path; anything else is not there."""
    return {}


@pytest.fixture
def place(answers: dict[str, Answer]) -> Iterator[Scripted]:
    def answer(request: Received) -> Answer:
        return next(
            (a for path, a in answers.items() if request.path.startswith(path)), Answer(404)
        )

    with scripted(answer) as server:
        yield server


@pytest.fixture
def reader(place: Scripted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(listing, "PAGES", 5)
    monkeypatch.setattr(reading, "PAGES", 5)
    monkeypatch.setattr("memcube.remote.PAGES", 5)
    return Machine(tmp_path / "reader", place.url, more={"HF_ENDPOINT": place.url})


def test_names_that_are_none_are_not_shown(
    place: Scripted, reader: Machine, answers: dict[str, Answer]
) -> None:
    answers["/v2/_catalog"] = _json({"repositories": [*HOSTILE, "ann/notes", "bob/notes"]})
    answers["/v2/ann/notes/tags"] = _json({"tags": [*HOSTILE, "1.0.0", "-x"]})
    assert reader.json("ls", f"{place.host}/ann")["cubes"] == [f"{place.host}/ann/notes"]
    assert [one["tag"] for one in reader.json("ls", f"{place.host}/ann/notes")["tags"]] == ["1.0.0"]
    shown = reader.ok("ls", f"{place.host}/") + reader.ok("ls", f"{place.host}/ann/notes")
    assert shown.isascii()
    assert "owned" not in shown


def test_repositories_of_the_hub_that_are_not_the_accounts_are_not_shown(
    reader: Machine, answers: dict[str, Answer]
) -> None:
    ids = ["ada/notes", "bob/notes", "ada/\x1b[2Jx", "ada/a/b/c", "ada"]
    answers["/api/models"] = _json([{"id": one} for one in ids])
    answers["/api/datasets"] = _json([])
    assert reader.json("ls", "hf://ada")["cubes"] == ["huggingface.co/ada/notes"]


@pytest.mark.parametrize("kind", ["catalogue", "tags", "hub"])
def test_pages_without_end_are_left(
    kind: str, place: Scripted, reader: Machine, answers: dict[str, Answer]
) -> None:
    paths = {"catalogue": "/v2/_catalog", "tags": "/v2/ann/notes/tags", "hub": "/api/models"}
    page = {"catalogue": {"repositories": ["ann/x"]}, "tags": {"tags": ["x"]}, "hub": []}[kind]
    answers[paths[kind]] = _json(page, f'<{paths[kind]}?more>; rel="next"')
    words = {"catalogue": f"{place.host}/ann", "tags": f"{place.host}/ann/notes", "hub": "hf://ada"}
    refused = reader.run("ls", words[kind])
    assert (refused.returncode, "more than 5 pages" in refused.stderr) == (7, True)
    assert sum(line.startswith(f"GET {paths[kind]}") for line in place.lines()) == 5


@pytest.mark.parametrize("kind", ["catalogue", "hub"])
def test_a_next_page_on_another_host_is_not_asked_for(
    kind: str, place: Scripted, reader: Machine, answers: dict[str, Answer]
) -> None:
    with scripted(lambda request: Answer(500)) as other:
        link = f'<{other.url}/more>; rel="next"'
        answers["/v2/_catalog"] = _json({"repositories": []}, link)
        answers["/api/models"] = _json([], link)
        refused = reader.run("ls", f"{place.host}/ann" if kind == "catalogue" else "hf://ada")
        assert (refused.returncode, "another host" in refused.stderr) == (7, True)
        assert other.received == []


@pytest.mark.parametrize("body", [b"", b"[", b'{"id": 1}', b'["x"]', b"null"])
def test_a_list_of_the_hub_that_makes_no_sense_is_said_to(
    body: bytes, reader: Machine, answers: dict[str, Answer]
) -> None:
    answers["/api/models"] = Answer(200, {"Content-Type": "application/json"}, body)
    assert reader.run("ls", "hf://ada").returncode == 7


def test_tags_go_on_behind_a_full_answer_and_a_place_that_repeats_them_is_left(
    place: Scripted,
    reader: Machine,
    answers: dict[str, Answer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listing, "_TAGS", 2)
    digest = "sha256:" + "a" * 64
    cube = {"name": "ann/notes", "visibility": "public", "createdAt": "2026-01-01T00:00:00Z"}
    answers[MEMCUBE] = _json({"features": {"api": f"{place.url}/api/v1"}})
    answers["/api/v1/cubes"] = _json({"cubes": [cube], "next": None})

    def tags(*names: str) -> Answer:
        return _json([{"name": name, "digest": digest} for name in names])

    answers["/api/v1/tags/ann/notes?after=1.1"] = tags("2.0")
    answers["/api/v1/tags/ann/notes"] = tags("1.0", "1.1")
    environ = {"MEMCUBE_HOME": str(reader.home), "MEMCUBE_ENDPOINT": place.url}
    with Client(Settings.load(environ)) as client:
        found = listing.Listing(client.context.registry(""))
        assert found.cubes("ann") == ["ann/notes"]
        assert found.tags("ann/notes").keys() == {"1.0", "1.1", "2.0"}
        answers["/api/v1/tags/ann/notes?after=1.1"] = tags("1.0", "1.1")
        with pytest.raises(NetworkError, match="do not go on"):
            found.tags("ann/notes")
