from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memcube_protocol.content import (
    Blocks,
    Cell,
    Commitment,
    Expected,
    MemoryBlobs,
    merkle_root,
    read_verified,
    stream_verified,
)
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    DigestMismatchError,
    InvalidManifestError,
    NotFoundError,
    SizeMismatchError,
)
from support.attempts import attempt


class Lying:
    """A store that holds other bytes than it was asked for."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def read(self, digest: Digest, *, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        assert start >= 0
        return iter((self.content[start:stop],))


def read_range(blobs: Lying, blocks: Blocks, start: int, stop: int) -> bytes:
    """Bytes `start` to `stop`, checked by the blocks that hold them."""
    first, last = blocks.covering(start, stop)
    content = b"".join(blobs.read(Digest.of(b""), start=first, stop=last))
    blocks.verify(content, first)
    return content[start - first : stop - first]


@settings(max_examples=60)
@given(st.binary(), st.binary(), st.sampled_from(["sha256", "sha512"]))
def test_only_the_bytes_named_by_the_digest_are_read(
    content: bytes, other: bytes, algorithm: str
) -> None:
    digest = Digest.of(content, algorithm)
    assert read_verified(Lying(content), digest, len(content)) == content
    if other != content:
        with pytest.raises((DigestMismatchError, SizeMismatchError)):
            read_verified(Lying(other), digest, len(content))
        with pytest.raises(DigestMismatchError):
            read_verified(Lying(other), digest)


def test_too_many_bytes_stop_the_reading_early() -> None:
    taken: list[bytes] = []

    def endless() -> Iterator[bytes]:
        while True:
            yield b"x" * 10

    with pytest.raises(SizeMismatchError, match="longer"):
        taken.extend(stream_verified(endless(), Expected(Digest.of(b""), 25)))
    assert len(taken) == 2


def test_a_blob_that_is_not_there_is_missed() -> None:
    blobs = MemoryBlobs([b"here"])
    assert read_verified(blobs, blobs.write(b"there")) == b"there"
    with pytest.raises(NotFoundError):
        read_verified(blobs, Digest.of(b"nowhere"))


@settings(max_examples=100)
@given(st.binary(max_size=300), st.integers(1, 64), st.integers(0, 40), st.data())
def test_a_range_is_verified_by_the_blocks_around_it(
    tail: bytes, block_bytes: int, offset: int, data: st.DataObject
) -> None:
    content = b"\x00" * offset + tail
    blocks = Blocks.of(tail, block_bytes, offset)
    start = data.draw(st.integers(offset, len(content)))
    stop = data.draw(st.integers(start, len(content)))
    assert read_range(Lying(content), blocks, start, stop) == content[start:stop]
    if start < stop:
        flipped = bytearray(content)
        flipped[start] ^= 1
        with pytest.raises(DigestMismatchError):
            read_range(Lying(bytes(flipped)), blocks, start, stop)


@settings(max_examples=100)
@given(st.integers(-50, 150), st.integers(-50, 150))
def test_a_range_beyond_the_hashed_bytes_is_refused(start: int, stop: int) -> None:
    content = bytes(100)
    blocks = Blocks.of(content[20:], 16, 20)
    got = attempt(lambda: read_range(Lying(content), blocks, start, stop))
    if 20 <= start <= stop <= 100:
        assert got == content[start:stop]
    else:
        assert isinstance(got, SizeMismatchError)


@pytest.mark.parametrize(
    ("block_bytes", "start", "size", "hashes"),
    [(0, 0, 1, 1), (-1, 0, 1, 1), (4, 0, 9, 2), (4, 0, -1, 0), (4, -4, 4, 1), (4, 0, 4, 0)],
)
def test_block_hashes_that_cover_nothing_real_are_refused(
    block_bytes: int, start: int, size: int, hashes: int
) -> None:
    with pytest.raises(InvalidManifestError):
        Blocks(block_bytes, start, size, (b"\x00" * 32,) * hashes)


def test_parts_of_blocks_are_not_verified() -> None:
    blocks = Blocks.of(bytes(100), 16)
    blocks.verify(bytes(32), 16)
    blocks.verify(bytes(20), 80)
    for content, start in ((bytes(10), 0), (bytes(16), 3), (bytes(16), -16), (bytes(200), 0)):
        with pytest.raises(SizeMismatchError):
            blocks.verify(content, start)


def personal(copy: list[bytes]) -> tuple[Commitment, tuple[Cell, ...]]:
    """A commitment and the cells of one buyer's copy."""
    cells = tuple(
        Cell(len(part), number % 2, bytes([number]) * 16, hashlib.sha256(bytes([number])).digest())
        for number, part in enumerate(copy)
    )
    leaves = [cell.leaf(part) for cell, part in zip(cells, copy, strict=True)]
    return Commitment(merkle_root(leaves), len(leaves)), cells


@settings(max_examples=60)
@given(st.lists(st.binary(min_size=1, max_size=20), max_size=9), st.integers(1, 7), st.data())
def test_a_personal_copy_is_verified_cell_by_cell(
    copy: list[bytes], piece: int, data: st.DataObject
) -> None:
    commitment, cells = personal(copy)
    content = b"".join(copy)
    expected = Expected(commitment, cells=cells)
    pieces = [content[at : at + piece] for at in range(0, len(content), piece)]
    assert b"".join(stream_verified(pieces, expected)) == content
    with pytest.raises(SizeMismatchError):
        list(stream_verified([content + b"x"], expected))
    if content:
        with pytest.raises(SizeMismatchError):
            list(stream_verified([content[:-1]], expected))
        at = data.draw(st.integers(0, len(content) - 1))
        flipped = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        with pytest.raises(DigestMismatchError):
            list(stream_verified([flipped], expected))


def test_cells_and_commitments_refuse_invalid_states() -> None:
    for size, side, sibling in ((0, 0, 32), (1, 2, 32), (1, 0, 31)):
        with pytest.raises(InvalidManifestError):
            Cell(size, side, b"", bytes(sibling))
    for root, cells in ((31, 1), (32, -1)):
        with pytest.raises(InvalidManifestError):
            Commitment(bytes(root), cells)
    assert str(Commitment(bytes(32), 3)) == f"commitment:{'00' * 32}/3"


def test_the_root_is_that_of_rfc_6962() -> None:
    leaves = [hashlib.sha256(b"\x00" + bytes([n])).digest() for n in range(3)]
    pair = hashlib.sha256(b"\x01" + leaves[0] + leaves[1]).digest()
    assert merkle_root(leaves) == hashlib.sha256(b"\x01" + pair + leaves[2]).digest()
    assert merkle_root([]) == hashlib.sha256(b"").digest()
    assert merkle_root(leaves[:1]) == leaves[0]
