"""The file of indicators: counted right, bounded, private, whole after any death."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memcube.usage import RecordUse, Sidecar, Use, sidecar, tables
from memcube.usage.sidecar import Portion
from memcube_protocol.errors import StorageError

ATLAS = "registry.example/acme/atlas"
NOTES = "registry.example/alice/notes"
Opened = Callable[[Path], Sidecar]
NOON = int(datetime(2026, 11, 27, 12, tzinfo=UTC).timestamp())


@pytest.fixture
def opened() -> Iterator[Callable[[Path], Sidecar]]:
    """Opens indicators, and lets go of them at the end."""
    with ExitStack() as held:
        yield lambda folder: held.enter_context(closing(Sidecar(folder)))


def accesses(cube: str, *ids: str, at: int = NOON, score: float = 1.0) -> Portion:
    return Portion(accesses=[(Use(cube, one, score), at) for one in ids])


def test_accesses_answers_scores_and_times_are_counted_by_record(
    opened: Opened, tmp_path: Path
) -> None:
    kept = opened(tmp_path)
    kept.write(accesses(ATLAS, "a", "b", score=4.0))
    kept.write(accesses(ATLAS, "a", at=NOON + 60, score=8.0))
    kept.write(Portion(answers=[(NOON + 90, (Use(ATLAS, "b", 4.0), Use(NOTES, "n", 2.0)))]))
    first, second = kept.records(ATLAS)
    assert first == RecordUse("b", 1, 1, 4.0, datetime.fromtimestamp(NOON + 90, UTC))
    assert second == RecordUse("a", 2, 0, 6.0, datetime.fromtimestamp(NOON + 60, UTC))
    assert [use.record for use in kept.records(ATLAS, ["b", "never"])] == ["b"]
    atlas, notes = kept.cube(ATLAS), kept.cube(NOTES)
    assert atlas
    assert notes
    assert (atlas.mounts, atlas.accesses, atlas.answers, atlas.records) == (0, 3, 1, 2)
    assert (notes.accesses, notes.answers, notes.records) == (0, 1, 1)
    assert [cube.cube for cube in kept.cubes()] == [ATLAS, NOTES]


def test_an_answer_names_every_record_that_it_used_also_of_other_cubes(
    opened: Opened, tmp_path: Path
) -> None:
    kept = opened(tmp_path)
    both = (Use(ATLAS, "a", 2.0), Use(NOTES, "n", 1.0))
    kept.write(Portion(answers=[(NOON, both), (NOON + 5, (Use(NOTES, "m", 1.0),))]))
    (answer,) = kept.answers(ATLAS)
    assert (answer.at, answer.used) == (datetime.fromtimestamp(NOON, UTC), both)
    assert [one.number for one in kept.answers(NOTES)] == [2, 1]
    assert len(kept.answers(NOTES, limit=1)) == 1


def test_the_chain_of_versions_is_kept_in_the_order_of_their_first_mount(
    opened: Opened, tmp_path: Path
) -> None:
    kept = opened(tmp_path)
    kept.write(Portion(mounts=[(ATLAS, "sha256:one", NOON), (ATLAS, "sha256:two", NOON + 9)]))
    kept.write(Portion(mounts=[(ATLAS, "sha256:one", NOON + 20)]))
    assert [(one.digest, one.mounts) for one in kept.versions(ATLAS)] == [
        ("sha256:one", 2),
        ("sha256:two", 1),
    ]


def test_a_score_follows_the_last_uses(opened: Opened, tmp_path: Path) -> None:
    kept = opened(tmp_path)
    kept.write(accesses(ATLAS, *["a"] * 500, score=1.0))
    kept.write(accesses(ATLAS, *["a"] * 60, score=9.0))
    (use,) = kept.records(ATLAS)
    assert 8.0 < use.score < 9.0


def test_what_is_unused_fades_and_what_is_used_more_counts_more() -> None:
    now = datetime(2026, 11, 27, tzinfo=UTC)
    once, often = RecordUse("a", 1, 0, 1.0, now), RecordUse("b", 30, 10, 1.0, now)
    assert once.strength(now) == 1.0
    assert often.strength(now) > once.strength(now)
    assert once.strength(now + timedelta(days=30)) == 0.5
    assert once.strength(now - timedelta(days=1)) == 1.0  # by a clock that was set back


def test_nothing_is_there_before_something_is_written(opened: Opened, tmp_path: Path) -> None:
    kept = opened(tmp_path / "usage")
    assert kept.cubes() == kept.records(ATLAS) == kept.answers(ATLAS) == kept.versions(ATLAS) == ()
    assert not kept.forget()
    assert not kept.forget(ATLAS)
    assert not (tmp_path / "usage").exists()


def test_its_files_are_private(opened: Opened, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        kept = opened(tmp_path / "usage")
        kept.write(accesses(ATLAS, "a"))
        with sqlite3.connect(kept.path) as db:  # open: what SQLite keeps beside the file is there
            db.execute("SELECT * FROM record").fetchall()
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
        db.close()
    finally:
        os.umask(before)
    assert modes.pop("usage") == 0o700
    assert set(modes.values()) == {0o600}
    assert "usage.db" in modes


@pytest.mark.parametrize("name", ["usage", "usage/usage.db"])
def test_no_link_is_followed(tmp_path: Path, name: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).symlink_to(elsewhere if name == "usage" else elsewhere / "made")
    with pytest.raises(StorageError):
        Sidecar(tmp_path / "usage").write(accesses(ATLAS, "a"))
    assert not list(elsewhere.iterdir())


def test_the_longest_unused_goes_where_there_is_too_much(
    opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounds = [bound._replace(most=50) for bound in tables.BOUNDS]
    monkeypatch.setattr(tables, "BOUNDS", tuple(bounds))
    monkeypatch.setattr(sidecar, "_BOUNDED_EVERY", 1)
    kept = opened(tmp_path)
    for start in range(0, 200, 20):
        ids = [f"r{number:03}" for number in range(start, start + 20)]
        kept.write(accesses(ATLAS, *ids, at=NOON + start))
        kept.write(Portion(answers=[(NOON + start, (Use(ATLAS, one),)) for one in ids]))
    left = {use.record for use in kept.records(ATLAS)}
    assert len(left) <= 50
    assert {f"r{number:03}" for number in range(180, 200)} <= left
    assert len(kept.answers(ATLAS, limit=1000)) <= 50


def test_a_full_file_makes_room_and_goes_on(
    opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sidecar, "FILE_BYTES", 64 * 4096)
    kept = opened(tmp_path)
    errors = []
    for number in range(60):
        ids = [f"{number:03}-{one:03}-{'x' * 100}" for one in range(100)]
        try:
            kept.write(accesses(ATLAS, *ids, at=NOON + number))
        except sqlite3.OperationalError as error:
            errors.append(error.sqlite_errorname)
            kept.shrink()
    assert set(errors) == {"SQLITE_FULL"}
    assert kept.path.stat().st_size <= 64 * 4096
    assert any(use.record.startswith("05") for use in kept.records(ATLAS))


def test_what_is_forgotten_stands_nowhere_in_the_file(opened: Opened, tmp_path: Path) -> None:
    kept = opened(tmp_path)
    kept.write(accesses(ATLAS, "secret-habit"))
    kept.write(accesses(NOTES, "harmless"))
    kept.write(Portion(answers=[(NOON, (Use(ATLAS, "secret-habit"), Use(NOTES, "harmless")))]))
    assert kept.forget(ATLAS)
    assert not kept.forget(ATLAS)
    content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"secret-habit" not in content
    assert [cube.cube for cube in kept.cubes()] == [NOTES]
    assert [len(one.used) for one in kept.answers(NOTES)] == [1]
    assert kept.forget()
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_another_format_is_neither_read_nor_changed(
    opened: Opened, tmp_path: Path
) -> None:
    kept = opened(tmp_path)
    kept.write(accesses(ATLAS, "a"))
    with sqlite3.connect(kept.path) as db:
        db.execute("PRAGMA user_version = 7")
    db.close()
    with pytest.raises(StorageError, match="format is 7") as caught:
        kept.cubes()
    assert "memcube usage --forget" in str(caught.value.hint)
    with pytest.raises(sqlite3.DatabaseError):
        kept.write(accesses(ATLAS, "b"))


def test_a_writer_that_is_killed_leaves_whole_portions(opened: Opened, tmp_path: Path) -> None:
    """Each portion counts a record and an answer; death at any moment leaves as many of both."""
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            kept = Sidecar(tmp_path)
            for number in range(1_000_000):
                use = Use(ATLAS, f"r{number % 50}")
                kept.write(Portion(accesses=[(use, NOON)], answers=[(NOON, (use,))]))
                if number == 20:
                    os.write(told, b".")
        finally:
            os._exit(1)
    os.read(ready, 1)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(ready)
    os.close(told)
    found = Sidecar(tmp_path).cube(ATLAS)
    assert found
    assert found.accesses == found.answers >= 20
    Sidecar(tmp_path).write(accesses(ATLAS, "after"))


def test_several_processes_count_together(opened: Opened, tmp_path: Path) -> None:
    kept, children = opened(tmp_path), []
    for _ in range(3):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                written = 0
                while written < 20:
                    with suppress(sqlite3.OperationalError):  # locked by another one
                        Sidecar(tmp_path).write(accesses(ATLAS, "a"))
                        written += 1
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0, 0]
    (use,) = kept.records(ATLAS)
    assert use.accesses == 60


def test_a_file_that_another_process_took_away_is_begun_anew(
    opened: Opened, tmp_path: Path
) -> None:
    kept = opened(tmp_path)
    kept.write(accesses(ATLAS, "a"))
    opened(tmp_path).forget()
    assert kept.cubes() == ()
    kept.write(accesses(ATLAS, "b"))
    assert [use.record for use in opened(tmp_path).records(ATLAS)] == ["b"]


def test_a_forked_process_uses_a_connection_of_its_own(opened: Opened, tmp_path: Path) -> None:
    kept = opened(tmp_path)
    kept.write(accesses(ATLAS, "a"))
    child = os.fork()
    if child == 0:
        code = 1
        try:
            kept.write(accesses(ATLAS, "a"))
            kept.close()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    kept.write(accesses(ATLAS, "a"))
    (use,) = kept.records(ATLAS)
    assert use.accesses == 3


uses = st.builds(Use, st.sampled_from([ATLAS, NOTES]), st.sampled_from("abcde"), st.just(1.0))
times = st.integers(NOON, NOON + 10**6)
portions = st.builds(
    Portion,
    st.lists(st.tuples(st.sampled_from([ATLAS, NOTES]), st.sampled_from(["v1", "v2"]), times)),
    st.lists(st.tuples(uses, times), max_size=8),
    st.lists(st.tuples(times, st.lists(uses, min_size=1, max_size=4).map(tuple)), max_size=4),
)


@settings(max_examples=25)
@given(st.lists(portions, max_size=4))
def test_whatever_is_told_in_whatever_portions_is_counted_once(told: list[Portion]) -> None:
    with TemporaryDirectory() as folder, closing(Sidecar(Path(folder))) as kept:
        for portion in told:
            kept.write(portion)
        for cube in (ATLAS, NOTES):
            mounts = [mount for portion in told for mount in portion.mounts if mount[0] == cube]
            found = [use for portion in told for use, _ in portion.accesses if use.cube == cube]
            answers = [
                [use for use in used if use.cube == cube]
                for portion in told
                for _, used in portion.answers
            ]
            answers = [used for used in answers if used]
            put = [use.record for used in answers for use in used]
            counted = kept.cube(cube)
            assert bool(counted) == bool(mounts or found or answers)
            if counted is None:
                continue
            assert counted.mounts == len(mounts) == sum(one.mounts for one in kept.versions(cube))
            assert counted.accesses == len(found)
            assert counted.answers == len(answers) == len(kept.answers(cube, limit=100))
            by_record = {one.record: one for one in kept.records(cube)}
            assert set(by_record) == {use.record for use in found} | set(put)
            for record, one in by_record.items():
                assert one.accesses == sum(use.record == record for use in found)
                assert one.answers == put.count(record)
                assert one.score == 1.0
