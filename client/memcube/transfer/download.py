"""One blob from a registry into the store: resumed, verified while it streams, then visible."""

from __future__ import annotations

from typing import Final

from memcube_protocol import limits
from memcube_protocol.content import Expected
from memcube_protocol.errors import (
    IntegrityError,
    NetworkError,
    SizeMismatchError,
    UnsafeRedirectError,
)
from memcube_protocol.oci import Descriptor
from memcube_protocol.values import frozen

from memcube.remote.interface import Content, Opened
from memcube.store import Ingest, Store
from memcube.transfer.progress import Moved, Outcome, Progress
from memcube.transfer.workers import Stop

_HEADWAY_BYTES: Final = 256 * limits.KIB
"""A connection that brought this much before it broke was worth another: failures count anew."""


@frozen
class Download:
    """Fetches blobs of repository `name`; see `transfer.pull_blobs`."""

    registry: Content
    name: str
    store: Store
    progress: Progress

    def __call__(self, blob: Descriptor, stop: Stop) -> Moved:
        """Fetch `blob`, unless the store holds it."""
        moved = self._moved(blob, stop)
        self.progress.finish(blob, moved.outcome)
        return moved

    def _moved(self, blob: Descriptor, stop: Stop) -> Moved:
        if self.store.has(blob.digest, blob.size):
            self.progress.advance(blob, blob.size)
            return Moved(blob, Outcome.PRESENT)
        with self.store.blobs.ingest(Expected(blob.digest, blob.size)) as ingest:
            if self.store.has(blob.digest, blob.size):  # who had the lock before has fetched it
                ingest.discard()
                self.progress.advance(blob, blob.size)
                return Moved(blob, Outcome.PRESENT)
            taken_up = ingest.offset
            self.progress.advance(blob, taken_up)
            try:
                moved = self._fill(blob, ingest, stop)
                ingest.commit()
                return Moved(blob, Outcome.FETCHED, moved)
            except IntegrityError:
                self.progress.advance(blob, -ingest.offset)
                if not taken_up:
                    raise
        return self._moved(blob, stop)  # what an earlier attempt had left was wrong: once more

    def _fill(self, blob: Descriptor, ingest: Ingest, stop: Stop) -> int:
        """Fetch what is missing, however often the connection breaks; the bytes that came."""
        retry, failures, moved = self.registry.http.retry, 0, 0
        while ingest.offset < blob.size:
            with self._open(blob, ingest) as response:
                before = ingest.offset
                try:
                    self._take(blob, response, ingest, stop)
                except UnsafeRedirectError:
                    raise
                except NetworkError as error:
                    stop.check()
                    failures = 1 if ingest.offset - before >= _HEADWAY_BYTES else failures + 1
                    retry.wait(error, failures)
                finally:
                    moved += ingest.offset - before
        return moved

    def _open(self, blob: Descriptor, ingest: Ingest) -> Opened:
        response = self.registry.open_blob(self.name, blob.digest, start=ingest.offset)
        if response.status == 200 and ingest.offset:
            self.progress.advance(blob, -ingest.offset)
            ingest.restart()
        length, wanted = response.length, blob.size - ingest.offset
        if length is not None and length != wanted:
            response.close()
            raise SizeMismatchError(
                f"{self.registry.host} sends {length} bytes of {blob.digest}, expected {wanted}",
                hint="the registry is damaged or hostile: nothing was kept of what it sent",
            )
        return response

    def _take(self, blob: Descriptor, response: Opened, ingest: Ingest, stop: Stop) -> None:
        for piece in response.pieces():
            ingest.write(piece)
            self.progress.advance(blob, len(piece))
            stop.check()
        if ingest.offset < blob.size:
            raise NetworkError(
                f"{self.registry.host} sent {ingest.offset} of {blob.size} bytes of {blob.digest}",
                hint="try again: what has arrived is kept",
            )
