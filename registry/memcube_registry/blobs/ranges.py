"""Byte ranges: `Range` of a download (RFC 9110, 14.2) and `Content-Range` of an upload's chunk."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from memcube_protocol.errors import InvalidRequestError, RangeMismatchError

_RANGE: Final = re.compile(r"bytes=[ \t]*(\d{0,18})-(\d{0,18})[ \t]*", re.IGNORECASE | re.ASCII)
_CHUNK: Final = re.compile(r"(\d{1,18})-(\d{1,18})", re.ASCII)


class UnsatisfiableRangeError(RangeMismatchError):
    """A `Range` outside the content. `size` is how many bytes there are (RFC 9110, 15.5.17)."""

    def __init__(self, message: str, *, hint: str | None = None, size: int) -> None:
        super().__init__(message, hint=hint)
        self.size = size


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes `start` up to but not including `stop`."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        """How many bytes these are."""
        return self.stop - self.start


def requested_span(header: str, size: int) -> Span | None:
    """The bytes that a `Range` header asks for of content of `size` bytes.

    None where the header is to be ignored: another unit, several ranges, or malformed.

    Raises:
        UnsatisfiableRangeError: it lies outside, or ends before it starts.
    """
    match = _RANGE.fullmatch(header)
    if match is None or match.group(1, 2) == ("", ""):
        return None
    first, last = match.group(1, 2)
    if first == "":
        span = Span(max(0, size - int(last)), size)
    else:
        span = Span(int(first), min(int(last) + 1, size) if last else size)
    if span.start >= span.stop:
        raise UnsatisfiableRangeError(
            f"{header[:60]!r} lies outside the {size} bytes of this blob",
            hint="ask for a range inside the blob",
            size=size,
        )
    return span


def chunk_span(header: str) -> Span:
    """The place that a chunk's `Content-Range: first-last` gives it in the upload.

    Raises:
        InvalidRequestError: any other form.
    """
    match = _CHUNK.fullmatch(header)
    if match is None or int(match[2]) < int(match[1]):
        raise InvalidRequestError(
            f"Content-Range {header[:60]!r} is not of the form first-last",
            hint="send the offsets of the chunk's first and last byte, such as 0-1023",
        )
    return Span(int(match[1]), int(match[2]) + 1)
