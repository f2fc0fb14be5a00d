"""The chaos harness itself: a short round finds nothing, and planted damage is found."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from chaos import checker as checking
from chaos import journal as journals
from chaos.checker import Checker
from chaos.clients import HttpClient
from chaos.contents import Contents
from chaos.deployment import Deployment, deployed
from chaos.journal import Event, Journal, Outcome
from chaos.plan import LONG_GRACE_S, SMALL, Action, Fault, Profile, Round
from chaos.requests import Requests
from chaos.run import Wanted, run

pytestmark = pytest.mark.timeout(600)

SEED = 5
CALM = Round(0, 0.0, LONG_GRACE_S, (), (), (), sweeps=False)


@pytest.mark.parametrize(
    ("number", "fault"), [(1, Fault.DISK), (3, Fault.CLOCK)], ids=["disk fills", "clock jumps"]
)
def test_a_short_round_of_kills_loses_nothing(number: int, fault: Fault, tmp_path: Path) -> None:
    wanted = Wanted(SEED, kills=3, minutes=2, size=SMALL, first_round=number)
    result = run(wanted, tmp_path / "run")
    assert result.violations == []
    assert sum(result.strikes.values()) >= 3
    assert result.strikes[fault] + result.skipped[fault] == 1, "not everybody may mount a disk"
    assert result.operations["put blob", Outcome.ACKNOWLEDGED]
    assert any(operation == "mount blob" for operation, _ in result.operations)
    assert result.compared > 5


@dataclass
class Watched:
    """A registry whose checker has seen some pushes."""

    deployment: Deployment
    checker: Checker

    @property
    def database(self) -> Path:
        return Path(self.deployment.database.removeprefix("sqlite:///"))

    @property
    def blobs(self) -> Path:
        return self.database.parent / "blobs"

    def execute(self, *statements: str) -> None:
        with closing(sqlite3.connect(self.database, timeout=60)) as connection, connection:
            for statement in statements:
                assert connection.execute(statement).rowcount != 0, statement

    def some_blob(self) -> Path:
        """The file of a blob that a manifest names."""
        query = "SELECT location FROM blob JOIN manifest_blob ON blob_id = blob.id ORDER BY blob.id"
        with closing(sqlite3.connect(self.database, timeout=60)) as connection:
            (location,) = connection.execute(query).fetchone()
        return self.blobs / "blobs" / location[:2] / location


def script() -> tuple[Action, ...]:
    """Pushes of every kind to one repository."""

    def action(kind: str, number: int, **more: object) -> Action:
        given = {"label": f"{kind}-{number}", "size": 5000, "shared": number, "how": "chunked"}
        return Action(kind, "ada/one", given | {"again": False} | more)

    return (
        action("push", 0, tag="moving"),
        action("push", 1, tag="moving"),
        action("release", 2, tag="1.0.0"),
        action("keep", 3),
        action("refer", 4),
        action("log", 5),
        action("log", 6),
        action("log", 7),
    )


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("chaos") / "run"
    with (
        deployed(folder, Profile.SQLITE) as deployment,
        Journal(folder / "journal.jsonl") as journal,
    ):
        requests = Requests(0, "http-0", deployment.endpoints, journal, 0)
        client = HttpClient(script(), Contents(SEED), requests, threading.Event())
        client.run_once()
        checker = Checker(deployment.database, deployment.objects, deployment.endpoints)
        events = list(journals.read(journal.path))
        assert all(event.outcome is Outcome.ACKNOWLEDGED for event in events if event.value)
        assert checker.check(CALM, events) == []
        assert deployment.strays() == []
        yield Watched(deployment, checker)


@pytest.fixture
def watched(registry: Watched) -> Iterator[Watched]:
    """The registry with a copy of the checker's memory; rows are put back afterwards."""
    known = Checker(**vars(registry.checker))
    known.hashed = set()
    with (
        closing(sqlite3.connect(registry.database, timeout=60)) as live,
        closing(sqlite3.connect(":memory:")) as copy,
    ):
        live.backup(copy)
        yield Watched(registry.deployment, known)
        copy.backup(live)


def kinds(watched: Watched, *, swept: bool = False) -> set[str]:
    found = watched.checker.check_swept() if swept else watched.checker.check(CALM, [])
    return {violation.kind for violation in found}


ROWS = {
    "a tag rolled back": (
        ["UPDATE tag SET manifest_id = (SELECT min(id) FROM manifest) WHERE name = 'moving'"],
        "impossible tag",
    ),
    "a lost tag": (["DELETE FROM tag WHERE name = 'moving'"], "acknowledged tag lost"),
    "a version moved": (
        ["UPDATE tag SET manifest_id = (SELECT min(id) FROM manifest) WHERE name = '1.0.0'"],
        "version moved",
    ),
    "a tag to nothing": (
        ["UPDATE tag SET manifest_id = 999999 WHERE name = 'moving'"],
        "tag to nothing",
    ),
    "a lost manifest": (
        ["DELETE FROM manifest WHERE id = (SELECT manifest_id FROM tag WHERE name = 'moving')"],
        "acknowledged manifest lost",
    ),
    "a manifest whose blob is not in the repository": (
        ["DELETE FROM blob_link WHERE blob_id = (SELECT min(blob_id) FROM manifest_blob)"],
        "manifest without its blob",
    ),
    "a manifest with other bytes": (
        [
            "UPDATE manifest SET content = CAST(content || ' ' AS BLOB) WHERE id = (SELECT min(id) FROM manifest)"
        ],
        "untrue manifest",
    ),
    "a wrong count of bytes": (
        ["UPDATE account SET used_bytes = used_bytes + 1 WHERE name = 'ada'"],
        "quota",
    ),
    "a lost entry of the log": (["DELETE FROM log_entry WHERE number = 2"], "log"),
    "a log that was cut": (
        [
            "DELETE FROM log_entry WHERE number = 2",
            "UPDATE log_tile SET hashes = substr(hashes, 1, 64)",
            "UPDATE log_state SET size = 2",
        ],
        "log",
    ),
    "an entry of the log with another body": (
        ["UPDATE log_entry SET body = CAST(body || ' ' AS BLOB) WHERE number = 1"],
        "log",
    ),
    "a tile with other hashes": (["UPDATE log_tile SET hashes = zeroblob(96)"], "log"),
}


@pytest.mark.parametrize("name", ROWS)
def test_damaged_rows_are_found(watched: Watched, name: str) -> None:
    statements, kind = ROWS[name]
    watched.execute(*statements)
    assert kind in kinds(watched)


def damaged(path: Path, content: bytes | None) -> Callable[[], None]:
    """Damage a file: other bytes, or none at all; what puts it back."""
    before = path.read_bytes()
    path.unlink()
    if content is not None:
        path.write_bytes(content)

    def mend() -> None:
        path.unlink(missing_ok=True)
        path.write_bytes(before)

    return mend


def test_a_deleted_blob_is_found(watched: Watched) -> None:
    mend = damaged(watched.some_blob(), None)
    try:
        assert "blob without its bytes" in kinds(watched)
    finally:
        mend()


def test_a_blob_with_other_bytes_of_the_same_length_is_found(watched: Watched) -> None:
    path = watched.some_blob()
    mend = damaged(path, bytes(path.stat().st_size))
    try:
        assert "untrue blob" in kinds(watched)
    finally:
        mend()


LEFT = {
    "uploads/" + "0" * 32: "unfinished bytes",
    "blobs/00/" + "0" * 32: "object without a row",
    "blobs.tmp": "unfinished bytes",
}


def test_leftover_files_are_found_and_a_sweep_leaves_none(watched: Watched) -> None:
    watched.deployment.sweep()
    assert kinds(watched, swept=True) == set()
    for place, kind in LEFT.items():
        path = watched.blobs / place
        path.write_bytes(b"left")
        assert kinds(watched, swept=True) == {f"leftover: {kind}"}
        path.unlink()


def test_leftover_rows_are_found(watched: Watched) -> None:
    watched.execute(
        "INSERT INTO upload_claim (upload, expires_at, written_at, state)"
        " VALUES ('left', '2026-01-01', '2026-01-01', '')",
        "DELETE FROM tag WHERE name = 'moving'",
    )
    found = kinds(watched, swept=True)
    assert {"leftover: upload session", "leftover: dead manifest"} <= found


def test_a_stray_temporary_file_is_found(watched: Watched) -> None:
    stray = watched.deployment.folder / "tmp" / "memcube-left"
    stray.mkdir()
    try:
        assert [each.kind for each in watched.deployment.strays()] == ["leftover: temporary file"]
    finally:
        stray.rmdir()


def test_an_untrue_file_in_a_clients_store_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "sha256" / "00"
    folder.mkdir(parents=True)
    (folder / ("0" * 64)).write_bytes(os.urandom(8))
    (found,) = checking.untrue_files(folder.iterdir())
    assert found.kind == "untrue blob in a client's store"


def event(operation: str, outcome: Outcome, *, status: int = 0, **more: object) -> Event:
    return Event(0, "c", operation, "ada/one", "sha256:0", "", 1, 2, outcome, status, dict(more))


def test_answers_that_cannot_be_are_found() -> None:
    lost = [
        event("send chunk", Outcome.ACKNOWLEDGED, upload="/u", stop=10),
        event("ask upload", Outcome.ACKNOWLEDGED, upload="/u", held=9),
    ]
    assert [each.kind for each in checking.registers.lost_chunks(lost)] == [
        "acknowledged bytes lost"
    ]
    wrong = [
        event("read blob", Outcome.ACKNOWLEDGED, status=200),
        event("put blob", Outcome.UNKNOWN, status=500),
    ]
    found = [each.kind for each in checking.registers.wrong_answers(wrong)]
    assert found == ["untrue answer", "status 500"]
