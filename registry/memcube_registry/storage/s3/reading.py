"""Reads an object of a bucket in one request, and in a few more where the connection breaks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memcube_protocol.errors import StorageError, UnavailableError

from memcube_registry.storage.interface import PIECE_BYTES
from memcube_registry.storage.resuming import ResumedPieces
from memcube_registry.storage.s3.bucket import Bucket, OutsideError
from memcube_registry.storage.s3.failures import translated

if TYPE_CHECKING:
    from botocore.response import StreamingBody


class S3Pieces(ResumedPieces):
    """See `Pieces`. A read that breaks off goes on where it stopped, a few times without progress at most.

    Raises:
        NotFoundError: there is no such object.
        StorageError, UnavailableError: it cannot be read.
    """

    first_pause_s = 0.2

    def __init__(self, bucket: Bucket, location: str, start: int, stop: int | None) -> None:
        super().__init__(start, start)
        self._bucket = bucket
        self._location = location
        self._body: StreamingBody | None = None
        if stop is not None and stop <= start:
            bucket.size(location)  # it must be there nevertheless
        else:
            self.size = self._open(stop)
            self._stop = start + self.size

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
