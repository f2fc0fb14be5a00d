"""Cubes on the Hub: pushed, pulled, read by the Hub's own tools; through the test server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.hub import HubServer, hub_server
from support.machine import Machine

# The library hands streams to its HTTP client in a way that the client calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
NOBODYS_REGISTRY = "http://127.0.0.1:9"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    with hub_server(tmp_path / "hub") as server:
        yield server


def machine_of(hub: HubServer, home: Path, token: str | None) -> Machine:
    """A machine that knows no registry, but the Hub."""
    more = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home / "hf")}
    more |= {"HF_TOKEN": token} if token else {}
    return Machine(home, NOBODYS_REGISTRY, more=more)


@pytest.fixture
def ada(hub: HubServer, tmp_path: Path) -> Machine:
    token = hub.state.token("ada", organisations=("Org",))
    return machine_of(hub, tmp_path / "ada", token)


@pytest.fixture
def reader(hub: HubServer, tmp_path: Path) -> Machine:
    """Somebody without an account."""
    return machine_of(hub, tmp_path / "reader", None)


def write_notes(folder: Path, version: str, text: str = "Backups run at two.") -> Path:
    (folder / "plaintext").mkdir(parents=True, exist_ok=True)
    (folder / "memcube.toml").write_text(
        f'name = "ada/notes"\nversion = "{version}"\ntitle = "Notes"\n'
        '[governance]\nlicence = "CC-BY-4.0"\n[descriptive]\nlanguages = ["en-GB"]\ntags = ["ops"]\n'
    )
    (folder / "README.md").write_text("# Notes\n\nWhat we learned.\n")
    records = [{"id": f"r{n}", "text": f"{text} {n}"} for n in range(5)]
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (folder / "plaintext" / "notes.jsonl").write_text(lines)
    return folder


@pytest.mark.parametrize("place", ["hf://Org/Notes", "hf://datasets/ada/notes"])
def test_a_cube_goes_to_the_hub_and_comes_back_verified(
    hub: HubServer, ada: Machine, reader: Machine, tmp_path: Path, place: str
) -> None:
    pushed = ada.json("push", write_notes(tmp_path / "notes", "1.0.0"), place, "--public")
    pulled = reader.json("pull", place)
    assert pulled["digest"] == pushed["digest"]
    reader.ok("unpack", place, tmp_path / "out")
    assert (tmp_path / "out" / "README.md").read_text() == "# Notes\n\nWhat we learned.\n"
    assert reader.json("verify", place)["digest"] == pushed["digest"]
