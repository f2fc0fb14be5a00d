"""What a blob store can do, in interfaces of one to four verbs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol, runtime_checkable

from memcube_protocol import limits

PIECE_BYTES: Final = limits.MIB // 2
"""Reads come in pieces of at most this many bytes: smaller ones cost more than they carry."""


@dataclass(frozen=True, slots=True)
class Object:
    """A finished object's location, and when it was finished; or an upload's id, and when it was last written.

    `upload` is the upload that a finished object came from, while the store knows: until that one is
    aborted, which leaves the object.
    """

    name: str
    written_at: datetime
    upload: str | None = None


class Pieces(Protocol):
    """The bytes of a read, in order, in pieces of at most `PIECE_BYTES`."""

    size: int
    """How many bytes come in all."""

    def __iter__(self) -> Iterator[bytes]: ...

    def __next__(self) -> bytes:
        """The next piece; a read that fails raises `StorageError` or `UnavailableError`."""
        ...

    def at_hand(self) -> bool:
        """Whether the next piece comes without waiting for a disk or a network."""
        ...

    def close(self) -> None:
        """Let go of what is read. Calling it again does nothing."""
        ...


class Reader(Protocol):
    """Reads finished objects."""

    def read(self, location: str, *, start: int = 0, stop: int | None = None) -> Pieces:
        """Bytes `start` to `stop` of the object, fewer where it ends before.

        Raises:
            NotFoundError: there is no such object, said before the first piece.
            StorageError, UnavailableError: it cannot be read.
        """
        ...


def size_at(store: Reader, location: str, expected_bytes: int) -> int:
    """How many bytes the object has, asked for as those from the last expected one on.

    So it costs as little for files as for a bucket.

    Raises:
        NotFoundError, StorageError, UnavailableError: see `Reader.read`.
    """
    last = max(0, expected_bytes - 1)
    with closing(store.read(location, start=last)) as pieces:
        return last + pieces.size


class Direct(Protocol):
    """Says whether a client can fetch bytes without this server between."""

    def url(self, location: str, *, media_type: str) -> str | None:
        """A URL, valid for a short time, from which the client may fetch the object."""
        ...


@runtime_checkable
class HandsOver(Protocol):
    """A store whose objects the web server before this one reads itself."""

    def place_before(self, location: str) -> str:
        """The path by which that server knows the object; none of its clients can ask for it."""
        ...


class Sink(Protocol):
    """Takes the bytes of one upload, in order. Nobody else can open that upload meanwhile."""

    def write(self, pieces: Sequence[bytes], /) -> None:
        """Append `pieces`.

        Raises:
            DiskFullError, ReadOnlyError, StorageError, UnavailableError: it was not kept.
            ConflictError: somebody else has taken the upload over.
        """
        ...

    def undo(self) -> None:
        """Drop what was written since the upload was opened; what it held before is never changed.

        Raises:
            StorageError: it could not be dropped.
        """
        ...

    def close(self) -> None:
        """Keep what was written and let others open the upload. Calling it again does nothing.

        Raises:
            DiskFullError, ReadOnlyError, StorageError, UnavailableError: some of it was not kept.
            ConflictError: somebody else has taken the upload over.
        """
        ...


class Uploads(Protocol):
    """Holds uploads in progress. They survive a restart; unknown ids are empty uploads."""

    def open(self, upload: str, *, size: int) -> Sink:
        """The upload positioned at its end, which must lie after `size` bytes.

        Raises:
            ConflictError: another request is writing to it.
            RangeMismatchError: it holds another number of bytes: somebody wrote to it meanwhile.
            DiskFullError, ReadOnlyError, StorageError, UnavailableError: it cannot be written.
        """
        ...

    def size(self, upload: str) -> int:
        """How many bytes it holds."""
        ...

    def abort(self, upload: str) -> None:
        """Forget it, but nothing that was finished from it. An unknown one is no error."""
        ...


class Finisher(Protocol):
    """Turns uploads into finished objects."""

    def finish(self, upload: str, *, size: int) -> str:
        """The location of an object that holds the upload's `size` bytes, durable on return.

        Raises:
            ConflictError: another request is writing to it.
            SizeMismatchError: it holds another number of bytes.
            DiskFullError, ReadOnlyError, StorageError, UnavailableError: it could not be made durable.
        """
        ...


class Sweeper(Protocol):
    """Lists what a store holds, and removes it."""

    def delete(self, location: str) -> None:
        """Remove a finished object. An absent one is no error."""
        ...

    def objects(self) -> Iterator[Object]:
        """Every finished object."""
        ...

    def uploads(self) -> Iterator[Object]:
        """Every upload in progress."""
        ...


class BlobStore(Reader, Direct, Uploads, Finisher, Sweeper, Protocol):
    """A whole blob store. One contract suite (tests/contracts) runs against every one."""

    def check(self) -> None:
        """Refuse if the store cannot be written now: for the readiness probe.

        Raises:
            DiskFullError, ReadOnlyError, StorageError, UnavailableError: why not.
        """
        ...
