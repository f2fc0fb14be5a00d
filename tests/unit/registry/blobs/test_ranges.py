"""Byte ranges, as RFC 9110 and the distribution specification write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memcube_protocol.errors import InvalidRequestError, MemcubeError, RangeMismatchError
from memcube_registry.blobs.ranges import Span, chunk_span, requested_span


@pytest.mark.parametrize(
    ("header", "span"),
    [
        ("bytes=0-0", Span(0, 1)),
        ("bytes=500-1499", Span(500, 1500)),
        ("bytes=500-", Span(500, 2048)),
        ("bytes=-500", Span(1548, 2048)),
        ("bytes=-5000", Span(0, 2048)),
        ("bytes=2000-5000", Span(2000, 2048)),
        ("Bytes=1-2", Span(1, 3)),
    ],
)
def test_one_range_is_understood(header: str, span: Span) -> None:
    assert requested_span(header, 2048) == span


@pytest.mark.parametrize("header", ["bytes=500-0", "bytes=5000-10000", "bytes=2048-", "bytes=-0"])
def test_a_range_outside_is_refused(header: str) -> None:
    with pytest.raises(RangeMismatchError):
        requested_span(header, 2048)


@pytest.mark.parametrize(
    "header", ["", "bytes=", "bytes=-", "bytes=0-1,3-4", "lines=1-2", "bytes=a-b"]
)
def test_what_is_no_single_byte_range_is_ignored(header: str) -> None:
    assert requested_span(header, 2048) is None


def test_no_range_of_an_empty_blob_can_be_satisfied() -> None:
    with pytest.raises(RangeMismatchError):
        requested_span("bytes=0-", 0)


@given(st.text(max_size=40), st.integers(0, 2**60))
def test_any_header_gives_a_span_inside_or_one_of_our_errors(header: str, size: int) -> None:
    for text in (header, f"bytes={header}"):
        try:
            span = requested_span(text, size)
        except MemcubeError:
            continue
        assert span is None or 0 <= span.start < span.stop <= size


@given(st.integers(0, 2**50), st.integers(1, 2**50))
def test_a_chunk_says_where_it_lies(start: int, size: int) -> None:
    assert chunk_span(f"{start}-{start + size - 1}") == Span(start, start + size)


@pytest.mark.parametrize(
    "header", ["", "5-4", "bytes 0-1/2", "0-1/2", "-1", "1-", "0-1 ", "٣-٤", "9" * 30 + "-1"]
)
def test_other_forms_of_a_chunk_are_refused(header: str) -> None:
    with pytest.raises(InvalidRequestError):
        chunk_span(header)
