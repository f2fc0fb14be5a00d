"""Machines of users of the Hub, and cubes to publish there; see `support.hub`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from support.hub import HubServer
from support.machine import Machine

NOBODYS_REGISTRY = "http://127.0.0.1:9"

# The library hands streams to its HTTP client in a way that the client calls deprecated.
tolerant = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


def machine_of(
    hub: HubServer, home: Path, token: str | None, registry: str = NOBODYS_REGISTRY
) -> Machine:
    """A machine whose Hub is `hub`."""
    more = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home / "hf")}
    return Machine(home, registry, more=more | ({"HF_TOKEN": token} if token else {}))


def write_notes(
    folder: Path, version: str, text: str = "Backups run at two.", *, card: str = "# Notes\n"
) -> Path:
    """The folder of a cube with a few records and a card."""
    (folder / "plaintext").mkdir(parents=True, exist_ok=True)
    (folder / "memcube.toml").write_text(
        f'name = "ada/notes"\nversion = "{version}"\ntitle = "Notes"\n'
        '[governance]\nlicence = "CC-BY-4.0"\n[descriptive]\nlanguages = ["en-GB"]\ntags = ["ops"]\n'
    )
    (folder / "README.md").write_text(card)
    records = [{"id": f"r{n}", "text": f"{text} {n}"} for n in range(5)]
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (folder / "plaintext" / "notes.jsonl").write_text(lines)
    return folder


def without_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where huggingface_hub is not installed."""
    for name in [one for one in sys.modules if one.partition(".")[0] == "huggingface_hub"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
