"""How much memory this process may still take, as far as the system tells."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_MEMORY: Final = Path("/proc/meminfo")
_GROUP: Final = Path("/sys/fs/cgroup")
_CACHE: Final = "inactive_file"
"""What a group holds of files that nobody reads: it gives way."""


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


def _of_group(group: Path) -> int | None:
    try:
        most = int((group / "memory.max").read_text("ascii"))
        used = int((group / "memory.current").read_text("ascii"))
        lines = (group / "memory.stat").read_text("ascii").splitlines()
        spare = next(int(line.split()[1]) for line in lines if line.startswith(f"{_CACHE} "))
    except (OSError, ValueError, StopIteration, IndexError):
        return None  # "max" is no number: it may take all that there is
    return max(0, most - used + spare)
