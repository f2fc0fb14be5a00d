"""Group commit: requests that arrive while one batch is written become the next batch.

There is no thread of its own: whoever gets the turn writes for all who wait, and they find theirs done.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from memcube_protocol.errors import MemcubeError

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Ticket(Generic[Item, Result]):
    """One item that waits, and what became of it."""

    __slots__ = ("item", "outcome")

    def __init__(self, item: Item) -> None:
        self.item = item
        self.outcome: Result | BaseException | None = None


class Batches(Generic[Item, Result]):
    """Hands items to `write` in batches, one batch at a time, in the order of their arrival.

    `write` returns for each item a result, or the error that is raised where it was submitted; what
    `write` itself raises is raised for every item of the batch.
    """

    def __init__(
        self, write: Callable[[Sequence[Item]], Sequence[Result | MemcubeError]], limit: int
    ) -> None:
        self._write = write
        self._limit = limit
        self._waiting: list[_Ticket[Item, Result]] = []
        self._queue = threading.Lock()
        self._turn = threading.Lock()

    def submit(self, item: Item) -> Result:
        """What `write` made of `item`, once its batch was written."""
        ticket: _Ticket[Item, Result] = _Ticket(item)
        with self._queue:
            self._waiting.append(ticket)
        with self._turn:
            while ticket.outcome is None:
                self._lead()
        if isinstance(ticket.outcome, BaseException):
            raise ticket.outcome
        return ticket.outcome

    def _lead(self) -> None:
        with self._queue:
            batch, self._waiting = self._waiting[: self._limit], self._waiting[self._limit :]
        try:
            outcomes: Sequence[Result | BaseException] = self._write([one.item for one in batch])
        except BaseException as error:  # whoever submitted an item of this batch raises it
            outcomes = [error] * len(batch)
        for ticket, outcome in zip(batch, outcomes, strict=True):
            ticket.outcome = outcome
