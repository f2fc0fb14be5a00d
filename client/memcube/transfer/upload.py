"""One blob from the store into a registry: skipped, mounted, or sent and resumed.

A blob of up to 256 MiB is one request; a larger one goes in chunks of that size, since some
registries keep nothing of a request that breaks off. The bytes were verified when they entered
the store, so the kernel sends them; the registry verifies them again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from memcube_protocol import limits
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    ConflictError,
    DigestMismatchError,
    MemcubeError,
    NetworkError,
    NotFoundError,
    RangeMismatchError,
    RateLimitedError,
    UnavailableError,
    UnsafeRedirectError,
)
from memcube_protocol.oci import Descriptor

from memcube.http import FileBody
from memcube.remote import Registry, Upload
from memcube.store import Store
from memcube.store.files import PIECE_BYTES
from memcube.store.uploads import UploadNote
from memcube.transfer.progress import Moved, Outcome, Progress
from memcube.transfer.workers import Stop

CHUNK_BYTES: Final = 256 * limits.MIB
_NOTED_BYTES: Final = 4 * limits.MIB
_TRANSIENT: Final = (
    NetworkError,
    UnavailableError,
    RateLimitedError,
    RangeMismatchError,
    ConflictError,  # the registry has not noticed yet that the last writer is gone
)


@dataclass(frozen=True, slots=True)
class Sender:
    """Sends blobs to repository `name`; see `transfer.push_blobs`."""

    registry: Registry
    name: str
    store: Store
    progress: Progress
    locations: Callable[[], Mapping[Digest, str]]
    chunk_bytes: int = CHUNK_BYTES

    def __call__(self, blob: Descriptor, stop: Stop) -> Moved:
        """Make `name` hold `blob`."""
        moved = self._moved(blob, stop)
        self.progress.finish(blob, moved.outcome)
        return moved

    def _moved(self, blob: Descriptor, stop: Stop) -> Moved:
        if blob.size < _NOTED_BYTES:
            return self._send(blob, UploadNote(None), stop)
        with self.store.uploads.note(self.registry.host, self.name, blob.digest) as note:
            return self._send(blob, note, stop)

    def _send(self, blob: Descriptor, note: UploadNote, stop: Stop) -> Moved:
        upload = self._noted(note) or self._start(blob)
        if isinstance(upload, Outcome):
            self.progress.advance(blob, blob.size)
            return Moved(blob, upload)
        path = self.store.path(blob.digest, blob.size)
        attempt = _Attempt(self, blob, path, note, stop, upload)
        return Moved(blob, Outcome.SENT, attempt.run())

    def _noted(self, note: UploadNote) -> Upload | None:
        """The session that an earlier process left, if the registry still has it."""
        if note.url is None:
            return None
        try:
            return self.registry.uploads.status(self.name, note.url)
        except UnsafeRedirectError:
            raise
        except MemcubeError:
            return None  # whatever is wrong with the old session, a new one can be begun

    def _start(self, blob: Descriptor) -> Upload | Outcome:
        """A session; or how the registry comes to hold the blob without one.

        Where no other repository is known to hold it, it is mounted from this one: one request asks
        whether it is there, and begins the upload if not.
        """
        source = self.locations().get(blob.digest, self.name)
        upload = self.registry.uploads.start(self.name, mount=blob.digest, source=source)
        return upload or (Outcome.PRESENT if source == self.name else Outcome.MOUNTED)


class _Attempt:
    """The upload of one blob, over as many requests as it takes."""

    def __init__(
        self,
        sender: Sender,
        blob: Descriptor,
        path: Path,
        note: UploadNote,
        stop: Stop,
        upload: Upload,
    ) -> None:
        self._sender = sender
        self._registry = sender.registry
        self._blob = blob
        self._path = path
        self._note = note
        self._stop = stop
        self._upload = upload
        self._taken_up = upload.offset > 0
        self._renewed = False
        self._failures = 0
        self._done = False
        self._shown = 0
        self._moved = 0

    def run(self) -> int:
        """Send everything; the bytes that crossed the network.

        Raises:
            MemcubeError: the registry refuses, or is out of reach after all retries.
        """
        while True:
            before = self._upload.offset
            try:
                self._go_on()
            except UnsafeRedirectError:
                raise
            except (DigestMismatchError, NotFoundError) as error:
                self._begin_again(error)
            except _TRANSIENT as error:
                self._stop.check()
                self._wait(error, advanced_bytes=self._upload.offset - before)
                self._find_out()
            else:
                self._done = True
            if self._done:
                self._note.forget()
                self._show(self._blob.size)
                return self._moved

    def _begin_again(self, error: MemcubeError) -> None:
        """Open another session where the old one is gone, or held wrong bytes of an earlier process.

        Raises:
            MemcubeError: `error`, where that has been tried or can change nothing.
        """
        if isinstance(error, NotFoundError) and self._is_there():
            self._done = True
            return
        own_bytes = isinstance(error, DigestMismatchError) and not self._taken_up
        if own_bytes or self._renewed:
            self._note.forget()
            raise error
        self._renewed, self._upload = True, self._anew()

    def _wait(self, error: MemcubeError, *, advanced_bytes: int) -> None:
        """Wait as the retry policy says.

        Raises:
            MemcubeError: `error`, where it was tried often enough.
        """
        retry = self._registry.http.retry
        self._failures = 1 if advanced_bytes >= PIECE_BYTES else self._failures + 1
        asked_s = error.retry_after_s if isinstance(error, RateLimitedError) else None
        wait_s = retry.wait_s(self._failures, asked_s)
        if wait_s is None:
            raise error
        retry.sleep(wait_s)

    def _go_on(self) -> None:
        """Send from where the session is to the end."""
        self._show(self._upload.offset)
        if self._upload.offset > self._blob.size:
            self._upload = self._anew()
        self._note.remember(self._upload.url)
        chunk_bytes = max(self._sender.chunk_bytes, self._upload.min_chunk_bytes)
        while self._blob.size - self._upload.offset > chunk_bytes:
            body = self._body(self._upload.offset, chunk_bytes)
            self._upload = self._registry.uploads.append(self._sender.name, self._upload, body)
            self._note.remember(self._upload.url)
        rest = self._blob.size - self._upload.offset
        body = self._body(self._upload.offset, rest)
        self._registry.uploads.finish(
            self._sender.name, self._upload, self._blob.digest, body if rest else b""
        )

    def _find_out(self) -> None:
        """Ask how far the session got; the blob may be there already, or the session gone."""
        status = self._registry.uploads.status(self._sender.name, self._upload.url)
        if status is not None:
            self._upload = status
        elif self._is_there():
            self._done = True
        else:
            self._upload = self._anew()

    def _is_there(self) -> bool:
        return self._registry.blob_size(self._sender.name, self._blob.digest) is not None

    def _anew(self) -> Upload:
        upload = self._registry.uploads.start(self._sender.name)
        assert upload is not None  # without a source nothing can be mounted
        return upload

    def _body(self, start: int, size: int) -> FileBody:
        return FileBody(self._path, start, size, self._sent)

    def _sent(self, size_bytes: int) -> None:
        self._stop.check()
        self._moved += size_bytes
        self._show(self._shown + size_bytes)

    def _show(self, offset: int) -> None:
        self._sender.progress.advance(self._blob, offset - self._shown)
        self._shown = offset
