"""A blob store in memory, for tests and for registries that need not last."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from memcube_protocol.errors import (
    ConflictError,
    NotFoundError,
    RangeMismatchError,
    SizeMismatchError,
)

from memcube_registry.storage.interface import PIECE_BYTES, Object, Pieces, Sink


class MemoryStore:
    """A `BlobStore` that forgets everything when the process ends."""

    def __init__(self) -> None:
        self._objects: dict[str, tuple[bytes, datetime]] = {}
        self._uploads: dict[str, tuple[bytearray, datetime]] = {}
        self._open: set[str] = set()
        self._lock = threading.Lock()

    def read(self, location: str, *, start: int = 0, stop: int | None = None) -> Pieces:
        """See `Reader.read`."""
        held = self._objects.get(location)
        if held is None:
            raise NotFoundError(f"the store holds no object {location}", hint="push the blob again")
        return _MemoryPieces(held[0][start:stop])

    def url(self, location: str, *, media_type: str) -> str | None:  # noqa: ARG002 - part of the interface
        """See `Direct.url`: there is no other server."""
        return None

    def open(self, upload: str, *, size: int) -> Sink:
        """See `Uploads.open`."""
        with self._lock:
            if upload in self._open:
                raise ConflictError(
                    "another request is writing to this upload", hint="wait for it to end"
                )
            content, _ = self._uploads.setdefault(upload, (bytearray(), datetime.now(UTC)))
            if len(content) != size:
                raise RangeMismatchError(
                    f"the upload holds {len(content)} bytes, not {size}",
                    hint="ask for the upload's status and go on from there",
                )
            self._open.add(upload)
        return _MemorySink(self, upload, content)

    def size(self, upload: str) -> int:
        """See `Uploads.size`."""
        return len(self._uploads.get(upload, (b"",))[0])

    def abort(self, upload: str) -> None:
        """See `Uploads.abort`."""
        with self._lock:
            self._uploads.pop(upload, None)

    def finish(self, upload: str, *, size: int) -> str:
        """See `Finisher.finish`."""
        with self._lock:
            if upload in self._open:
                raise ConflictError(
                    "another request is writing to this upload", hint="wait for it to end"
                )
            content = bytes(self._uploads.get(upload, (b"",))[0])
            if len(content) != size:
                raise SizeMismatchError(
                    f"the upload holds {len(content)} bytes, not {size}",
                    hint="start the upload again",
                )
            self._uploads.pop(upload, None)
            location = uuid.uuid4().hex if upload in self._objects else upload
            self._objects[location] = (content, datetime.now(UTC))
            return location

    def delete(self, location: str) -> None:
        """See `Sweeper.delete`."""
        self._objects.pop(location, None)

    def objects(self) -> Iterator[Object]:
        """See `Sweeper.objects`."""
        return iter([Object(name, at) for name, (_, at) in list(self._objects.items())])

    def uploads(self) -> Iterator[Object]:
        """See `Sweeper.uploads`."""
        return iter([Object(name, at) for name, (_, at) in list(self._uploads.items())])

    def check(self) -> None:
        """See `BlobStore.check`: memory can always be written."""

    def release(self, upload: str) -> None:
        """Let another request open `upload`."""
        with self._lock:
            self._open.discard(upload)


class _MemorySink:
    def __init__(self, store: MemoryStore, upload: str, content: bytearray) -> None:
        self._store = store
        self._upload = upload
        self._content = content
        self._opened_at = len(content)

    def write(self, pieces: Sequence[bytes], /) -> None:
        """See `Sink.write`."""
        for piece in pieces:
            self._content += piece

    def undo(self) -> None:
        """See `Sink.undo`."""
        del self._content[self._opened_at :]

    def close(self) -> None:
        """See `Sink.close`."""
        self._store.release(self._upload)


class _MemoryPieces:
    def __init__(self, content: bytes) -> None:
        self.size = len(content)
        self._rest = memoryview(content)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        """See `Pieces`."""
        if not self._rest:
            raise StopIteration
        piece, self._rest = bytes(self._rest[:PIECE_BYTES]), self._rest[PIECE_BYTES:]
        return piece

    def at_hand(self) -> bool:
        """See `Pieces.at_hand`."""
        return True

    def close(self) -> None:
        """See `Pieces.close`."""
        self._rest = self._rest[:0]
