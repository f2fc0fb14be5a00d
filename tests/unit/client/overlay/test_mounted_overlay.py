"""An overlay beside a read-only cube: one search over both, one place that changes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from memcube.client import Client
from memcube.dumper import MemDumper
from memcube.mounting import MountedMemory
from memcube.settings import Settings
from memcube_protocol.errors import NotFoundError

pytest.importorskip("qdrant_edge")


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[MountedMemory]:
    environ = {"MEMCUBE_HOME": str(tmp_path / "home"), "MEMCUBE_KEYRING": "0"}
    with Client(Settings.load(environ)) as client:
        dumper = MemDumper(tmp_path / "bought", name="acme/handbook", version="1.0.0")
        dumper.add_records([{"id": "ferry", "text": "The ferry leaves at nine."}])
        client.pack(dumper.folder)
        with client.mount("acme/handbook", overlay=tmp_path / "notes") as memory:
            yield memory


def test_what_is_remembered_is_found_beside_the_cube_at_once(memory: MountedMemory) -> None:
    record = memory.remember("Ada takes the ferry at ten.", tags=["ferry"], type=None)
    assert {(hit.cube, hit.record.id) for hit in memory.search("ferry")} == {
        ("acme/handbook:1.0.0", "ferry"),
        ("notes", record.id),
    }
    assert memory.read(record.id).cube == "notes"
    assert "Ada takes the ferry at ten." in memory.context("ferry")


def test_only_what_was_remembered_can_be_forgotten(memory: MountedMemory) -> None:
    record = memory.remember("Ada takes the ferry at ten.")
    assert memory.forget(record.id).record == record
    assert [hit.record.id for hit in memory.search("ferry")] == ["ferry"]
    with pytest.raises(NotFoundError):
        memory.forget("ferry")


def test_an_archived_memory_is_not_read(memory: MountedMemory) -> None:
    record = memory.remember("an old plan", status="archived")
    with pytest.raises(NotFoundError):
        memory.read(record.id)
    assert memory.forget(record.id).record == record
