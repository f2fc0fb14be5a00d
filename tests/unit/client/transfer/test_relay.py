"""What passes between two registries: the right bytes of the right blob, or nothing at the end."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from types import SimpleNamespace, TracebackType
from typing import Self, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memcube.remote.interface import Remote
from memcube.transfer.relay import Repository
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    DigestMismatchError,
    MemcubeError,
    NetworkError,
    SizeMismatchError,
)
from memcube_protocol.oci import Descriptor


class Sending:
    """An answer with `content`, in pieces of `size`."""

    def __init__(self, status: int, content: bytes, size: int) -> None:
        self.status, self._content, self._size = status, content, size

    def pieces(self) -> Iterator[bytes]:
        for at in range(0, len(self._content), self._size):
            yield self._content[at : at + self._size]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass


def source_of(content: bytes, *, piece_bytes: int = 3, ranges: bool = True) -> Repository:
    """A repository that sends `content` for every blob; whole, where it knows no ranges."""

    def open_blob(name: str, digest: Digest, *, start: int = 0, stop: int | None = None) -> Sending:
        if ranges and (start or stop is not None):
            return Sending(206, content[start:stop], piece_bytes)
        return Sending(200, content, piece_bytes)

    found = SimpleNamespace(host="source.example", open_blob=open_blob)
    return Repository(cast("Remote", found), "alice/notes")


def taken(source: Repository, blob: Descriptor, *cuts: int) -> list[bytes]:
    """What passes for the parts of `blob` between `cuts`."""
    parts = source.parts_of(blob)
    edges = [0, *cuts, blob.size]
    pairs = itertools.pairwise(edges)
    return [b"".join(map(bytes, parts(a, b - a, lambda sent: None))) for a, b in pairs]


@given(st.binary(min_size=1, max_size=60), st.data(), st.integers(1, 9), st.booleans())
def test_parts_in_their_order_are_the_blob(
    content: bytes, data: st.DataObject, piece_bytes: int, ranges: bool
) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, max(len(content) - 1, 1)), max_size=3)))
    cuts = [cut for cut in cuts if cut < len(content)]
    source = source_of(content, piece_bytes=piece_bytes, ranges=ranges)
    blob = Descriptor.of("application/octet-stream", content)
    assert b"".join(taken(source, blob, *cuts)) == content


@given(st.binary(min_size=2, max_size=60), st.data(), st.integers(1, 9))
def test_of_other_bytes_the_last_piece_never_passes(
    content: bytes, data: st.DataObject, piece_bytes: int
) -> None:
    at = data.draw(st.integers(0, len(content) - 1))
    wrong = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
    blob = Descriptor.of("application/octet-stream", content)
    parts = source_of(wrong, piece_bytes=piece_bytes).parts_of(blob)
    passed: list[bytes] = []
    with pytest.raises(DigestMismatchError):
        passed.extend(map(bytes, parts(0, blob.size, lambda sent: None)))
    assert sum(map(len, passed)) < blob.size


@pytest.mark.parametrize("ranges", [True, False])
def test_less_than_was_promised_is_a_broken_connection(ranges: bool) -> None:
    blob = Descriptor.of("application/octet-stream", b"0123456789")
    with pytest.raises(NetworkError, match="sent 7 of 10"):
        taken(source_of(b"0123456", ranges=ranges), blob)


def test_more_than_was_promised_is_cut() -> None:
    blob = Descriptor.of("application/octet-stream", b"0123456789")
    assert taken(source_of(b"0123456789abc"), blob) == [b"0123456789"]
    with pytest.raises(MemcubeError) as caught:
        taken(source_of(b"xyz3456789abc"), blob)
    assert isinstance(caught.value, DigestMismatchError | SizeMismatchError)


def test_a_part_that_is_sent_again_is_verified_again_from_the_start_only() -> None:
    """A part in the middle that is taken up alone is left to the target's registry."""
    blob = Descriptor.of("application/octet-stream", b"0123456789")
    parts = source_of(b"x123456789").parts_of(blob)
    assert b"".join(map(bytes, parts(4, 6, lambda sent: None))) == b"456789"
    with pytest.raises(DigestMismatchError):
        list(parts(0, 10, lambda sent: None))
