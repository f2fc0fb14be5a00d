"""Group commit: what arrives while one batch is worked on becomes the next batch.

One thread does the work, and only while there is some: who waits holds a future, so that a hundred
requests of an event loop wait without a hundred threads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from typing import Generic, TypeVar

from memcube_protocol.errors import MemcubeError

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batches(Generic[Item, Result]):
    """Hands items to `work` in batches, one batch at a time, in the order of their arrival.

    `work` returns for each item a result, or the error that its future raises; what `work` itself
    raises is raised for every item of the batch. Of a batch that has begun nothing is taken back.
    """

    def __init__(
        self, work: Callable[[Sequence[Item]], Sequence[Result | MemcubeError]], limit: int
    ) -> None:
        self._work = work
        self._limit = limit
        self._waiting: list[tuple[Item, Future[Result]]] = []
        self._is_running = False
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="batches")

    def submit(self, item: Item) -> Future[Result]:
        """What `work` will make of `item`."""
        future: Future[Result] = Future()
        with self._lock:
            self._waiting.append((item, future))
            starts, self._is_running = not self._is_running, True
        if starts:
            self._pool.submit(self._run)
        return future

    def _run(self) -> None:
        """Work on batches until nobody waits."""
        while batch := self._next():
            try:
                outcomes: Sequence[Result | BaseException] = self._work([item for item, _ in batch])
            except BaseException as error:  # whoever submitted an item of this batch raises it
                outcomes = [error] * len(batch)
            for (_, future), outcome in zip(batch, outcomes, strict=True):
                with suppress(InvalidStateError):  # nobody waits for it any more
                    if isinstance(outcome, BaseException):
                        future.set_exception(outcome)
                    else:
                        future.set_result(outcome)

    def _next(self) -> list[tuple[Item, Future[Result]]]:
        with self._lock:
            batch, self._waiting = self._waiting[: self._limit], self._waiting[self._limit :]
            self._is_running = bool(batch)
        return batch
