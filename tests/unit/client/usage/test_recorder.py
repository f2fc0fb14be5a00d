"""What a mount tells of its use: never in the way of it, whatever becomes of the file."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from memcube.settings import Settings
from memcube.usage import Sidecar, Usage, Use, recorder
from memcube.usage.sidecar import Portion

ATLAS = "registry.example/acme/atlas"


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Sidecar]:
    with closing(Sidecar(tmp_path / "usage")) as kept:
        yield kept


def accesses(kept: Sidecar) -> int:
    found = kept.cube(ATLAS)
    return found.accesses if found else 0


def test_the_first_event_is_written_at_once_and_a_burst_in_portions(kept: Sidecar) -> None:
    usage = Usage(kept)
    usage.mounted(ATLAS, "sha256:one")
    assert kept.cube(ATLAS)
    usage.found([Use(ATLAS, "a", 1.0)] * (recorder.PORTION - 1))
    usage.answered([Use(ATLAS, "a", 1.0)])
    usage.answered([])  # no record was used, so nothing is told
    usage.flush()
    found = kept.cube(ATLAS)
    assert found
    assert (found.mounts, found.accesses, found.answers) == (1, recorder.PORTION - 1, 1)
    assert usage.records(ATLAS, ["a", "b"]).keys() == {"a"}
    assert usage.cube(ATLAS) == found


def test_nothing_is_kept_where_the_settings_say_so(tmp_path: Path) -> None:
    usage = Usage.of(Settings.load({"MEMCUBE_HOME": str(tmp_path), "MEMCUBE_USAGE": "0"}))
    usage.mounted(ATLAS, "sha256:one")
    usage.found([Use(ATLAS, "a")])
    usage.flush()
    assert usage.cube(ATLAS) is None
    assert usage.records(ATLAS, ["a"]) == {}
    assert list(tmp_path.iterdir()) == []


def test_a_locked_file_hinders_nobody_and_is_written_later(kept: Sidecar) -> None:
    kept.write(Portion(accesses=[(Use(ATLAS, "a"), 1)]))
    usage = Usage(kept)
    other = sqlite3.connect(kept.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    usage.found([Use(ATLAS, "a")] * 3)
    assert accesses(kept) == 1
    other.execute("COMMIT")
    other.close()
    usage.found([Use(ATLAS, "a")])
    usage.flush()
    assert accesses(kept) == 5


def test_what_waits_for_a_locked_file_is_bounded(kept: Sidecar) -> None:
    kept.write(Portion(accesses=[(Use(ATLAS, "a"), 1)]))
    usage = Usage(kept)
    other = sqlite3.connect(kept.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for _ in range(4):
        usage.found([Use(ATLAS, "a")] * (recorder.PENDING - 1))
    other.execute("COMMIT")
    other.close()
    usage.flush()
    assert accesses(kept) <= 2 * recorder.PENDING


@pytest.mark.parametrize(
    "content", [b"not a database" * 400, b"SQLite format 3\0" + b"\xff" * 8192]
)
def test_a_damaged_file_is_begun_anew(kept: Sidecar, content: bytes) -> None:
    kept.path.parent.mkdir()
    kept.path.write_bytes(content)
    usage = Usage(kept)
    assert usage.cube(ATLAS) is None
    usage.found([Use(ATLAS, "a")])
    usage.flush()
    usage.found([Use(ATLAS, "a")])
    usage.flush()
    assert accesses(kept) == 2


@pytest.mark.parametrize("open_to_all", ["usage", "usage/usage.db"])
def test_a_file_that_others_can_write_is_told_nothing_and_runs_nothing(
    kept: Sidecar, tmp_path: Path, open_to_all: str
) -> None:
    """Whoever made it first may have put triggers there, or reads what is written."""
    kept.write(Portion(mounts=[(ATLAS, "sha256:one", 0)]))
    kept.close()
    with closing(sqlite3.connect(kept.path, isolation_level=None)) as db:
        db.execute("CREATE TABLE spied (record)")
        db.execute(
            "CREATE TRIGGER spy AFTER INSERT ON record BEGIN INSERT INTO spied VALUES (NEW.record); END"
        )
    place = tmp_path / open_to_all
    place.chmod(0o777)
    usage = Usage(kept)
    usage.found([Use(ATLAS, "a")])
    usage.flush()
    assert usage.cube(ATLAS) is None
    assert usage.records(ATLAS, ["a"]) == {}
    with closing(sqlite3.connect(kept.path)) as db:
        assert db.execute("SELECT * FROM spied").fetchall() == []


def test_a_folder_that_cannot_be_made_hinders_nobody(tmp_path: Path) -> None:
    (tmp_path / "usage").write_text("a file is in the way")
    usage = Usage(Sidecar(tmp_path / "usage"))
    usage.mounted(ATLAS, "sha256:one")
    usage.found([Use(ATLAS, "a")])
    usage.flush()
    assert usage.cube(ATLAS) is None


def test_a_full_file_is_made_smaller(kept: Sidecar, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memcube.usage.sidecar.FILE_BYTES", 64 * 4096)
    usage = Usage(kept)
    for number in range(60):
        usage.found([Use(ATLAS, f"{number}-{one}-{'x' * 100}") for one in range(100)])
    usage.flush()
    assert kept.path.stat().st_size <= 64 * 4096
    assert kept.records(ATLAS)


def test_a_score_that_is_no_number_harms_nothing(kept: Sidecar) -> None:
    usage = Usage(kept)
    usage.found([Use(ATLAS, "a", float("nan"))])
    usage.found([Use(ATLAS, "b", 1.0)])
    usage.flush()
    assert [use.record for use in kept.records(ATLAS)] == ["b"]


def test_several_threads_are_counted_each(kept: Sidecar) -> None:
    usage = Usage(kept)

    def ask() -> None:
        for _ in range(200):
            usage.found([Use(ATLAS, "a")])

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    usage.flush()
    assert accesses(kept) == 800
