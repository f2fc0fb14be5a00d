"""Large blobs on their way before the cube is packed: sending one overlaps with hashing the next."""

from __future__ import annotations

import threading
from typing import Final

from memcube_protocol import limits
from memcube_protocol.digest import Digest
from memcube_protocol.oci import Descriptor

from memcube.remote import Registry
from memcube.store import Store
from memcube.transfer.progress import Progress, Silent
from memcube.transfer.upload import Sender
from memcube.transfer.workers import Stop

EARLY_BYTES: Final = 4 * limits.MIB


class EarlySender:
    """Sends what the store was just given to repository `name`; called from several threads.

    `sent` are the blobs that the repository holds now, `moved_bytes` what crossed the network.
    """

    def __init__(
        self,
        registry: Registry,
        name: str,
        store: Store,
        progress: Progress | None,
        parallel: int = 4,
    ) -> None:
        self._progress = progress or Silent()
        self._sender = Sender.of(registry, name, store, self._progress, parallel)
        self._stop = Stop()
        self._lock = threading.Lock()
        self.sent: set[Digest] = set()
        self.moved_bytes = 0

    def __call__(self, blob: Descriptor) -> None:
        """Send `blob` if it is large; small ones are not worth a request before all are known.

        Raises:
            MemcubeError: as `transfer.push_blobs`; other threads stop.
        """
        if blob.size < EARLY_BYTES:
            return
        self._progress.expect([blob])
        try:
            moved = self._sender(blob, self._stop)
        except BaseException:
            self._stop.set()
            raise
        with self._lock:
            self.sent.add(blob.digest)
            self.moved_bytes += moved.moved_bytes
