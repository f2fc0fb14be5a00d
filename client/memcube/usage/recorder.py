"""What a mount tells of its use: gathered in memory, written in portions, never in the way.

No method raises or waits: what cannot be written now is kept for the next portion, up to a bound, and
a file that is damaged is begun anew.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final, Self

from memcube_protocol.errors import StorageError

from memcube.settings import Settings
from memcube.usage.indicators import MEMORY, CubeUse, RecordUse, Use
from memcube.usage.sidecar import Portion, Sidecar

PORTION: Final = 1024
"""So many events are written together at the latest."""

PAUSE_S: Final = 1.0
"""An event that comes so long after the last portion is written at once."""

PENDING: Final = 8192
_PASSING: Final = ("SQLITE_BUSY", "SQLITE_LOCKED")
_FULL: Final = "SQLITE_FULL"
_DAMAGED: Final = ("SQLITE_NOTADB", "SQLITE_CORRUPT")


class Usage:
    """The indicators of one user, told and asked; safe for several threads. Without `sidecar` none are kept."""

    def __init__(
        self, sidecar: Sidecar | None, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._sidecar = sidecar
        self._now = now
        self._gathering = threading.Lock()
        self._writing = threading.Lock()
        self._portion = Portion()
        self._written_s = float("-inf")

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The indicators of this user; none are kept where the settings say `usage = false`."""
        return cls(Sidecar.of(settings) if settings.usage else None)

    def mounted(self, cube: str, digest: str) -> None:
        """That a version of `cube` was mounted."""
        at = self._seconds()
        self._tell(lambda portion: portion.mounts.append((cube, digest, at)))

    def found(self, used: Iterable[Use]) -> None:
        """That records were shown to whoever asked."""
        at = self._seconds()
        uses = [(use, at) for use in used]
        self._tell(lambda portion: portion.accesses.extend(uses))

    def answered(self, used: Iterable[Use]) -> None:
        """That records were put before a model, together, for one answer."""
        answer = self._seconds(), tuple(dict.fromkeys(used))
        if answer[1]:
            self._tell(lambda portion: portion.answers.append(answer))

    def cube(self, name: str) -> CubeUse | None:
        """How `name` is used, as far as it is known; for planners, which it never hinders."""
        try:
            return self._sidecar.cube(name) if self._sidecar else None
        except StorageError:
            return None

    def records(self, cube: str, ids: Iterable[str]) -> Mapping[str, RecordUse]:
        """How those of `ids` are used that ever were; for rankings, which it never hinders."""
        try:
            found = self._sidecar.records(cube, ids) if self._sidecar else ()
        except StorageError:
            return {}
        return {use.record: use for use in found}

    def memories(self, cube: str, ids: Iterable[str]) -> Mapping[str, RecordUse]:
        """How those KV and LoRA memories of `ids` are used that ever were; for planners."""
        found = self.records(cube, [Use.of_memory(cube, one).record for one in ids])
        return {use.record.removeprefix(MEMORY): use for use in found.values()}

    def flush(self) -> None:
        """Write what was gathered, if that can be done at once."""
        if self._sidecar is None or not self._writing.acquire(blocking=False):
            return
        try:
            with self._gathering:
                portion, self._portion = self._portion, Portion()
            if len(portion) and not _written(self._sidecar, portion):
                with self._gathering:
                    if len(portion) < PENDING:
                        self._portion = portion.before(self._portion)
            self._written_s = time.monotonic()
        finally:
            self._writing.release()

    def close(self) -> None:
        """Write what was gathered, and let go of the file."""
        self.flush()
        if self._sidecar is not None:
            self._sidecar.close()

    def _tell(self, add: Callable[[Portion], None]) -> None:
        if self._sidecar is None:
            return
        with self._gathering:
            add(self._portion)
            waiting = len(self._portion)
        if waiting >= PORTION or time.monotonic() - self._written_s >= PAUSE_S:
            self.flush()

    def _seconds(self) -> int:
        return int(self._now().timestamp())


def _written(sidecar: Sidecar, portion: Portion) -> bool:
    """Whether `portion` is dealt with: written, or lost with a file that nobody can write."""
    try:
        sidecar.write(portion)
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", "")
        with suppress(sqlite3.Error, StorageError):
            if name.startswith(_DAMAGED):
                sidecar.remove()
            elif name.startswith(_FULL):
                sidecar.shrink()
        return not name.startswith((*_PASSING, *_DAMAGED))
    except StorageError:
        pass
    return True
