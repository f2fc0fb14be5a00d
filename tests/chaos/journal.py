"""What the clients learned, one JSON line an operation, on the disk before the next one begins.

The driver is never killed, so a line is written when the answer is there, or is known never to come.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Self


class Outcome(StrEnum):
    """What a client knows of its operation."""

    ACKNOWLEDGED = "acknowledged"
    REFUSED = "refused"
    """The registry said no, or nobody listened: nothing was changed."""
    UNKNOWN = "unknown"
    """The connection died, or the registry failed: it may have happened."""


@dataclass(frozen=True)
class Event:
    """One operation on `key` of `repository`; times are seconds since the run began.

    `value` is what was written or read: the digest that a tag points to, the leaf of a log entry.
    """

    round: int
    client: str
    operation: str
    repository: str
    key: str
    value: str
    start: float
    end: float
    outcome: Outcome
    status: int = 0
    more: dict[str, Any] = field(default_factory=dict)


class Journal:
    """Appends to one file; safe for threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self.count = 0
        self._lock = threading.Lock()
        self._handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._began = time.monotonic()

    def now(self) -> float:
        """Seconds since the run began; not the clock that the monkey moves."""
        return time.monotonic() - self._began

    def write(self, event: Event) -> None:
        """Keep `event`, durably."""
        line = json.dumps(asdict(event), separators=(",", ":")).encode() + b"\n"
        with self._lock:
            os.write(self._handle, line)
            os.fsync(self._handle)
            self.size += len(line)
            self.count += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        os.close(self._handle)


def read(path: Path, start: int = 0) -> Iterator[Event]:
    """The events from byte `start` on."""
    with path.open("rb") as file:
        file.seek(start)
        for line in file:
            value = json.loads(line)
            yield Event(**(value | {"outcome": Outcome(value["outcome"])}))
