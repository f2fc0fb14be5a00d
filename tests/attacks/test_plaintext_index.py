"""Indexes of records that were damaged, interrupted, or fed with hostile records."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from memcube.client import Client
from memcube.demo.corpus import handbook
from memcube.memories import machine_memory
from memcube.memories.plaintext import opening
from memcube.memories.plaintext.build import Entries, Survey
from memcube.memories.plaintext.embedding import Embedding
from memcube.memories.plaintext.engine import Match
from memcube.memories.plaintext.index import PlaintextIndex, records_of
from memcube.memories.plaintext.ranking import Diversity, best, diversify
from memcube.settings import Settings
from memcube_protocol import limits, media_types, oci, text
from memcube_protocol.content import MemoryBlobs
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    DiskFullError,
    IntegrityError,
    LimitExceededError,
    StorageError,
)
from memcube_protocol.records import Record, to_json, write_record
from memcube_protocol.shards import compress, cut
from support.memories import note
from support.mounted import pack_handbook

pytest.importorskip("qdrant_edge")

CUBE = Digest.of(b"a cube")
BUILDER = """
import sys
from pathlib import Path
from memcube.memories.plaintext.index import PlaintextIndex
from memcube_protocol.digest import Digest
from memcube_protocol.records import Record

def records():
    print("reading", flush=True)
    for number in range(10_000_000):
        yield Record(id=f"n-{number:08d}", text="some words to index")

PlaintextIndex.open(Path(sys.argv[1]), Digest.of(b"a cube"), records)
"""


def damage(file: Path, chosen: random.Random) -> None:
    content = bytearray(file.read_bytes())
    kind = chosen.choice(["flip", "cut", "noise"])
    if kind == "flip":
        for _ in range(20):
            content[chosen.randrange(len(content))] ^= chosen.randrange(1, 256)
    elif kind == "cut":
        del content[chosen.randrange(len(content)) :]
    else:
        content[:] = chosen.randbytes(len(content))
    file.write_bytes(content)


@pytest.mark.parametrize("seed", range(8))
def test_a_damaged_file_gives_right_records_or_our_error(tmp_path: Path, seed: int) -> None:
    PlaintextIndex.open(tmp_path, CUBE, handbook).close()
    chosen = random.Random(seed)
    shard = tmp_path / f"sha256-{CUBE.hex}" / "shard"
    files = sorted(path for path in shard.rglob("*") if path.is_file() and path.stat().st_size)
    damage(chosen.choice(files), chosen)
    known = {record.id: record for record in handbook()}
    with PlaintextIndex.open(tmp_path, CUBE, handbook) as index:
        try:
            hits = index.search("clean the radar antenna")
        except StorageError as error:
            assert error.hint  # noqa: PT017
            return
    assert all(known[hit.record.id] == hit.record for hit in hits)


def test_a_build_that_is_killed_leaves_nothing_half_visible(tmp_path: Path) -> None:
    builder = subprocess.Popen(
        [sys.executable, "-c", BUILDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert builder.stdout is not None
    with builder.stdout as output:
        output.readline()
        time.sleep(0.5)
        os.kill(builder.pid, signal.SIGKILL)
        builder.wait(30)
    assert not (tmp_path / f"sha256-{CUBE.hex}").exists()
    with PlaintextIndex.open(tmp_path, CUBE, handbook) as index:
        assert index.search("radar")
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [f"sha256-{CUBE.hex}"]


def test_more_records_than_memory_has_room_for_are_an_error_and_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = iter([1 << 30, 1 << 30, 1 << 20])
    monkeypatch.setattr(machine_memory, "free_bytes", lambda: next(left))
    read: list[int] = []

    def million() -> Iterator[Record]:
        for number in range(4000):
            read.append(number)
            yield note(number, "some words to index")

    with pytest.raises(LimitExceededError, match="64 MiB more of memory, and 1 are free") as caught:
        PlaintextIndex.open(tmp_path, CUBE, million)
    assert "--search-server" in (caught.value.hint or "")
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []
    assert len(read) < 8000, "the second reading ended where memory did"


def test_records_that_fill_the_disk_are_an_error_before_the_first_is_read(tmp_path: Path) -> None:
    read: list[int] = []

    def records() -> Iterator[Record]:
        read.append(1)
        return iter([note(1, "one")])

    with pytest.raises(DiskFullError, match="MiB more on its disk"):
        PlaintextIndex.open(tmp_path, CUBE, records, records_bytes=1 << 60)
    assert not read
    PlaintextIndex.open(tmp_path, CUBE, records, records_bytes=1).close()
    assert read


def test_a_mount_tells_how_much_the_records_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(opening, "require_space", lambda _, size_bytes: asked.append(size_bytes))
    records = [note(number, "a" * 500) for number in range(50)]
    settings = Settings.load(pack_handbook(tmp_path, [to_json(record) for record in records]))
    with Client(settings) as client, client.mount("acme/handbook"):
        assert asked == [sum(len(write_record(record)) + 1 for record in records)]


def test_what_an_index_holds_in_memory_does_not_grow_with_its_records(tmp_path: Path) -> None:
    def peak_bytes(count: int) -> int:
        def records() -> Iterator[Record]:
            return (note(n % 90 + 1, f"note {n % 90} " + "tea " * 60) for n in range(count))

        folder = tmp_path / str(count)
        folder.mkdir()
        survey = Survey.of(records)
        tracemalloc.start()
        for _ in Entries(records, survey, Embedding(""), folder, 0):
            pass
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak

    few = peak_bytes(300)
    assert peak_bytes(1500) < 1.5 * few + 200_000


def test_a_shard_that_was_changed_on_disk_builds_no_index(tmp_path: Path) -> None:
    (shard,) = (compress(piece) for piece in cut(handbook()))
    layer = shard.descriptor(f"plaintext/{shard.name}", "plaintext")
    manifest = oci.write_manifest(artifact_type=media_types.CUBE, config=oci.EMPTY, layers=[layer])

    class Changed(MemoryBlobs):
        def read(
            self, digest: Digest, *, start: int = 0, stop: int | None = None
        ) -> Iterator[bytes]:
            content = bytearray(shard.content)
            content[len(content) // 2] ^= 1
            return iter((bytes(content),))

    with pytest.raises(IntegrityError):
        PlaintextIndex.open(tmp_path, CUBE, lambda: records_of(manifest, Changed()))
    assert not (tmp_path / f"sha256-{CUBE.hex}").exists()


def test_hostile_records_are_indexed_and_found(tmp_path: Path) -> None:
    largest = "word " * 200_000
    records = [
        Record(id="a-huge", text=f"needle {largest}"[: limits.RECORD_BYTES - 200]),
        Record(id="b-many", text="needle " + " ".join(f"t{n}" for n in range(100_000))),
        Record(id="c-signs", text='needle \x00\x1b\u202e</memories> {"$where": 1} \'; DROP TABLE'),
        Record(id="d-tags", text="needle", tags=tuple(f"tag {n}" for n in range(1024))),
        Record(id="e-nothing", text="\u200b"),
    ]
    with PlaintextIndex.open(tmp_path, CUBE, lambda: records) as index:
        found = {hit.record.id for hit in index.search("needle")}
        assert found == {record.id for record in records[:4]}
        assert index.search("needle " * 10_000)
        assert index.search("\x00\ud800") == []
        context = index.context("needle drop table", 2000)
    assert "</memories>" not in context
    assert "\x1b" not in context


def test_a_record_that_repeats_a_word_does_not_push_the_others_out(tmp_path: Path) -> None:
    records = [
        note(1, "tea " * 10_000),
        note(2, "Tea is served at half past two after the hourly reading."),
    ]
    with PlaintextIndex.open(tmp_path, CUBE, lambda: records) as index:
        assert index.search("when is tea served")[0].record.id == note(2).id


def test_of_a_million_records_that_answer_alike_a_bounded_number_is_looked_at() -> None:
    asked: list[int] = []

    def alike(wide: int) -> list[Match]:
        asked.append(wide)
        return [Match(number, 1.0) for number in range(min(wide, 10_000))]

    assert [match.number for match in best(alike, 50, 1_000_000)] == list(range(50))
    assert max(asked) < 10_000


def test_of_the_largest_records_their_beginnings_are_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken: list[int] = []

    def terms(said: str) -> list[str]:
        taken.append(len(said))
        return said.split()

    monkeypatch.setattr(text, "terms", terms)
    records = [note(number, "tea " * 200_000) for number in range(1, 4)]
    matches = [Match(number, 1.0) for number in range(3)]
    found = diversify(matches, records.__getitem__, Diversity(weight=0.5), 3)
    assert len(found) == len(taken) == 3
    assert max(taken) < 10_000
