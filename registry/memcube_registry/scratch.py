"""A folder for what one server needs while it runs, in the system's folder for temporary files.

A server that is killed leaves its folder; the next one that starts here takes it away. A running
server holds a lock on its own, so that no other takes it. It does not lie beside the data: figures
are written through mapped files, and a full disk under such a file kills who writes.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

_PREFIX: Final = "memcube-registry-"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A fresh, private folder, removed at the end."""
    _remove_abandoned(Path(tempfile.gettempdir()))
    folder, lock = _made()
    with closing(lock):
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


class _Lock:
    """An open folder, locked if nobody else has locked it."""

    def __init__(self, folder: Path) -> None:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        self._handle = os.open(folder, flags)
        self.is_ours = os.fstat(self._handle).st_uid == os.geteuid()
        self.is_held = False
        with suppress(BlockingIOError):
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.is_held = True

    def close(self) -> None:
        """Let go of it."""
        os.close(self._handle)


def _made() -> tuple[Path, _Lock]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        try:
            lock = _Lock(folder)
        except FileNotFoundError:
            continue  # another server took it for abandoned before it was locked
        if lock.is_held and folder.exists():
            return folder, lock
        lock.close()


def _remove_abandoned(parent: Path) -> None:
    for folder in parent.glob(f"{_PREFIX}*"):
        with suppress(OSError), closing(_Lock(folder)) as lock:
            if lock.is_ours and lock.is_held:
                shutil.rmtree(folder, ignore_errors=True)
