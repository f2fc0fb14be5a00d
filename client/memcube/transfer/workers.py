"""Several blobs or parts at once, in threads that never keep the process from ending."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Generic, Protocol, TypeVar

from memcube_protocol.errors import NetworkError

_WAKE_S: Final = 0.5
_END_S: Final = 5.0
"""How long the end of a line waits for pieces that are on their way."""


class Stop:
    """Asks the threads of one transfer to end."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """End after the current piece."""
        self._event.set()

    def check(self) -> None:
        """Raises where the transfer was asked to end.

        Raises:
            NetworkError: it was; nobody sees this one.
        """
        if self._event.is_set():
            raise NetworkError("the transfer was stopped", hint="run the command again")


class Sized(Protocol):
    """Something that so many bytes move for."""

    @property
    def size(self) -> int:
        """How many; the largest is begun first."""
        ...


Item = TypeVar("Item")
SizedItem = TypeVar("SizedItem", bound=Sized)
Result = TypeVar("Result")


def run(
    work: Callable[[SizedItem, Stop], Result], items: Sequence[SizedItem], parallel: int
) -> list[Result]:
    """What `work` made of each item, in their order; large ones are begun first.

    Raises:
        BaseException: the first that `work` raised; the other threads are asked to end.
    """
    results: dict[int, Result] = {}

    def keep(position: int, stop: Stop) -> None:
        results[position] = work(items[position], stop)

    line = Line(keep, parallel)
    try:
        for position in sorted(range(len(items)), key=lambda at: -items[at].size):
            line.add(position)
        line.wait()
    except BaseException:
        line.stop()
        raise
    return [results[position] for position in range(len(items))]


class Line(Generic[Item]):
    """`work` on items as they come, `parallel` at a time, in their order; `add` from any thread.

    After the first failure nothing is begun any more.
    """

    def __init__(self, work: Callable[[Item, Stop], object], parallel: int) -> None:
        self._work = work
        self._parallel = parallel
        self._stop = Stop()
        self._waiting: deque[Item] = deque()
        self._threads = self._undone = 0
        self._error: BaseException | None = None
        self._changed = threading.Condition()

    def add(self, item: Item) -> None:
        """Work on `item` when its turn comes.

        Raises:
            BaseException: what `work` raised for an earlier one.
        """
        with self._changed:
            self._require_well()
            self._waiting.append(item)
            self._undone += 1
            if self._threads < min(self._parallel, self._undone):
                self._threads += 1
                threading.Thread(target=self._work_off, daemon=True).start()

    def wait(self) -> None:
        """Wait until all that was added is done.

        Raises:
            BaseException: the first that `work` raised.
        """
        with self._changed:
            while self._undone and self._error is None:
                self._changed.wait(_WAKE_S)  # a wait without end hides Ctrl-C
            self._require_well()

    def stop(self) -> None:
        """Ask the threads to end after their current piece, and do not wait for them."""
        self._stop.set()

    def end(self) -> None:
        """Begin nothing more, and wait for the pieces that are on their way: at most `_END_S`."""
        self.stop()
        with self._changed:
            self._undone -= len(self._waiting)
            self._waiting.clear()
            self._changed.wait_for(lambda: not self._undone, timeout=_END_S)

    def _require_well(self) -> None:
        if self._error is not None:
            raise self._error

    def _work_off(self) -> None:
        while (item := self._next()) is not None:
            error: BaseException | None = None
            try:
                self._stop.check()
                self._work(item, self._stop)
            except BaseException as raised:
                error = raised
            with self._changed:
                self._undone -= 1
                if error is not None:
                    # Kept before the others are stopped, which raise that they were.
                    self._error = self._error or error
                    self._stop.set()
                self._changed.notify_all()

    def _next(self) -> Item | None:
        """The item whose turn it is; None ends the thread."""
        with self._changed:
            if self._waiting:
                return self._waiting.popleft()
            self._threads -= 1
            return None
