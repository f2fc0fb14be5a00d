"""Large blobs on their way before the cube is packed: sending one overlaps with hashing the next."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Self

from memcube_protocol import limits
from memcube_protocol.digest import Digest
from memcube_protocol.oci import Descriptor
from memcube_protocol.values import frozen

from memcube.closing import Closing
from memcube.remote import Registry
from memcube.store import Store
from memcube.transfer.progress import Moved, Outcome, Progress, Silent
from memcube.transfer.together import TakesAlone
from memcube.transfer.upload import Sender
from memcube.transfer.workers import Line, Stop

_REGISTRY_BYTES: Final = 4 * limits.MIB

Send = Callable[[Descriptor, Stop], Moved]
"""Makes the place hold a blob of the store."""


class EarlySender(Closing):
    """Sends what the store was just given, while more is being packed; called from several threads.

    A context manager: what is still waiting at its end is not sent. `sent` are the blobs that the place
    holds now, `moved_bytes` what crossed the network for them.
    """

    def __init__(
        self,
        send: Send,
        progress: Progress,
        parallel: int,
        *,
        from_bytes: int = _REGISTRY_BYTES,
        expect: Callable[[Descriptor], None] = lambda _: None,
    ) -> None:
        self._send = send
        self._expect = expect
        self._progress = progress
        self._from_bytes = from_bytes
        self._line = Line(self._send_one, parallel)
        self._lock = threading.Lock()
        self.sent: set[Digest] = set()
        self.moved_bytes = 0

    @classmethod
    def to(
        cls,
        place: Registry | TakesAlone,
        name: str,
        store: Store,
        progress: Progress | None,
        parallel: int,
    ) -> Self:
        """What sends blobs of `store` to the repository `name` of `place`."""
        watched = progress or Silent()
        if isinstance(place, Registry):
            return cls(Sender.of(place, name, store, watched, parallel), watched, parallel)

        def take(blob: Descriptor, stop: Stop) -> Moved:
            (moved,) = place.take(name, [blob], store, _Stopping(watched, stop))
            return moved

        return cls(
            take,
            watched,
            parallel,
            from_bytes=place.alone_from_bytes,
            expect=partial(place.expect, name),
        )

    def __call__(self, blob: Descriptor) -> None:
        """Send `blob` soon if it is large; small ones are not worth a request before all are known.

        Raises:
            MemcubeError: an earlier one could not be sent, as `transfer.push_blobs`.
        """
        if blob.size >= self._from_bytes:
            self._expect(blob)
            self._line.add(blob)

    def wait(self) -> None:
        """Until all is sent.

        Raises:
            MemcubeError: as `transfer.push_blobs`.
        """
        self._line.wait()

    def close(self) -> None:
        """Send nothing more; blobs that are on their way are broken off."""
        self._line.end()

    def _send_one(self, blob: Descriptor, stop: Stop) -> None:
        self._progress.expect([blob])
        moved = self._send(blob, stop)
        with self._lock:
            self.sent.add(blob.digest)
            self.moved_bytes += moved.moved_bytes


@frozen
class _Stopping:
    """A progress through which a transfer hears that it shall end."""

    progress: Progress
    stop: Stop

    def expect(self, blobs: Sequence[Descriptor]) -> None:
        """See `Progress.expect`."""
        self.progress.expect(blobs)

    def advance(self, blob: Descriptor, size_bytes: int) -> None:
        """See `Progress.advance`.

        Raises:
            NetworkError: the transfer shall end.
        """
        self.progress.advance(blob, size_bytes)
        if size_bytes > 0:
            self.stop.check()

    def check(self, blob: Descriptor, size_bytes: int) -> None:
        """See `Progress.check`."""
        self.progress.check(blob, size_bytes)

    def finish(self, blob: Descriptor, outcome: Outcome) -> None:
        """See `Progress.finish`."""
        self.progress.finish(blob, outcome)
