"""A small disk of the run's own, which the monkey fills and frees again."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

SIZE_MIB = 256
_PIECE = bytes(64 * 1024)


@dataclass(frozen=True)
class Disk:
    """A file system in memory, mounted at `folder`."""

    folder: Path

    @classmethod
    def mount(cls, folder: Path) -> Disk | None:
        """A fresh disk at `folder`; none where mounting is not permitted."""
        folder.mkdir(parents=True, exist_ok=True)
        options = ["-t", "tmpfs", "-o", f"size={SIZE_MIB}m,mode=0700", "tmpfs", str(folder)]
        done = subprocess.run(["mount", *options], capture_output=True, check=False)
        return cls(folder) if done.returncode == 0 else None

    @property
    def _filler(self) -> Path:
        return self.folder / "filler"

    def fill(self) -> None:
        """Leave no room at all."""
        with self._filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(_PIECE)
            except OSError:
                pass

    def free(self) -> None:
        """Give the room back."""
        self._filler.unlink(missing_ok=True)

    def unmount(self) -> None:
        subprocess.run(["umount", "-l", str(self.folder)], check=False, capture_output=True)
