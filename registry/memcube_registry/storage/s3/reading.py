"""Reads an object of a bucket in one request, and in a few more where the connection breaks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from memcube_protocol.errors import StorageError, UnavailableError

from memcube_registry.storage.interface import PIECE_BYTES
from memcube_registry.storage.s3.bucket import Bucket, OutsideError
from memcube_registry.storage.s3.failures import translated

if TYPE_CHECKING:
    from botocore.response import StreamingBody

_ATTEMPTS: Final = 4
_FIRST_PAUSE_S: Final = 0.1


class S3Pieces:
    """See `Pieces`. A read that breaks off goes on where it stopped, a few times without progress at most.

    Raises:
        NotFoundError: there is no such object.
        StorageError, UnavailableError: it cannot be read.
    """

    def __init__(self, bucket: Bucket, location: str, start: int, stop: int | None) -> None:
        self._bucket = bucket
        self._location = location
        self._position = start
        self._body: StreamingBody | None = None
        self._is_closed = False
        if stop is not None and stop <= start:
            bucket.size(location)  # it must be there nevertheless
            self.size = 0
        else:
            self.size = self._open(stop)
        self._stop = start + self.size

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        """See `Pieces`."""
        if self.at_hand():
            self.close()
            raise StopIteration
        for attempt in range(1, _ATTEMPTS):
            try:
                return self._piece()
            except UnavailableError:
                self._drop()
                time.sleep(_FIRST_PAUSE_S * 2**attempt)
        return self._piece()

    def at_hand(self) -> bool:
        """See `Pieces.at_hand`: only the end is."""
        return self._is_closed or self._position >= self._stop

    def close(self) -> None:
        """See `Pieces.close`."""
        self._is_closed = True
        self._drop()

    def _piece(self) -> bytes:
        if self._body is None:
            self._require_same(self._open(self._stop))
        assert self._body is not None, "it has just been opened"
        with translated(f"object {self._location}"):
            piece = self._body.read(min(PIECE_BYTES, self._stop - self._position))
        if not piece:
            raise UnavailableError(
                f"the S3 server sent too little of object {self._location}",
                hint="try again in a moment",
            )
        self._position += len(piece)
        return piece

    def _open(self, stop: int | None) -> int:
        """Ask for the bytes from here to `stop`; how many will come."""
        try:
            answer = self._bucket.get(self._location, start=self._position, stop=stop)
        except OutsideError:
            return 0
        self._body = answer["Body"]
        if self._position and not _begins_at(self._position, answer.get("ContentRange", "")):
            self._drop()
            raise StorageError(
                "the S3 server sent other bytes than those asked for",
                hint="use an S3 server that knows byte ranges",
            )
        return answer["ContentLength"]

    def _require_same(self, size: int) -> None:
        if size != self._stop - self._position:
            raise StorageError(
                f"object {self._location} changed while it was read",
                hint="nobody but the registry may write to its bucket",
            )

    def _drop(self) -> None:
        body, self._body = self._body, None
        if body is not None:
            body.close()


def _begins_at(position: int, content_range: str) -> bool:
    return content_range.startswith(f"bytes {position}-")
