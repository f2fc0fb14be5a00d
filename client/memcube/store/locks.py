"""The lock of the store, and of other folders: many users at once, or one that changes."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from memcube_protocol.errors import ConflictError, StorageError

from memcube.store.files import make_folder, open_file, storage_error, try_lock

_POLL_S: Final = (0.001, 0.05)
"""First and longest pause between two looks: who waits soon gets in between two short acts of another."""


@contextmanager
def hold_lock(
    path: Path, *, exclusive: bool, wait_s: float, what: str = "the store"
) -> Iterator[None]:
    """Holds the lock at `path`, which guards `what`; a store that nobody can write needs none.

    Raises:
        ConflictError: others held it for `wait_s` seconds.
        StorageError: the lock file cannot be opened.
    """
    descriptor = _open(path, exclusive=exclusive)
    if descriptor is None:
        yield
        return
    try:
        deadline, pause_s = time.monotonic() + wait_s, _POLL_S[0]
        while not try_lock(descriptor, exclusive=exclusive):
            if time.monotonic() > deadline:
                raise ConflictError(
                    f"{what} has been in use by another process for {wait_s:.0f} s",
                    hint="run the command again when the other one is done",
                )
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.2, _POLL_S[1])
        yield
    finally:
        os.close(descriptor)


def _open(path: Path, *, exclusive: bool) -> int | None:
    try:
        make_folder(path.parent)
        return open_file(path, os.O_RDWR | os.O_CREAT)
    except StorageError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno == errno.EROFS and not exclusive:
            return None
        raise
    except OSError as error:
        if error.errno in (errno.EROFS, errno.EACCES) and not exclusive:
            return None
        raise storage_error(f"{path} cannot be opened", error) from error
