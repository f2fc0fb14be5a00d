"""The journal of a mirror: whole lines count, the last one wins, one process at a time."""

from __future__ import annotations

from pathlib import Path

import pytest
from memcube.mirroring.journal import Done, Journal
from memcube_protocol.digest import Digest
from memcube_protocol.errors import ConflictError

ONE, TWO = (Done(Digest.of(text), text.hex()) for text in (b"one", b"two"))
PLACES = ("a.example/alice", "b.example/bob")


def test_what_was_written_is_there_the_next_time(tmp_path: Path) -> None:
    with Journal.open(tmp_path, *PLACES) as journal:
        journal.write("alice/notes", "1.0.0", ONE)
        journal.write("alice/notes", "latest", ONE)
        journal.write("alice/notes", "latest", TWO)
        journal.write("alice/diary", "1.0.0", TWO)
        journal.write("alice/diary", "1.0.0", None)
    with Journal.open(tmp_path, *PLACES) as journal:
        assert journal.find("alice/notes", "1.0.0") == ONE
        assert journal.find("alice/notes", "latest") == TWO
        assert journal.find("alice/diary", "1.0.0") is None
        assert (journal.names(), journal.tags_of("alice/notes")) == (
            ["alice/notes"],
            ["1.0.0", "latest"],
        )
        lines = journal.path.read_bytes().splitlines()
    assert len(lines) == 2, (
        "it is written anew when it is opened, without what does not hold any more"
    )


@pytest.mark.parametrize("size", range(1, 60, 7))
def test_a_torn_line_counts_as_none(tmp_path: Path, size: int) -> None:
    with Journal.open(tmp_path, *PLACES) as journal:
        journal.write("alice/notes", "1.0.0", ONE)
        journal.write("alice/notes", "1.1.0", TWO)
        path = journal.path
    path.write_bytes(path.read_bytes()[:-size])
    with Journal.open(tmp_path, *PLACES) as journal:
        assert journal.find("alice/notes", "1.0.0") == ONE
        assert journal.find("alice/notes", "1.1.0") in (None, TWO)
        journal.write("alice/notes", "1.2.0", TWO)
    with Journal.open(tmp_path, *PLACES) as journal:
        assert journal.find("alice/notes", "1.2.0") == TWO


@pytest.mark.parametrize(
    "line", ["[]", "null", "{}", '{"name":1}', '{"name":"a","tag":"b","digest":"x"}']
)
def test_lines_of_another_form_count_as_none(tmp_path: Path, line: str) -> None:
    with Journal.open(tmp_path, *PLACES) as journal:
        path = journal.path
    path.write_text(f"{line}\n")
    with Journal.open(tmp_path, *PLACES) as journal:
        assert journal.names() == []


def test_other_places_have_another_journal(tmp_path: Path) -> None:
    with Journal.open(tmp_path, *PLACES) as one, Journal.open(tmp_path, *PLACES[::-1]) as other:
        one.write("alice/notes", "1.0.0", ONE)
        assert other.find("alice/notes", "1.0.0") is None


def test_nobody_else_opens_it_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memcube.mirroring.journal._WAIT_S", 0.1)
    with Journal.open(tmp_path, *PLACES), pytest.raises(ConflictError, match="another process"):
        Journal.open(tmp_path, *PLACES).__enter__()
