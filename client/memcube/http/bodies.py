"""Bodies of requests that are not held in memory: a file, or what comes from elsewhere meanwhile.

A file is sent by the kernel over plain connections, in pieces over TLS.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Protocol

from memcube_protocol.errors import SizeMismatchError
from memcube_protocol.values import frozen

from memcube.store.files import PIECE_BYTES, open_file, storage_errors

_SLICE_BYTES: Final = 4 * 1024 * 1024


class SizedBody(Protocol):
    """A body of `size` bytes that can be sent several times: each iteration begins anew."""

    @property
    def size(self) -> int:
        """Its length in bytes."""
        ...

    def __iter__(self) -> Iterator[bytes | FileSlice]: ...


@frozen
class FileSlice:
    """Some bytes of an open file."""

    descriptor: int
    start: int
    size: int

    def __len__(self) -> int:
        return self.size

    def send_to(self, connection: socket.socket) -> None:
        """Send the bytes; the file's bytes were verified when they entered the store.

        Raises:
            OSError: the connection failed.
            SizeMismatchError: the file is shorter than it was.
        """
        if isinstance(connection, ssl.SSLSocket):
            self._send_pieces(connection)
            return
        with open(self.descriptor, "rb", buffering=0, closefd=False) as file:
            if connection.sendfile(file, self.start, self.size) != self.size:
                raise _shrunk()

    def _send_pieces(self, connection: socket.socket) -> None:
        at, end = self.start, self.start + self.size
        while at < end:
            piece = os.pread(self.descriptor, min(PIECE_BYTES, end - at), at)
            if not piece:
                raise _shrunk()
            connection.sendall(piece)
            at += len(piece)


@frozen
class FileBody:
    """`size` bytes of the file `path` from `start` on. `on_sent` hears of every slice sent.

    It can be iterated again: each time the file is opened anew.
    """

    path: Path
    start: int
    size: int
    on_sent: Callable[[int], None]

    def __iter__(self) -> Iterator[FileSlice]:
        with storage_errors(f"{self.path} cannot be read"):
            descriptor = open_file(self.path)
        try:
            for at in range(self.start, self.start + self.size, _SLICE_BYTES):
                size = min(_SLICE_BYTES, self.start + self.size - at)
                yield FileSlice(descriptor, at, size)
                self.on_sent(size)
        finally:
            os.close(descriptor)


@frozen
class StreamBody:
    """`size` bytes that `pieces` yields, anew at each call. `on_sent` hears of every piece sent."""

    size: int
    pieces: Callable[[], Iterator[bytes]]
    on_sent: Callable[[int], None]

    def __iter__(self) -> Iterator[bytes]:
        for piece in self.pieces():
            yield piece
            self.on_sent(len(piece))


def _shrunk() -> SizeMismatchError:
    return SizeMismatchError(
        "a blob became shorter while it was sent", hint="`memcube doctor` checks the local store"
    )
