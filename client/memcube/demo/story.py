"""How the demo tells what happens: numbered steps with their time and the bytes that moved."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TextIO

from memcube_protocol.oci import Descriptor

from memcube.transfer import Outcome, Silent


class ByteCount(Silent):
    """A progress that counts the bytes of blobs that crossed the network."""

    def __init__(self) -> None:
        self.moved_bytes = 0
        self._lock = threading.Lock()

    def finish(self, blob: Descriptor, outcome: Outcome) -> None:
        """See `Progress.finish`."""
        if outcome in (Outcome.FETCHED, Outcome.SENT):
            with self._lock:
                self.moved_bytes += blob.size


@dataclass(slots=True)
class Step:
    """One step of the story: what was said, and the figures that a program may want."""

    title: str
    lines: list[str] = field(default_factory=list[str])
    facts: dict[str, Any] = field(default_factory=dict[str, Any])

    def say(self, line: str) -> None:
        """Add a line of what happened."""
        self.lines.append(line)


class Story:
    """Prints steps as they end, and keeps their figures."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.count = ByteCount()
        self.steps: list[dict[str, Any]] = []
        self._stream = stream or sys.stderr
        self._started = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the story began."""
        return time.monotonic() - self._started

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """One step: its title is printed at once, the rest when it ends."""
        step = Step(title)
        started, moved = time.monotonic(), self.count.moved_bytes
        self._print(f"\n{len(self.steps) + 1}. {title}")
        yield step
        taken, moved = time.monotonic() - started, self.count.moved_bytes - moved
        self.steps.append({"title": title, "seconds": taken, "movedBytes": moved} | step.facts)
        traffic = f", {moved:,} bytes of blobs moved" if moved else ""
        for line in step.lines:
            self._print(f"   {line}")
        self._print(f"   ({taken:.2f} s{traffic})")

    def tell(self, text: str) -> None:
        """Say something between or after the steps."""
        self._print(f"\n{text}")

    def _print(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()
