"""Buckets that the processes of one machine share: a table of fixed size in a mapped file.

```
header   8 bytes of format, 24 random bytes that key the hash: nobody outside can aim at a place
sets     16384 × 8 places of 24 bytes: fingerprint of the key, tokens, time (CLOCK_MONOTONIC)
```

A bucket lies in one of the eight places of its set; the one used longest ago makes room for another.
A set is changed under a lock on its bytes, which the system releases when a process dies.
"""

from __future__ import annotations

import fcntl
import hashlib
import math
import mmap
import os
import secrets
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from memcube_protocol.errors import StorageError

from memcube_registry.rates.buckets import Level, Rate

_FORMAT: Final = b"mcbuckt1"
_HEADER: Final = struct.Struct("<8s24s")
_PLACE: Final = struct.Struct("<Qdd")
_SETS: Final = 1 << 14
_WAYS: Final = 8
_SET_BYTES: Final = _WAYS * _PLACE.size


def make(path: Path, sets: int = _SETS) -> None:
    """An empty table of `sets` at `path`, for `MappedBuckets` of several processes to open."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(_HEADER.pack(_FORMAT, secrets.token_bytes(24)))
        file.truncate(_HEADER.size + sets * _SET_BYTES)


class MappedBuckets:
    """Buckets in the table that `make` made.

    Raises:
        StorageError: there is no such table.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()  # the system's locks are between processes only
        try:
            self._handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise _unusable(path) from error
        try:
            self._table = mmap.mmap(self._handle, 0)
            name, self._secret = _HEADER.unpack_from(self._table)
        except (OSError, ValueError, struct.error) as error:
            os.close(self._handle)
            raise _unusable(path) from error
        self._sets = (len(self._table) - _HEADER.size) // _SET_BYTES
        if name != _FORMAT or not self._sets:
            self.close()
            raise _unusable(path)

    async def take(self, key: str, rate: Rate, *, now_s: float) -> float:
        """See `Buckets`. Holding a lock lasts microseconds, so nothing else waits for long."""
        if rate.per_s <= 0:
            return 0.0
        hashed = hashlib.blake2b(key.encode(), key=self._secret, digest_size=16).digest()
        start = _HEADER.size + int.from_bytes(hashed[:8]) % self._sets * _SET_BYTES
        fingerprint = int.from_bytes(hashed[8:]) | 1  # 0 marks a place that was never used
        with self._locked(start):
            place, level = self._found(start, fingerprint, rate, now_s)
            level, wait_s = level.taken(rate, now_s)
            _PLACE.pack_into(self._table, place, fingerprint, level.tokens, level.at_s)
        return wait_s

    def close(self) -> None:
        """See `Buckets`."""
        self._table.close()
        os.close(self._handle)

    def _found(self, start: int, fingerprint: int, rate: Rate, now_s: float) -> tuple[int, Level]:
        """The bucket's place, or the one that makes room for it, and what it holds."""
        oldest, oldest_s = start, math.inf
        for place in range(start, start + _SET_BYTES, _PLACE.size):
            held, tokens, at_s = _PLACE.unpack_from(self._table, place)
            if held == fingerprint:
                return place, Level(tokens, at_s)
            if at_s < oldest_s:
                oldest, oldest_s = place, at_s
        return oldest, Level(rate.burst, now_s)

    @contextmanager
    def _locked(self, start: int) -> Iterator[None]:
        with self._lock:
            fcntl.lockf(self._handle, fcntl.LOCK_EX, _SET_BYTES, start)
            try:
                yield
            finally:
                fcntl.lockf(self._handle, fcntl.LOCK_UN, _SET_BYTES, start)


def _unusable(path: Path) -> StorageError:
    return StorageError(
        f"{path} holds no rate limits", hint="start the registry again: it makes the file anew"
    )
