"""Files that a commit adds, as memcube has them and as the library reads them."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Final

from memcube_protocol.digest import Digest
from memcube_protocol.values import frozen

SAMPLE_BYTES: Final = 512
"""Of each file, the Hub wants to see so many before it says how to send it."""


@frozen
class Addition:
    """A file to add: its path in the repository, and its content, in memory or in a file of the store."""

    path: str
    digest: Digest
    size: int
    content: bytes | Path

    def start(self, size: int) -> bytes:
        """The first bytes, at most `size` of them.

        Raises:
            OSError: the file cannot be read.
        """
        if isinstance(self.content, bytes):
            return self.content[:size]
        with self.content.open("rb") as file:
            return file.read(size)


class StoredFile(io.BufferedIOBase):
    """A file of the store as the library reads it: opened when it is first read, and watched.

    Files given as streams are the ones that the library never sends through Xet.
    """

    def __init__(self, path: Path, on_read: Callable[[int], None]) -> None:
        super().__init__()
        self._path = path
        self._on_read = on_read
        self._file: io.BufferedReader | None = None
        self._furthest = 0

    def readable(self) -> bool:
        """Whether it can be read: it can."""
        return True

    def seekable(self) -> bool:
        """Whether it can be read again: it can."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        return self._file.tell() if self._file else 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Let the next read begin elsewhere."""
        return self._opened().seek(offset, whence)

    def read(self, size: int | None = -1, /) -> bytes:
        """The next bytes."""
        content = self._opened().read(size)
        at = self._opened().tell()
        if at > self._furthest:
            self._on_read(at - self._furthest)
            self._furthest = at
        return content

    def close(self) -> None:
        """Close the file for good."""
        self.release()
        super().close()

    def release(self) -> None:
        """Close the file until it is read again, from its beginning."""
        if self._file:
            self._file.close()
            self._file = None

    def _opened(self) -> io.BufferedReader:
        if self._file is None:
            self._file = self._path.open("rb")
        return self._file
