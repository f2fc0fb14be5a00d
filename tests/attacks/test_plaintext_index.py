"""Indexes of records that were damaged, interrupted, or fed with hostile records."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from memcube.demo.corpus import handbook
from memcube.memories.plaintext import PlaintextIndex, records_of
from memcube_protocol import limits, media_types, oci
from memcube_protocol.content import MemoryBlobs
from memcube_protocol.digest import Digest
from memcube_protocol.errors import IntegrityError, StorageError
from memcube_protocol.records import Record
from memcube_protocol.shards import compress, cut
from support.memories import note

pytest.importorskip("qdrant_edge")

CUBE = Digest.of(b"a cube")
BUILDER = """
import sys
from pathlib import Path
from memcube.memories.plaintext import PlaintextIndex
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
