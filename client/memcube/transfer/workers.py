"""Several blobs or parts at once, in threads that never keep the process from ending."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeVar

from memcube_protocol.errors import NetworkError

_WAKE_S: Final = 0.5


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


Item = TypeVar("Item", bound=Sized)
Result = TypeVar("Result")


def run(work: Callable[[Item, Stop], Result], items: Sequence[Item], parallel: int) -> list[Result]:
    """What `work` made of each item, in their order; large ones are begun first.

    Raises:
        BaseException: the first that `work` raised; the other threads are asked to end.
    """
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for position in sorted(range(len(items)), key=lambda at: -items[at].size):
        waiting.put(position)
    done: queue.SimpleQueue[tuple[int, Result | BaseException]] = queue.SimpleQueue()
    stop = Stop()
    for _ in range(min(parallel, len(items))):
        arguments = (work, items, waiting, done, stop)
        threading.Thread(target=_work_off, args=arguments, daemon=True).start()
    try:
        return _collect(done, len(items))
    except BaseException:
        stop.set()
        raise


def _collect(
    done: queue.SimpleQueue[tuple[int, Result | BaseException]], count: int
) -> list[Result]:
    results: dict[int, Result] = {}
    while len(results) < count:
        try:
            position, result = done.get(timeout=_WAKE_S)  # a wait without end hides Ctrl-C
        except queue.Empty:
            continue
        if isinstance(result, BaseException):
            raise result
        results[position] = result
    return [results[position] for position in range(count)]


def _work_off(
    work: Callable[[Item, Stop], Result],
    items: Sequence[Item],
    waiting: queue.SimpleQueue[int],
    done: queue.SimpleQueue[tuple[int, Result | BaseException]],
    stop: Stop,
) -> None:
    while True:
        try:
            position = waiting.get_nowait()
        except queue.Empty:
            return
        try:
            stop.check()
            done.put((position, work(items[position], stop)))
        except BaseException as error:
            done.put((position, error))
            return
