"""Folders below the user's home for what is being made: gone afterwards, whatever breaks it off.

    <home>/building/<name>    one each, locked by the process that works in it

What a killed process left is removed by the next one that makes a folder here.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from memcube.store.files import make_folder, storage_errors, try_lock
from memcube.store.locks import hold_lock

_WORKSHOPS: Final = "building"
_LOCK_WAIT_S: Final = 30.0


@contextmanager
def workshop(home: Path) -> Iterator[Path]:
    """An empty private folder for what is being made, gone afterwards; what killed processes left goes first.

    Raises:
        ConflictError: another process has been sweeping for half a minute.
        DiskFullError, ReadOnlyError, StorageError: it cannot be made.
    """
    place = make_folder(home / _WORKSHOPS)
    lock = place.with_name(f".{_WORKSHOPS}.lock")
    with (
        hold_lock(lock, exclusive=True, wait_s=_LOCK_WAIT_S, what=str(place)),
        storage_errors(f"{place} cannot be written"),
    ):
        _sweep(place)
        folder = Path(tempfile.mkdtemp(dir=place))
        held = _opened(folder)
        try_lock(held)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(held)


def _sweep(place: Path) -> None:
    """Remove the folders in `place` that nobody holds: they have what their cubes say in plain files."""
    for left in place.iterdir():
        try:
            descriptor = _opened(left)
        except (FileNotFoundError, NotADirectoryError):
            continue  # another work has just ended; or it is none of ours
        try:
            if try_lock(descriptor):
                shutil.rmtree(left, ignore_errors=True)
        finally:
            os.close(descriptor)


def _opened(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
