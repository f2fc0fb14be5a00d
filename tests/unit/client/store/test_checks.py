"""Findings about files are believed exactly as long as the file is as it was."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path

import pytest
from memcube.store.checks import FileChecks, Stamp
from memcube_protocol.errors import StorageError


@pytest.fixture
def checks(tmp_path: Path) -> FileChecks:
    return FileChecks(tmp_path / "home" / "checks.sqlite")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "blob"
    path.write_bytes(b"content")
    return path


class Counted:
    """Reads a file, and counts how often."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.times = 0

    def __call__(self) -> str:
        self.times += 1
        return self.file.read_text()


def test_a_file_is_looked_at_once_by_every_process(checks, file, tmp_path) -> None:
    find = Counted(file)
    assert checks.remembered("text", file, find) == "content"
    later = FileChecks(tmp_path / "home" / "checks.sqlite")
    descriptor = os.open(file, os.O_RDONLY)
    assert later.remembered("text", descriptor, find) == "content"
    os.close(descriptor)
    assert find.times == 1
    assert later.remembered("length", file, lambda: "7") == "7"


def written_in_place(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.write(b"CONTENT")


def written_with_its_times_put_back(file: Path) -> None:
    before = file.stat()
    written_in_place(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def replaced(file: Path) -> None:
    other = file.with_name("other")
    other.write_bytes(b"CONTENT")
    os.utime(other, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    other.replace(file)


def cut(file: Path) -> None:
    os.truncate(file, 3)


@pytest.mark.parametrize(
    "change", [written_in_place, written_with_its_times_put_back, replaced, cut]
)
def test_a_file_that_was_changed_is_looked_at_again(change, checks, file) -> None:
    find = Counted(file)
    checks.remembered("text", file, find)
    change(file)
    assert checks.remembered("text", file, find) == file.read_text() != "content"
    assert find.times == 2


def test_a_file_is_looked_at_again_after_the_machine_was_started_anew(
    checks, file, monkeypatch
) -> None:
    find = Counted(file)
    checks.remembered("text", file, find)
    monkeypatch.setattr("memcube.store.checks.boot_id", lambda: "another")
    assert checks.remembered("text", file, find) == "content"
    assert find.times == 2


def test_a_change_within_one_tick_of_the_clock_shows(checks, file) -> None:
    for number in range(6):
        written_in_place(file)
        assert checks.remembered("text", file, file.read_text) == "CONTENT"
        file.write_bytes(f"{number:07d}".encode())
        assert checks.remembered("text", file, file.read_text) == f"{number:07d}"


def test_what_changes_while_it_is_looked_at_is_not_remembered(checks, file) -> None:
    def find() -> str:
        text = file.read_text()
        written_in_place(file)
        return text

    assert checks.remembered("text", file, find) == "content"
    assert checks.get("text", Stamp.settled(file)) is None


def test_a_file_from_the_future_or_of_a_coarse_clock_is_never_remembered(checks, file) -> None:
    os.utime(file, ns=(0, time.time_ns() + 10**12))
    assert not Stamp.settled(file).is_settled
    checks.remembered("text", file, file.read_text)
    assert checks.get("text", Stamp.of(file)) is None


def test_findings_that_others_can_write_are_not_believed(checks, file, tmp_path) -> None:
    checks.remembered("text", file, file.read_text)
    (tmp_path / "home" / "checks.sqlite").chmod(0o666)
    with pytest.raises(StorageError, match="written by everybody"):
        checks.remembered("text", file, file.read_text)
    (tmp_path / "home" / "checks.sqlite").chmod(0o600)
    (tmp_path / "home").chmod(0o777)
    with pytest.raises(StorageError):
        checks.get("text", Stamp.of(file))
    (tmp_path / "home").chmod(0o700)


@pytest.mark.parametrize("content", [b"", b"no database at all" * 100])
def test_damaged_findings_are_made_anew(content, checks, file, tmp_path) -> None:
    find = Counted(file)
    checks.remembered("text", file, find)
    (tmp_path / "home" / "checks.sqlite").write_bytes(content)
    for _ in range(3):
        assert checks.remembered("text", file, find) == "content"
    assert find.times <= 3


def test_findings_that_cannot_be_written_are_done_without(checks, file, tmp_path) -> None:
    checks.remembered("text", file, file.read_text)
    written_in_place(file)
    with sqlite3.connect(tmp_path / "home" / "checks.sqlite") as database:
        database.execute("DROP TABLE finding")
        database.execute("CREATE TABLE finding (x)")
    database.close()
    assert checks.remembered("text", file, file.read_text) == "CONTENT"


def test_the_oldest_findings_go(checks, file, monkeypatch) -> None:
    monkeypatch.setattr("memcube.store.checks._FINDINGS", 3)
    for number in range(8):
        checks.remembered(f"kind-{number}", file, lambda: "x")
    stamp = Stamp.of(file)
    kept = [number for number in range(8) if checks.get(f"kind-{number}", stamp)]
    assert kept == [5, 6, 7]
