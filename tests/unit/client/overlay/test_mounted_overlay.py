"""An overlay beside a read-only cube: one search over both, one place that changes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from memcube.cli.run import run
from memcube.client import Client
from memcube.mounting import MountedMemory, Step
from memcube.overlay import Overlay
from memcube.settings import Settings
from memcube_protocol.errors import NotFoundError
from support.mounted import HANDBOOK, pack_handbook

pytest.importorskip("qdrant_edge")


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MountedMemory]:
    home = tmp_path_factory.mktemp("mounted")
    with (
        Client(Settings.load(pack_handbook(home))) as client,
        client.mount("acme/handbook", overlay=home / "notes") as memory,
    ):
        yield memory


def test_what_is_remembered_is_found_beside_the_cube_at_once(memory: MountedMemory) -> None:
    record = memory.remember("Ada takes the ferry at ten.", tags=["ferry"], type=None)
    assert {(hit.cube, hit.record.id) for hit in memory.search("ferry")} == {
        (HANDBOOK, "ferry"),
        ("notes", record.id),
    }
    assert memory.read(record.id).cube == "notes"
    assert "Ada takes the ferry at ten." in memory.context("ferry")
    memory.forget(record.id)


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


def test_a_mount_says_that_the_overlay_is_searched_by_words(memory: MountedMemory) -> None:
    own, cube = memory.steps
    assert (own.cube, own.step) == ("notes", Step.MOUNTED)
    assert own.why == "your own overlay: 0 records, searched by words"
    assert cube.cube == HANDBOOK
    assert memory.overlay is not None
    assert memory.overlay.name == "notes"


def test_an_overlay_is_mounted_without_any_cube(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MEMCUBE_HOME", str(tmp_path / "home"))
    Overlay.open(tmp_path / "own").remember("Ada takes the ferry at ten.")
    assert run(["mount", "--overlay", str(tmp_path / "own"), "--ask", "When is the ferry?"]) == 0
    told = capsys.readouterr().out
    assert "your own overlay: 1 record" in told
    assert "at ten" in told
