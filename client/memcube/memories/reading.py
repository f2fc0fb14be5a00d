"""Reading the small files of a memory: whole, but never more than they may be."""

from __future__ import annotations

from pathlib import Path

from memcube_protocol import limits
from memcube_protocol.errors import NotFoundError


def read_small(file: Path, limit_bytes: int) -> bytes:
    """Content of `file`.

    Raises:
        NotFoundError: no such file, or something else than a file.
        LimitExceededError: more than `limit_bytes`; no more than that is read.
    """
    require_file(file)
    size_bytes = file.stat().st_size
    limits.require_at_most(file.name, size_bytes, limit_bytes)
    with file.open("rb") as opened:
        return opened.read(size_bytes)


def require_file(file: Path) -> None:
    """Refuse a path that is no file.

    Raises:
        NotFoundError: no such file, or a folder, pipe or device in its place.
    """
    if not file.is_file():
        raise NotFoundError(
            f"{file.parent.name} has no file {file.name}",
            hint="pull the memory again, or check that this is the folder of a memory",
        )
