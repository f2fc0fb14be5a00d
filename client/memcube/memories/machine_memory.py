"""How much memory this process may still take, as far as the system tells."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from memcube_protocol.values import frozen

_MEMORY: Final = Path("/proc/meminfo")
_GROUP: Final = Path("/sys/fs/cgroup")
_NONE_BYTES: Final = 1 << 60
"""The first version of control groups writes a number like this where there is no limit."""


def free_bytes(meminfo: Path = _MEMORY, group: Path = _GROUP) -> int | None:
    """Bytes that are free: of the machine, or of the container's share where that is less; None where unknown."""
    known = [free for free in (_of_machine(meminfo), _of_group(group)) if free is not None]
    return min(known, default=None)


def _of_machine(meminfo: Path) -> int | None:
    try:
        lines = meminfo.read_text("ascii").splitlines()
        found = next(line for line in lines if line.startswith("MemAvailable:"))
        return int(found.split()[1]) * 1024
    except (OSError, ValueError, StopIteration, IndexError):
        return None


@frozen
class _Files:
    """What the files of a control group are called; `cache` is what it holds of files that nobody reads."""

    most: str
    used: str
    stat: str
    cache: str


_VERSIONS: Final = (
    _Files("memory.max", "memory.current", "memory.stat", "inactive_file"),
    _Files(
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
        "total_inactive_file",
    ),
)
"""Version 2 of control groups, and version 1. A machine may have both, the memory in one of them."""


def _of_group(group: Path) -> int | None:
    known = [free for files in _VERSIONS if (free := _told(group, files)) is not None]
    return min(known, default=None)


def _told(group: Path, files: _Files) -> int | None:
    try:
        most = int((group / files.most).read_text("ascii"))
        used = int((group / files.used).read_text("ascii"))
        lines = (group / files.stat).read_text("ascii").splitlines()
        spare = next(int(line.split()[1]) for line in lines if line.startswith(f"{files.cache} "))
    except (OSError, ValueError, StopIteration, IndexError):
        return None  # "max" is no number: it may take all that there is
    return None if most >= _NONE_BYTES else max(0, most - used + spare)
