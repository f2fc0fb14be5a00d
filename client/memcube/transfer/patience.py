"""How long a client waits while a registry reads back what was sent straight to its store."""

from __future__ import annotations

from typing import Final

from memcube_protocol import limits

IDLE_S: Final = 300.0
"""How long the registry may get no further: another replica may have to take over, or a thread become free."""
SLOWEST_BYTES_PER_S: Final = limits.MIB
"""A store that is read more slowly than this is taken to be broken."""


class Patience:
    """The wait for one blob of `size_bytes`, begun at `now_s` of a clock that never goes back."""

    def __init__(self, size_bytes: int, now_s: float) -> None:
        self._ends_s = now_s + IDLE_S + size_bytes / SLOWEST_BYTES_PER_S
        self._moved_s = now_s
        self._read_bytes = 0

    def is_over(self, read_bytes: int, now_s: float) -> bool:
        """Whether to wait no longer, now that the registry says that it has read so many bytes.

        A replica that takes over begins anew: fewer bytes than before are a sign of life as well.
        """
        if read_bytes != self._read_bytes:
            self._read_bytes, self._moved_s = read_bytes, now_s
        return now_s - self._moved_s > IDLE_S or now_s > self._ends_s
