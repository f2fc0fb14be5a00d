"""Reads one object by several requests at once, in order: one stream of a far store fills no wire."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Final

from memcube_protocol import limits

from memcube_registry.storage.interface import Reader

RANGE_BYTES: Final = 8 * limits.MIB
AT_ONCE: Final = 3
"""Ranges that are read at once: with the one that is looked at, up to 32 MiB are held."""


def read_ahead(store: Reader, location: str, size: int) -> Generator[bytes]:
    """The object's `size` bytes in order, in pieces; close the iterator, or read it to its end.

    Raises:
        NotFoundError: there is no such object.
        StorageError, UnavailableError: it cannot be read.
    """
    threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="read-ahead")
    coming: deque[Future[list[bytes]]] = deque()
    try:
        for start in range(0, size, RANGE_BYTES):
            coming.append(threads.submit(_read, store, location, start, start + RANGE_BYTES))
            if len(coming) > AT_ONCE:
                yield from coming.popleft().result()
        while coming:
            yield from coming.popleft().result()
    finally:
        threads.shutdown(cancel_futures=True)


def _read(store: Reader, location: str, start: int, stop: int) -> list[bytes]:
    with closing(store.read(location, start=start, stop=stop)) as pieces:
        return list(pieces)
