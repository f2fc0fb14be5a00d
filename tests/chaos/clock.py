"""A wall clock that processes can be made to believe: `clock.c`, loaded before their libc.

libfaketime would do the same, but its Debian version makes `time.sleep` of Python 3.11 fail.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("clock.c")


@dataclass(frozen=True)
class Clock:
    """Shifts the wall clock of whoever runs with `environment`."""

    library: Path
    shift: Path

    @classmethod
    def build(cls, folder: Path) -> Clock | None:
        """A clock whose files lie in `folder`; none where there is no C compiler."""
        compiler = shutil.which("cc")
        if compiler is None:
            return None
        library, shift = folder / "clock.so", folder / "clock"
        options = ("-O1", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl")
        subprocess.run([compiler, *options], check=True, timeout=60)
        clock = cls(library, shift)
        shift.write_bytes(bytes(8))
        return clock

    @property
    def environment(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self.library), "CHAOS_CLOCK": str(self.shift)}

    def move(self, seconds: int) -> None:
        """Let the clock be `seconds` ahead of the true time, or behind."""
        handle = os.open(self.shift, os.O_WRONLY)
        try:
            os.pwrite(handle, seconds.to_bytes(8, "little", signed=True), 0)
        finally:
            os.close(handle)
