"""The folder of a running server: private, gone at the end, taken away after a kill."""

import os
import tempfile
from pathlib import Path

import pytest
from memcube_registry import scratch
from memcube_registry.scratch import scratch_folder


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files of the test's own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_it_is_private_and_gone_at_the_end(temporary: Path) -> None:
    with scratch_folder() as folder:
        assert folder.parent == temporary
        assert folder.stat().st_mode & 0o077 == 0
        (folder / "figures").mkdir()
    assert list(temporary.iterdir()) == []


def test_what_a_killed_server_left_is_taken_away_by_the_next_one(temporary: Path) -> None:
    pid = os.fork()
    if pid == 0:
        with scratch_folder() as folder:
            (folder / "figures").mkdir()
            os._exit(0)  # without removing anything, as a kill does
    os.waitpid(pid, 0)
    (left,) = temporary.iterdir()
    with scratch_folder() as folder:
        assert folder != left
        assert list(temporary.iterdir()) == [folder]


def test_the_folder_of_a_running_server_stays(temporary: Path) -> None:
    with scratch_folder() as first, scratch_folder() as second:
        assert sorted(temporary.iterdir()) == sorted([first, second])


def test_links_and_folders_of_other_programs_stay(temporary: Path) -> None:
    other, target = temporary / "other-1", temporary / "target"
    other.mkdir()
    target.mkdir()
    link = temporary / f"{scratch._PREFIX}link"
    link.symlink_to(target)
    with scratch_folder():
        assert other.is_dir()
        assert target.is_dir()
        assert link.is_symlink()
