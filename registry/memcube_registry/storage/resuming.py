"""Reads over a network that go on where they broke off."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar, Final

from memcube_protocol.errors import UnavailableError

_ATTEMPTS: Final = 4


class ResumedPieces(ABC):
    """`Pieces` of bytes `start` to `stop`: one that does not come is asked for a few times more.

    `first_pause_s` is how many seconds lie before the first of these; each pause is twice the one before.
    """

    first_pause_s: ClassVar[float]

    def __init__(self, start: int, stop: int) -> None:
        self.size = max(0, stop - start)
        self._position = start
        self._stop = stop
        self._is_closed = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        """See `Pieces`."""
        if self.at_hand():
            self.close()
            raise StopIteration
        for attempt in range(1, _ATTEMPTS):
            try:
                return self._next_piece()
            except UnavailableError:
                self._drop()
                time.sleep(self.first_pause_s * 2 ** (attempt - 1))
        return self._next_piece()

    def at_hand(self) -> bool:
        """See `Pieces.at_hand`: only the end is."""
        return self._is_closed or self._position >= self._stop

    def close(self) -> None:
        """See `Pieces.close`."""
        self._is_closed = True
        self._drop()

    def _next_piece(self) -> bytes:
        piece = self._piece()
        self._position += len(piece)
        return piece

    @abstractmethod
    def _piece(self) -> bytes:
        """The bytes from `_position` on: at least one of them.

        Raises:
            UnavailableError: they do not come now.
            StorageError: they cannot be had.
        """

    @abstractmethod
    def _drop(self) -> None:
        """Let go of the answer that is being read, if there is one."""
