"""Progress bars on stderr, where a terminal is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

from memcube_protocol import media_types
from memcube_protocol.oci import Descriptor

from memcube.cli.answer import Mode
from memcube.transfer import Outcome, Progress, Silent

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import ProgressColumn, Task, TaskID
    from rich.text import Text

_LEAST_BYTES = 256 * 1024


Pause = Callable[[], AbstractContextManager[object]]
"""Takes the bars away while a person is asked."""


@contextmanager
def progress_for(mode: Mode) -> Iterator[tuple[Progress, Pause]]:
    """Bars for a person at a terminal, nothing for anybody else; and what pauses them."""
    if mode.quiet or mode.as_json or not sys.stderr.isatty():
        yield Silent(), nullcontext
        return
    from rich.console import Console
    from rich.progress import Progress as RichProgress

    with RichProgress(*_columns(), console=Console(stderr=True), transient=True) as rich:
        yield Bars(rich), lambda: _stopped(rich)


def _columns() -> tuple[ProgressColumn, ...]:
    """What a bar says: its bytes and speed only once it is known how many there are to move."""
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
    from rich.text import Text

    class Bytes(DownloadColumn):
        def render(self, task: Task) -> Text:
            return Text() if task.total is None else super().render(task)

    class Speed(TransferSpeedColumn):
        def render(self, task: Task) -> Text:
            return Text() if task.total is None else super().render(task)

    return TextColumn("{task.description}", markup=False), BarColumn(), Bytes(), Speed()


@contextmanager
def _stopped(rich: RichProgress) -> Iterator[None]:
    rich.stop()
    try:
        yield
    finally:
        rich.start()


class Bars:
    """One bar for a whole transfer: its bytes, and how many blobs are done."""

    def __init__(self, rich: RichProgress) -> None:
        self._rich = rich
        self._task = rich.add_task("working", total=None)
        self._total = self._count = self._done = 0

    def expect(self, blobs: Sequence[Descriptor]) -> None:
        """See `transfer.Progress`."""
        self._total += sum(blob.size for blob in blobs)
        self._count += len(blobs)
        self._rich.update(self._task, total=self._total)

    def advance(self, blob: Descriptor, size_bytes: int) -> None:
        """See `transfer.Progress`."""
        self._rich.update(self._task, advance=size_bytes, description=_name(blob))

    def check(self, blob: Descriptor, size_bytes: int) -> None:
        """See `transfer.Progress`."""
        percent = 100 * size_bytes // max(1, blob.size)
        self._rich.update(self._task, description=f"{_name(blob)} is checked there: {percent} %")

    def finish(self, blob: Descriptor, outcome: Outcome) -> None:
        """See `transfer.Progress`."""
        self._done += 1
        description = f"{self._done}/{self._count} {_name(blob)} {outcome.value}"
        self._rich.update(self._task, description=description)


def _name(blob: Descriptor) -> str:
    """A short name of a blob that no terminal minds."""
    title = blob.annotations.get(media_types.TITLE, "") or blob.digest.hex[:12]
    return "".join(char for char in title if char.isprintable())[-40:]


Watch = Callable[[str, int, int], None]
"""Hears what is being done, how many parts of it are, and of how many."""


@contextmanager
def steps_for(mode: Mode) -> Iterator[Watch]:
    """A bar for each kind of work a person at a terminal waits for, nothing for anybody else."""
    if mode.quiet or mode.as_json or not sys.stderr.isatty():
        yield _unwatched
        return
    from rich.console import Console
    from rich.progress import Progress as RichProgress

    with RichProgress(console=Console(stderr=True), transient=True) as rich:
        tasks: dict[str, TaskID] = {}

        def watch(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = rich.add_task(what, total=total)
            rich.update(tasks[what], completed=done)

        yield watch


def _unwatched(what: str, done: int, total: int) -> None:
    """Nobody looks."""
