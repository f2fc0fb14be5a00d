"""Tells the other replicas, while uploads are written here, that their writers are alive."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Final

from memcube_protocol.errors import MemcubeError

from memcube_registry.storage.claims import LEASE, Claims

BEAT_S: Final = LEASE.total_seconds() / 3


class Pulse:
    """Renews the claims of `owners` in one thread, which lives while there are any."""

    def __init__(self, claims: Claims) -> None:
        self._claims = claims
        self._owners: set[str] = set()
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._beats = False

    def add(self, owner: str) -> None:
        """Keep the claims of `owner` alive."""
        with self._lock:
            self._owners.add(owner)
            if not self._beats:
                self._beats = True
                threading.Thread(target=self._beat, name="claims", daemon=True).start()

    def remove(self, owner: str) -> None:
        """Let the claims of `owner` lapse."""
        with self._lock:
            self._owners.discard(owner)

    def _beat(self) -> None:
        while True:
            self._stopped.wait(BEAT_S)
            with self._lock:
                owners = frozenset(self._owners)
                if not owners:
                    self._beats = False
                    return
            # If the database does not answer, a claim may lapse: its owner will hear of it.
            with suppress(MemcubeError):
                self._claims.renew(owners)
