"""Compressed shards that are bombs, damaged, or something else than they say."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from memcube_protocol import limits, media_types
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    DigestMismatchError,
    InvalidRecordError,
    LimitExceededError,
    MemcubeError,
    SizeMismatchError,
)
from memcube_protocol.oci import Descriptor
from memcube_protocol.records import Record, write_record
from memcube_protocol.shards import COMPRESSED_MAX_BYTES, Shard, compress, read_shard
from support.attempts import attempt
from support.memories import note

RAW = b"".join(write_record(note(number)) + b"\n" for number in range(50))
GOOD = compress(Shard(RAW, 50))


def compressed(raw: bytes, **options: object) -> bytes:
    settings = {"write_checksum": True, "write_content_size": True, "write_dict_id": False}
    return zstandard.ZstdCompressor(level=3, **(settings | options)).compress(raw)  # type: ignore[arg-type]


def promise(content: bytes, raw: bytes = RAW, **changes: str) -> Descriptor:
    """Descriptor of `content` that promises `raw`, with some annotations changed."""
    annotations = {
        media_types.UNCOMPRESSED_DIGEST: str(Digest.of(raw)),
        media_types.UNCOMPRESSED_SIZE: str(len(raw)),
        media_types.RECORD_COUNT: str(raw.count(b"\n")),
    }
    names = {
        "digest": media_types.UNCOMPRESSED_DIGEST,
        "size": media_types.UNCOMPRESSED_SIZE,
        "records": media_types.RECORD_COUNT,
    }
    annotations |= {names[key]: value for key, value in changes.items()}
    return Descriptor.of(media_types.RECORDS, content, annotations)


def read(content: bytes, descriptor: Descriptor | None = None) -> list[Record]:
    return list(read_shard(content, descriptor or promise(content)))


def test_the_good_one_is_read_whole_and_in_pieces() -> None:
    descriptor = promise(GOOD.content)
    assert len(read(GOOD.content)) == 50
    pieces = [GOOD.content[at : at + 7] for at in range(0, len(GOOD.content), 7)]
    assert len(list(read_shard(pieces, descriptor))) == 50


def test_a_bomb_is_refused_before_anything_is_allocated_for_it() -> None:
    bomb = compressed(b"\x00" * (1 << 28))
    assert len(bomb) < 50_000
    tracemalloc.start()
    for size in (str(1 << 28), str(len(RAW)), str(limits.SHARD_MAX_BYTES)):
        with pytest.raises((LimitExceededError, SizeMismatchError)):
            read(bomb, promise(bomb, size=size))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * limits.MIB


def test_a_bomb_that_hides_its_size_is_refused() -> None:
    bomb = compressed(b"\x00" * (1 << 26), write_content_size=False)
    with pytest.raises(SizeMismatchError):
        read(bomb)


def test_a_frame_that_lies_about_its_size_is_refused() -> None:
    frame = bytearray(compressed(RAW))
    assert frame[4] & 0x20
    size_at = 5
    frame[size_at : size_at + 2] = (len(RAW) - 256 - 1).to_bytes(2, "little")
    content = bytes(frame)
    with pytest.raises((InvalidRecordError, DigestMismatchError)):
        read(content, promise(content, RAW[:-1]))


def test_a_layer_that_never_ends_is_given_up() -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield b"\x00" * 65536

    with pytest.raises(SizeMismatchError, match="longer"):
        list(read_shard(endless(), promise(GOOD.content)))


def test_a_layer_larger_than_any_shard_is_not_even_read() -> None:
    descriptor = Descriptor(media_types.RECORDS, Digest.of(b""), COMPRESSED_MAX_BYTES + 1)
    with pytest.raises(LimitExceededError):
        list(read_shard(iter(()), descriptor))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a zstd frame"),
        (b"\x1f\x8b" + bytes(20), "not a zstd frame"),
        (RAW, "not a zstd frame"),
        (GOOD.content[:5], "damaged"),
        (GOOD.content[:-1], "does not decompress"),
        (GOOD.content + b"\x00", "does not decompress"),
        (GOOD.content + GOOD.content, "does not decompress"),
        (b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd" + GOOD.content, "not a zstd frame"),
        (GOOD.content + b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd", "does not decompress"),
        (compressed(RAW, write_checksum=False), "no checksum"),
    ],
)
def test_what_is_not_one_plain_frame_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(InvalidRecordError, match=reason):
        read(content)


def test_a_frame_with_a_dictionary_is_refused() -> None:
    samples = [write_record(note(number, f"text {number} " * 20)) for number in range(200)]
    dictionary = zstandard.train_dictionary(4096, samples)
    content = zstandard.ZstdCompressor(
        dict_data=dictionary, write_checksum=True, write_dict_id=True
    ).compress(RAW)
    with pytest.raises(InvalidRecordError, match="dictionary"):
        read(content)


def test_a_huge_window_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(
        3, window_log=27, write_checksum=1, write_content_size=1
    )
    compressor = zstandard.ZstdCompressor(compression_params=parameters)
    writer = compressor.compressobj(size=1 << 27)
    content = writer.compress(bytes(1 << 27)) + writer.flush()
    with pytest.raises((InvalidRecordError, LimitExceededError)):
        read(content, promise(content, size=str(limits.SHARD_MAX_BYTES)))


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"digest": str(Digest.of(b"other"))}, DigestMismatchError),
        ({"digest": "sha256:0"}, MemcubeError),
        ({"size": str(len(RAW) + 1)}, SizeMismatchError),
        ({"size": "-1"}, InvalidRecordError),
        ({"size": ""}, InvalidRecordError),
        ({"size": "٣"}, InvalidRecordError),
        ({"size": "9" * 30}, InvalidRecordError),
        ({"records": "49"}, InvalidRecordError),
        ({"records": "050"}, InvalidRecordError),
    ],
)
def test_annotations_that_do_not_fit_are_refused(
    changes: dict[str, str], error: type[MemcubeError]
) -> None:
    with pytest.raises(error):
        read(GOOD.content, promise(GOOD.content, **changes))


LINES = RAW.splitlines(keepends=True)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (RAW[:-1], "newline"),
        (RAW + b"\n", "at least|JSON"),
        (LINES[1] + LINES[0], "comes after"),
        (LINES[0] + LINES[0], "stands twice"),
        (LINES[0].replace(b":", b": "), "canonical"),
        (b'{"text":"b","id":"a"}\n', "canonical"),
        (b'{"id":"a","text":"b","confidence":1.0}\n', "canonical"),
        (b'{"id":"a","type":"fact"}\n', "at least an id"),
        (b"\xff\n", "UTF-8"),
    ],
)
def test_lines_that_are_no_canonical_records_are_refused(raw: bytes, reason: str) -> None:
    content = compressed(raw)
    with pytest.raises(MemcubeError, match=reason):
        read(content, promise(content, raw))


def test_no_record_is_given_before_all_bytes_were_checked() -> None:
    content = compressed(RAW)
    wrong = promise(content, digest=str(Digest.of(b"other")))
    with pytest.raises(DigestMismatchError):
        next(read_shard(content, wrong))


@settings(max_examples=150)
@given(st.integers(0, len(GOOD.content) - 1), st.integers(1, 255))
def test_a_flipped_byte_is_noticed_by_the_layer_digest_and_by_the_content(
    at: int, flip: int
) -> None:
    damaged = bytearray(GOOD.content)
    damaged[at] ^= flip
    content = bytes(damaged)
    with pytest.raises(DigestMismatchError):
        read(content, promise(GOOD.content))
    result = attempt(lambda: read(content))
    assert isinstance(result, MemcubeError) or len(result) == 50


@settings(max_examples=100)
@given(st.binary(max_size=200), st.booleans())
def test_random_bytes_raise_only_our_errors(content: bytes, framed: bool) -> None:
    content = b"\x28\xb5\x2f\xfd" + content if framed else content
    assert isinstance(attempt(lambda: read(content)), MemcubeError)
