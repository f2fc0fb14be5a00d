"""Group commit: requests that arrive while one batch is written become the next batch.

There is no thread of its own: the first who waits writes for all who wait with it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from memcube_protocol.errors import MemcubeError

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Ticket(Generic[Item, Result]):
    """One item that waits, and what became of it. `woken` is set when it has, or has to lead."""

    __slots__ = ("item", "outcome", "woken")

    def __init__(self, item: Item) -> None:
        self.item = item
        self.outcome: Result | BaseException | None = None
        self.woken = threading.Event()


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
        self._is_led = False
        self._lock = threading.Lock()

    def submit(self, item: Item) -> Result:
        """What `write` made of `item`, once its batch was written."""
        ticket: _Ticket[Item, Result] = _Ticket(item)
        with self._lock:
            self._waiting.append(ticket)
            leads, self._is_led = not self._is_led, True
        if not leads:
            ticket.woken.wait()
        if ticket.outcome is None:
            self._lead()
        assert ticket.outcome is not None, "who leads is the first of the batch"
        if isinstance(ticket.outcome, BaseException):
            raise ticket.outcome
        return ticket.outcome

    def _lead(self) -> None:
        """Write what waits, wake those it concerns, and let the first of the others lead."""
        with self._lock:
            batch, self._waiting = self._waiting[: self._limit], self._waiting[self._limit :]
        try:
            outcomes: Sequence[Result | BaseException] = self._write([one.item for one in batch])
        except BaseException as error:  # whoever submitted an item of this batch raises it
            outcomes = [error] * len(batch)
        with self._lock:
            self._is_led = bool(self._waiting)
            if self._waiting:
                self._waiting[0].woken.set()
        for ticket, outcome in zip(batch, outcomes, strict=True):
            ticket.outcome = outcome
            ticket.woken.set()
