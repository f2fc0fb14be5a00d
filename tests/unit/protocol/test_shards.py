from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memcube_protocol import limits, media_types, shards
from memcube_protocol.digest import Digest
from memcube_protocol.errors import InvalidRecordError
from memcube_protocol.records import Record, write_record
from memcube_protocol.shards import CompressedShard, Shard, compress, cut, read_shard, target_for
from support.memories import RECORDS, note

TARGET = 128 * limits.KIB


def read_back(shard: CompressedShard) -> list[Record]:
    return list(read_shard(shard.content, shard.descriptor("plaintext/x.jsonl.zst", "plaintext")))


def many(count: int, seed: int = 0) -> Iterator[Record]:
    words = random.Random(seed)
    for number in range(count):
        yield note(number, "".join(words.choices("abcdefgh ", k=words.randint(50, 400))))


@settings(max_examples=40)
@given(st.lists(RECORDS, unique_by=lambda record: record.id, max_size=8))
def test_what_is_cut_and_compressed_is_read_back(records: list[Record]) -> None:
    records.sort(key=lambda record: record.id.encode())
    pieces = list(cut(records))
    assert [record for piece in pieces for record in read_back(compress(piece))] == records
    assert sum(piece.count for piece in pieces) == len(records)


def test_shards_keep_their_bounds_and_their_order() -> None:
    records = list(many(20_000))
    pieces = list(cut(records, target=TARGET))
    assert len(pieces) > 10
    assert all(limits.SHARD_MIN_BYTES <= len(p.raw) <= limits.SHARD_MAX_BYTES for p in pieces[:-1])
    mean = sum(len(piece.raw) for piece in pieces) / len(pieces)
    assert TARGET * 0.7 < mean < TARGET * 1.6
    lines = b"".join(piece.raw for piece in pieces).splitlines()
    assert lines == list(map(write_record, records))


def test_a_shard_never_grows_beyond_the_limit() -> None:
    # Ids that are no cut points are rare at this size, so a target beyond all sizes is used.
    records = [note(number, "x" * 900_000) for number in range(20)]
    pieces = list(cut(records, target=1 << 60))
    assert [piece.count for piece in pieces] == [9, 9, 2]


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 3999), st.sampled_from(["edit", "insert", "delete"]))
def test_a_change_of_one_record_changes_the_shards_around_it_only(at: int, kind: str) -> None:
    records = list(many(4000))
    before = {piece.digest for piece in cut(records, target=limits.SHARD_MIN_BYTES)}
    if kind == "edit":
        records[at] = note(at, "changed")
    elif kind == "insert":
        records.insert(at + 1, Record(id=f"{records[at].id}-b", text="new"))
    else:
        del records[at]
    after = {piece.digest for piece in cut(records, target=limits.SHARD_MIN_BYTES)}
    assert len(before) > 8
    assert len(after - before) <= 3


def test_the_same_records_give_the_same_bytes() -> None:
    one, two = ([compress(piece) for piece in cut(many(3000))] for _ in range(2))
    assert one == two


def test_bytes_of_an_earlier_version_are_reused_by_the_uncompressed_digest() -> None:
    piece = next(cut(many(100)))
    asked: list[Digest] = []

    def reuse(digest: Digest) -> bytes | None:
        asked.append(digest)
        return b"earlier bytes"

    shard = compress(piece, reuse=reuse)
    assert shard.content == b"earlier bytes"
    assert asked == [piece.digest] == [shard.uncompressed_digest]
    assert compress(piece, reuse=lambda digest: None) == compress(piece)


def test_the_descriptor_says_what_is_inside() -> None:
    shard = compress(Shard(write_record(note(1)) + b"\n", 1))
    descriptor = shard.descriptor("plaintext/a.jsonl.zst", "plaintext")
    assert descriptor.media_type == media_types.RECORDS
    assert descriptor.digest == Digest.of(shard.content)
    assert descriptor.annotations == {
        media_types.TITLE: "plaintext/a.jsonl.zst",
        media_types.FILEPATH: "plaintext/a.jsonl.zst",
        media_types.MEMORY: "plaintext",
        media_types.UNCOMPRESSED_DIGEST: str(Digest.of(write_record(note(1)) + b"\n")),
        media_types.UNCOMPRESSED_SIZE: str(len(write_record(note(1))) + 1),
        media_types.RECORD_COUNT: "1",
    }
    assert shard.name == f"{shard.uncompressed_digest.hex[:16]}.jsonl.zst"


def test_records_out_of_order_or_twice_are_refused() -> None:
    with pytest.raises(InvalidRecordError, match="comes after"):
        list(cut([note(2), note(1)]))
    with pytest.raises(InvalidRecordError, match="stands twice"):
        list(cut([note(1), note(1)]))


def test_ids_ascend_from_layer_to_layer() -> None:
    one, two = (compress(next(cut([note(number)]))) for number in (1, 2))
    layers = [(shard.content, shard.descriptor("a", "plaintext")) for shard in (one, two)]
    assert [record.id for record in shards.read_shards(layers)] == [note(1).id, note(2).id]
    with pytest.raises(InvalidRecordError, match="comes after"):
        list(shards.read_shards(layers[::-1]))
    with pytest.raises(InvalidRecordError, match="stands twice"):
        list(shards.read_shards([layers[0], layers[0]]))


def test_order_is_that_of_utf_8_bytes() -> None:
    ids = ["a", "é", "\uffee", "\U0001f600"]
    assert ids == sorted(ids, key=str.encode)
    assert len(list(cut(Record(id=identity, text="x") for identity in ids))) == 1


def test_no_records_give_no_shards() -> None:
    assert list(cut([])) == []


def test_the_target_grows_with_the_cube_so_that_a_manifest_can_name_its_shards() -> None:
    assert target_for(0) == limits.SHARD_MIN_BYTES
    assert target_for(100 * limits.MIB) == 512 * limits.KIB
    assert target_for(400 * limits.MIB) == limits.SHARD_TARGET_BYTES
    assert target_for(4096 * limits.MIB) == limits.SHARD_TARGET_BYTES
    for gigabytes in (5, 10, 16):
        total = gigabytes * 1024 * limits.MIB
        assert total / target_for(total) <= limits.MANIFEST_LAYERS / 2
    assert target_for(1 << 60) == limits.SHARD_MAX_BYTES // 2


def test_cut_points_are_those_of_the_specification() -> None:
    head = int(Digest.of(b"note-1").hex[:16], 16)
    for shard_bytes, weight in ((limits.SHARD_MIN_BYTES, 1 / 8), (TARGET, 8)):
        for line_bytes in (10, 1000, 50_000, 1_000_000):
            expected = head < 2**64 * weight * line_bytes / TARGET
            assert shards.is_cut_point("note-1", line_bytes, shard_bytes, TARGET) is expected
