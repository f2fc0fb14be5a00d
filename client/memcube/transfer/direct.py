"""One blob from the store of this machine straight into the registry's store, part by part.

The registry signs a request for each part, and makes the parts a blob once they are there. Whoever
announces the same blob again is told which parts have arrived: a killed transfer goes on after them. Of
one request for the whole blob nothing is kept when it breaks off: announced again, a large one gets parts.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from memcube_protocol import limits
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    ConflictError,
    DigestMismatchError,
    ForbiddenError,
    LimitExceededError,
    MemcubeError,
    NetworkError,
    NotFoundError,
    RateLimitedError,
    SizeMismatchError,
    UnavailableError,
    UnsafeRedirectError,
    UnsupportedError,
)
from memcube_protocol.oci import Descriptor
from memcube_protocol.values import frozen

from memcube.http import FileBody
from memcube.remote import Registry
from memcube.remote.direct import DirectUpload, DirectUploads, SignedPut
from memcube.store import Store
from memcube.store.files import PIECE_BYTES, open_file, storage_errors
from memcube.transfer.patience import Patience
from memcube.transfer.progress import Moved, Outcome, Progress
from memcube.transfer.workers import Stop, run

DIRECT_BYTES: Final = 4 * limits.MIB
"""Smaller blobs go through the registry: the requests around a direct one cost more than it spares."""
_POLL_S: Final = 1.0
_FIRST_TRIES: Final = 2
"""How often a store is tried that has never answered: the registry is another way to it."""
_TRANSIENT: Final = (
    NetworkError,
    UnavailableError,
    RateLimitedError,
    ForbiddenError,  # the signed request ran out: each try has a fresh one
    ConflictError,
)


class _BrokenOffError(MemcubeError):
    """The one request for the whole blob failed: smaller ones may get through, and what they bring is kept."""


class _StoreUnreachableError(NetworkError):
    """The store never answered this client, which may yet reach it through the registry."""


@frozen
class DirectSender:
    """Sends blobs to repository `name` past the registry; `slots` bounds the parts that move at once."""

    registry: Registry
    name: str
    store: Store
    progress: Progress
    locations: Callable[[], Mapping[Digest, str]]
    parallel: int
    slots: threading.BoundedSemaphore

    def __call__(self, blob: Descriptor, stop: Stop) -> Moved | None:
        """Make `name` hold `blob`; None where it has to go through the registry.

        Raises:
            UnsafeRedirectError: the registry names an address that no redirect may lead to.
            MemcubeError: the registry or its store refuses, or is out of reach after all retries.
        """
        uploads = self.registry.direct if blob.size >= DIRECT_BYTES else None
        if uploads is None:
            return None
        source = self.locations().get(blob.digest)
        try:
            found = uploads.announce(self.name, blob.digest, blob.size, source=source)
        except (UnsupportedError, LimitExceededError, NotFoundError):
            return None
        if not isinstance(found, DirectUpload):
            self.progress.advance(blob, blob.size)
            return Moved(blob, Outcome(found))
        path = self.store.path(blob.digest, blob.size)
        attempt = _Attempt(self, uploads, blob, path, stop, found)
        try:
            return Moved(blob, Outcome.SENT, attempt.run())
        except _StoreUnreachableError:
            attempt.give_up()
            return None


@frozen
class _Part:
    """Bytes `start` to `start + size` of the blob."""

    number: int
    start: int
    size: int


class _Attempt:
    """The direct upload of one blob, over as many requests as it takes."""

    def __init__(
        self,
        sender: DirectSender,
        uploads: DirectUploads,
        blob: Descriptor,
        path: Path,
        stop: Stop,
        upload: DirectUpload,
    ) -> None:
        self._sender = sender
        self._uploads = uploads
        self._blob = blob
        self._path = path
        self._stop = stop
        self._upload = upload
        self._taken_up = bool(upload.received)
        self._answered = self._taken_up
        self._renewed = False
        self._asked_for_parts = False
        self._lock = threading.Lock()
        self._shown = 0
        self._moved = 0

    def run(self) -> int:
        """Send everything; the bytes that crossed the network.

        Raises:
            MemcubeError: see `DirectSender`.
        """
        failures = 0
        while True:
            try:
                if failures:
                    self._upload = self._uploads.look(self._sender.name, self._upload)
                self._go_on()
                return self._done()
            except UnsafeRedirectError:
                raise
            except (DigestMismatchError, SizeMismatchError, NotFoundError) as error:
                if self._begin_again(error):
                    return self._done()
            except _BrokenOffError:
                if self._announce():
                    return self._done()
            except ConflictError as error:
                failures += 1
                self._sender.registry.http.retry.wait(error, failures)

    def give_up(self) -> None:
        """Leave nothing that counts against the account, as far as that is possible."""
        self._advance(-self._shown)
        try:
            self._uploads.cancel(self._sender.name, self._upload)
        except MemcubeError:
            return  # it ends by itself when nobody goes on with it

    def _go_on(self) -> None:
        """Put what is missing, then have it made a blob."""
        upload, sender = self._upload, self._sender
        self._advance(-self._shown)
        missing = []
        for number in range(1, upload.part_count + 1):
            part = _Part(number, *upload.part(number))
            if number in upload.received:
                self._advance(part.size)
            else:
                missing.append(part)
        run(self._put, missing, sender.parallel)
        self._await_proof()

    def _await_proof(self) -> None:
        """Have the upload made a blob, while the registry reads back.

        Raises:
            UnavailableError: it takes longer than `Patience` allows.
        """
        name, blob, registry = self._sender.name, self._blob, self._sender.registry
        patience = Patience(blob.size, time.monotonic())
        while (read := self._uploads.complete(name, self._upload, blob.digest)) is not None:
            self._stop.check()
            self._sender.progress.check(blob, min(read, blob.size))
            if patience.is_over(read, time.monotonic()):
                raise UnavailableError(
                    f"{registry.host} has read back {read} of {blob.size} bytes, and is too slow",
                    hint="run the command again in a minute: what has arrived is kept",
                )
            registry.http.retry.sleep(_POLL_S)

    def _begin_again(self, error: MemcubeError) -> bool:
        """Announce anew where the upload is over, or held wrong bytes of an earlier process.

        Says whether the repository holds the blob by now.

        Raises:
            MemcubeError: `error`, where that has been tried or can change nothing.
        """
        is_over = isinstance(error, NotFoundError)
        if is_over and self._is_there():
            return True
        if self._renewed or not (self._taken_up or is_over):
            raise error
        self._renewed = True
        return self._announce()

    def _announce(self) -> bool:
        """Announce the blob again, and go on with what the answer says; whether the repository holds it."""
        found = self._uploads.announce(self._sender.name, self._blob.digest, self._blob.size)
        if isinstance(found, DirectUpload):
            self._upload, self._taken_up = found, bool(found.received)
        return not isinstance(found, DirectUpload)

    def _is_there(self) -> bool:
        registry = self._sender.registry
        return registry.blob_size(self._sender.name, self._blob.digest) is not None

    def _done(self) -> int:
        self._advance(self._blob.size - self._shown)
        return self._moved

    def _put(self, part: _Part, stop: Stop) -> None:
        """Put one part, however often it takes.

        Raises:
            _BrokenOffError: the part was the whole blob, and did not get through the first time.
            _StoreUnreachableError: the store has not answered once.
            LimitExceededError: it is too large for the store, also in parts.
            MemcubeError: as it answers.
        """
        failures = 0
        sha256 = self._sha256(part) if self._upload.binds_sha256 else None
        while True:
            self._stop.check()
            stop.check()
            with self._sender.slots:
                signed = self._uploads.sign(self._sender.name, self._upload, part.number, sha256)
                try:
                    self._put_once(part, signed, stop)
                except UnsafeRedirectError:
                    raise
                except (*_TRANSIENT, LimitExceededError) as error:
                    problem: MemcubeError = error
                else:
                    self._answered = True
                    return
            failures += 1
            self._stop.check()
            tries = failures + self._asked_for_parts
            if type(problem) is NetworkError and not self._answered and tries >= _FIRST_TRIES:
                raise _StoreUnreachableError(str(problem), hint=problem.hint) from problem
            if isinstance(problem, LimitExceededError) and self._asked_for_parts:
                raise problem
            self._sender.registry.http.retry.wait(problem, failures)
            self._require_parts(problem)

    def _require_parts(self, problem: MemcubeError) -> None:
        """Give the one request for the whole blob up the first time that it fails.

        Raises:
            _BrokenOffError: it was that, and did.
        """
        if self._upload.part_count == 1 and not self._asked_for_parts:
            self._asked_for_parts = True
            raise _BrokenOffError(str(problem), hint=problem.hint) from problem

    def _put_once(self, part: _Part, signed: SignedPut, stop: Stop) -> None:
        sent = 0

        def note(size_bytes: int) -> None:
            nonlocal sent
            self._stop.check()
            stop.check()
            sent += size_bytes
            self._advance(size_bytes, size_bytes)

        try:
            self._uploads.put(signed, FileBody(self._path, part.start, part.size, note))
        except BaseException:
            self._advance(-sent)
            raise

    def _sha256(self, part: _Part) -> str:
        hasher, end = hashlib.sha256(), part.start + part.size
        with storage_errors(f"{self._path} cannot be read"):
            descriptor = open_file(self._path)
            try:
                for at in range(part.start, end, PIECE_BYTES):
                    hasher.update(os.pread(descriptor, min(PIECE_BYTES, end - at), at))
            finally:
                os.close(descriptor)
        return hasher.hexdigest()

    def _advance(self, size_bytes: int, moved_bytes: int = 0) -> None:
        with self._lock:
            self._shown += size_bytes
            self._moved += moved_bytes
        self._sender.progress.advance(self._blob, size_bytes)
