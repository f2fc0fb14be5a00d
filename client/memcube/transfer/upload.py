"""One blob into a registry: skipped, mounted, or sent and resumed.

A blob of up to 256 MiB is one request; a larger one goes in chunks of that size, since some
registries keep nothing of a request that breaks off. A registry that takes no further chunk gets the
whole blob in one request. Bytes of the store were verified when they entered it, so the kernel sends
them; the registry verifies them again.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Final, Protocol, Self

from memcube_protocol import limits
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    ConflictError,
    DigestMismatchError,
    ForbiddenError,
    InvalidRequestError,
    MemcubeError,
    NetworkError,
    NotFoundError,
    RangeMismatchError,
    RateLimitedError,
    UnauthenticatedError,
    UnavailableError,
    UnsafeRedirectError,
    UnsupportedError,
)
from memcube_protocol.oci import Descriptor
from memcube_protocol.values import frozen

from memcube.http import FileBody, Origin, SizedBody
from memcube.remote import Registry, Upload
from memcube.store import Store
from memcube.store.files import PIECE_BYTES
from memcube.store.uploads import UploadNote
from memcube.transfer.direct import DirectSender
from memcube.transfer.progress import Moved, Outcome, Progress
from memcube.transfer.workers import Stop

CHUNK_BYTES: Final = 256 * limits.MIB
_NOTED_BYTES: Final = 4 * limits.MIB
_WRITER_GONE_S: Final = 2.0
"""Between tries while another writer holds the upload: replicas learn within seconds that one was killed."""
_TRANSIENT: Final = (
    NetworkError,
    UnavailableError,
    RateLimitedError,
    RangeMismatchError,
    ConflictError,  # the registry has not noticed yet that the last writer is gone
)
_NOT_LET_IN: Final = (UnauthenticatedError, ForbiddenError)
_REFUSALS: Final = (
    DigestMismatchError,
    NotFoundError,
    UnsupportedError,
    InvalidRequestError,
    *_NOT_LET_IN,
)


Parts = Callable[[int, int, Callable[[int], None]], SizedBody]
"""Body of so many bytes from a start on (start, size); the last argument hears of bytes that were sent."""


class Contents(Protocol):
    """Where the bytes of blobs come from."""

    def parts_of(self, blob: Descriptor) -> Parts:
        """Parts of `blob`.

        Raises:
            NotFoundError: the blob is not there.
        """
        ...


@frozen
class Held:
    """What the store holds."""

    store: Store

    def parts_of(self, blob: Descriptor) -> Parts:
        """See `Contents.parts_of`."""
        return functools.partial(FileBody, self.store.path(blob.digest, blob.size))


@frozen
class Sender:
    """Sends blobs to repository `name`; see `transfer.push_blobs`.

    `locations` says which repository of the registry holds a blob: it is mounted from there.
    `contents` holds the bytes; None: `store` does, which keeps the notes of sessions in any case.
    """

    registry: Registry
    name: str
    store: Store
    progress: Progress
    locations: Callable[[], Mapping[Digest, str]]
    chunk_bytes: int = CHUNK_BYTES
    contents: Contents | None = None
    direct: DirectSender | None = None

    @classmethod
    def of(
        cls, registry: Registry, name: str, store: Store, progress: Progress, parallel: int
    ) -> Self:
        """What sends blobs of `store`: straight to the registry's own store where both sides can."""
        locations = functools.cache(lambda: store.locations(registry.host))
        slots = threading.BoundedSemaphore(parallel)
        direct = DirectSender(registry, name, store, progress, locations, parallel, slots)
        return cls(registry, name, store, progress, locations, direct=direct)

    def __call__(self, blob: Descriptor, stop: Stop) -> Moved:
        """Make `name` hold `blob`."""
        moved = self._moved(blob, stop)
        self.progress.finish(blob, moved.outcome)
        return moved

    def _moved(self, blob: Descriptor, stop: Stop) -> Moved:
        if self.direct and (moved := self.direct(blob, stop)):
            return moved
        if blob.size < _NOTED_BYTES:
            return self._send(blob, UploadNote(None), stop)
        with self.store.uploads.note(self.registry.host, self.name, blob.digest) as note:
            return self._send(blob, note, stop)

    def _send(self, blob: Descriptor, note: UploadNote, stop: Stop) -> Moved:
        upload = self._noted(note) or self._start(blob)
        if isinstance(upload, Outcome):
            self.progress.advance(blob, blob.size)
            return Moved(blob, upload)
        parts = (self.contents or Held(self.store)).parts_of(blob)
        attempt = _Attempt(self, blob, parts, note, stop, upload)
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
        try:
            upload = self.registry.uploads.start(self.name, mount=blob.digest, source=source)
        except _NOT_LET_IN:
            if source == self.name:
                raise
            upload = self.registry.uploads.start(self.name)  # not allowed to read at `source`
        if upload is None:
            return Outcome.PRESENT if source == self.name else Outcome.MOUNTED
        if blob.size >= _NOTED_BYTES and self.is_there(blob):  # a registry that cannot mount
            with suppress(MemcubeError):
                self.registry.uploads.cancel(self.name, upload)
            return Outcome.PRESENT
        return upload

    def is_there(self, blob: Descriptor) -> bool:
        """Whether the repository says that it holds `blob`."""
        return self.registry.blob_size(self.name, blob.digest) is not None


class _Attempt:
    """The upload of one blob, over as many requests as it takes."""

    def __init__(
        self,
        sender: Sender,
        blob: Descriptor,
        parts: Parts,
        note: UploadNote,
        stop: Stop,
        upload: Upload,
    ) -> None:
        self._sender = sender
        self._registry = sender.registry
        self._blob = blob
        self._parts = parts
        self._note = note
        self._stop = stop
        self._upload = upload
        self._taken_up = upload.offset > 0
        self._renewed = False
        self._chunk_bytes = sender.chunk_bytes
        self._appending = False
        self._refused_at: int | None = None
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
            except _REFUSALS as error:
                self._begin_again(error)
            except _TRANSIENT as error:
                self._stop.check()
                self._wait(error, advanced_bytes=self._upload.offset - before)
                if not isinstance(error, RateLimitedError):  # of that nothing was taken
                    self._find_out(error)
            else:
                self._done = True
            if self._done:
                self._note.forget()
                self._show(self._blob.size)
                return self._moved

    def _begin_again(self, error: MemcubeError) -> None:
        """Open another session where the old one is gone, refuses, or held wrong bytes of an earlier process.

        Raises:
            MemcubeError: `error`, where that has been tried or can change nothing.
        """
        if isinstance(error, NotFoundError) and self._sender.is_there(self._blob):
            self._done = True
        elif self._may_help(error) and not self._renewed:
            self._renewed, self._upload = True, self._anew()
        elif self._appending and not isinstance(error, _NOT_LET_IN):
            self._send_whole()
        else:
            self._note.forget()
            raise error

    def _may_help(self, error: MemcubeError) -> bool:
        """Whether the same in another session may end better."""
        if isinstance(error, DigestMismatchError):
            return self._taken_up
        if isinstance(error, _NOT_LET_IN):  # a signed address may have run out
            return Origin.of(self._upload.url) != Origin.of(self._registry.endpoint.url)
        return isinstance(error, NotFoundError)

    def _send_whole(self) -> None:
        """From now on without chunks, in a session of its own: the registry takes no further one."""
        self._chunk_bytes, self._appending = self._blob.size, False
        self._upload = self._anew()

    def _wait(self, error: MemcubeError, *, advanced_bytes: int) -> None:
        """Wait as the retry policy says.

        Raises:
            MemcubeError: `error`, where it was tried often enough.
        """
        self._failures = 1 if advanced_bytes >= PIECE_BYTES else self._failures + 1
        least_s = _WRITER_GONE_S if isinstance(error, ConflictError) else 0.0
        self._registry.http.retry.wait(error, self._failures, least_s=least_s)

    def _go_on(self) -> None:
        """Send from where the session is to the end."""
        self._show(self._upload.offset)
        if self._upload.offset > self._blob.size:
            self._upload = self._anew()
        self._note.remember(self._upload.url)
        chunk_bytes = max(self._chunk_bytes, self._upload.min_chunk_bytes)
        while self._blob.size - self._upload.offset > chunk_bytes:
            self._appending = True
            body = self._body(self._upload.offset, chunk_bytes)
            self._upload = self._registry.uploads.append(self._sender.name, self._upload, body)
            self._note.remember(self._upload.url)
        self._appending = False
        rest = self._blob.size - self._upload.offset
        body = self._body(self._upload.offset, rest)
        self._registry.uploads.finish(
            self._sender.name, self._upload, self._blob.digest, body if rest else b""
        )

    def _find_out(self, error: MemcubeError) -> None:
        """Ask how far the session got; the blob may be there already, or the session gone."""
        status = self._registry.uploads.status(self._sender.name, self._upload.url)
        if status is None and self._sender.is_there(self._blob):
            self._done = True
        elif status is None:
            self._upload = self._anew()
        elif self._appending and isinstance(error, RangeMismatchError) and self._is_stuck(status):
            self._send_whole()
        else:
            least_bytes = max(status.min_chunk_bytes, self._upload.min_chunk_bytes)
            self._upload = replace(status, min_chunk_bytes=least_bytes)

    def _is_stuck(self, status: Upload) -> bool:
        """Whether a chunk was refused where the session says that it goes on, not for the first time."""
        before, self._refused_at = self._refused_at, status.offset
        return before == status.offset

    def _anew(self) -> Upload:
        upload = self._registry.uploads.start(self._sender.name)
        assert upload is not None  # without a source nothing can be mounted
        return upload

    def _body(self, start: int, size: int) -> SizedBody:
        return self._parts(start, size, self._sent)

    def _sent(self, size_bytes: int) -> None:
        self._stop.check()
        self._moved += size_bytes
        self._show(self._shown + size_bytes)

    def _show(self, offset: int) -> None:
        self._sender.progress.advance(self._blob, offset - self._shown)
        self._shown = offset
