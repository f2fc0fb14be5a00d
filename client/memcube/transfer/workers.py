"""Several blobs at once, in threads that never keep the process from ending."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import Final

from memcube_protocol.errors import NetworkError
from memcube_protocol.oci import Descriptor

from memcube.transfer.progress import Moved

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


Work = Callable[[Descriptor, Stop], Moved]


def run(work: Work, blobs: Sequence[Descriptor], parallel: int) -> list[Moved]:
    """What `work` made of each blob, in their order; large ones are begun first.

    Raises:
        BaseException: the first that `work` raised; the other threads are asked to end.
    """
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for position in sorted(range(len(blobs)), key=lambda at: -blobs[at].size):
        waiting.put(position)
    done: queue.SimpleQueue[tuple[int, Moved | BaseException]] = queue.SimpleQueue()
    stop = Stop()
    for _ in range(min(parallel, len(blobs))):
        arguments = (work, blobs, waiting, done, stop)
        threading.Thread(target=_work_off, args=arguments, daemon=True).start()
    try:
        return _collect(done, len(blobs))
    except BaseException:
        stop.set()
        raise


def _collect(done: queue.SimpleQueue[tuple[int, Moved | BaseException]], count: int) -> list[Moved]:
    results: dict[int, Moved] = {}
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
    work: Work,
    blobs: Sequence[Descriptor],
    waiting: queue.SimpleQueue[int],
    done: queue.SimpleQueue[tuple[int, Moved | BaseException]],
    stop: Stop,
) -> None:
    while True:
        try:
            position = waiting.get_nowait()
        except queue.Empty:
            return
        try:
            stop.check()
            done.put((position, work(blobs[position], stop)))
        except BaseException as error:
            done.put((position, error))
            return
