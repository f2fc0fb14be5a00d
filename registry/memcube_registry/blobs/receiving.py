"""Receives the bytes of an upload: hashed and written in threads while the next ones arrive.

At most two batches of 4 MiB are in memory for one upload, however large it is.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Final

from memcube_protocol import limits
from memcube_protocol.digest import Digest, Hasher, new_hasher
from memcube_protocol.errors import DigestMismatchError, InvalidRequestError, SizeMismatchError

from memcube_registry.blobs.uploading import NewBlob
from memcube_registry.http.exchange import Request, transfer
from memcube_registry.storage import BlobStore, Sink

BATCH_BYTES: Final = 4 * limits.MIB
_KEPT_HASHES: Final = 1024


@dataclass(slots=True)
class Progress:
    """The hash over the first `size` bytes of an upload."""

    algorithm: str
    hasher: Hasher
    size: int = 0


class Hashes:
    """Hashes of uploads between their requests, so that finished bytes need not be read again.

    Only a shortcut: after a restart, or when too many uploads are open, the bytes are read.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Progress] = OrderedDict()

    def take(self, upload: str, algorithm: str | None, size: int) -> Progress | None:
        """The hash over the upload's first `size` bytes, if it is known; a fresh one at size 0."""
        kept = self._kept.pop(upload, None)
        if kept and kept.size == size and algorithm in (None, kept.algorithm):
            return kept
        if size == 0:
            chosen = algorithm or "sha256"
            return Progress(chosen, new_hasher(chosen))
        return None

    def keep(self, upload: str, progress: Progress) -> None:
        """Keep it for the upload's next request."""
        self._kept[upload] = progress
        while len(self._kept) > _KEPT_HASHES:
            self._kept.popitem(last=False)


@dataclass(slots=True)
class Receiver:
    """Moves one request's body into `sink`, through `progress` if there is one.

    `received` counts what is safely in the sink, also after an error.
    """

    sink: Sink
    progress: Progress | None
    received: int = 0
    _batch: list[bytes] = field(default_factory=list)
    _running: asyncio.Future[None] | None = None

    async def receive(
        self, request: Request, expected: int | None, admit: Callable[[int], Awaitable[None]]
    ) -> None:
        """Take the whole body. `admit` is asked before more than was announced is kept.

        Raises:
            SizeMismatchError: another number of bytes than `expected`.
            InvalidRequestError: the client hung up or paused too long.
            QuotaExceededError: `admit` refused.
            StorageError: the bytes could not be kept.
        """
        try:
            await self._receive(request, expected, admit)
        finally:
            await self._settle()

    async def _receive(
        self, request: Request, expected: int | None, admit: Callable[[int], Awaitable[None]]
    ) -> None:
        taken, batched = 0, 0
        try:
            while (piece := await request.piece()) is not None:
                taken += len(piece)
                batched += len(piece)
                _require_not_above(taken, expected)
                self._batch.append(piece)
                if batched >= BATCH_BYTES:
                    if expected is None:
                        await admit(taken)
                    await self._hand_over()
                    batched = 0
        except InvalidRequestError:
            # What arrived before the client went away is kept, for it may come back and resume.
            await self._hand_over()
            raise
        if expected is None:
            await admit(taken)
        if expected is not None and taken != expected:
            raise SizeMismatchError(
                f"the body has {taken} bytes, {expected} were announced", hint="send it again"
            )
        await self._hand_over()

    async def _hand_over(self) -> None:
        """Give the batch to a thread once the one before it is done."""
        await self._settle()
        batch, self._batch = self._batch, []
        if batch:
            self._running = asyncio.ensure_future(self._keep(batch))

    async def _settle(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            await running

    async def _keep(self, batch: Sequence[bytes]) -> None:
        hashing = transfer(_hash, self.progress, batch) if self.progress else None
        try:
            await transfer(self.sink.write, batch)
        finally:
            if hashing:
                await hashing
        self.received += sum(map(len, batch))


def finish_verified(
    store: BlobStore, upload: str, digest: Digest, progress: Progress | None, size: int
) -> NewBlob:
    """The finished object of the upload's `size` bytes, once they are known to have `digest`.

    Where the running hash does not cover them, the finished object is read, and removed if it is wrong.

    Raises:
        DigestMismatchError: they have another digest.
        SizeMismatchError, ConflictError, StorageError, UnavailableError: see `Finisher.finish`.
    """
    covered = progress is not None and (progress.algorithm, progress.size) == (
        digest.algorithm,
        size,
    )
    if progress is not None and covered:
        _require(Digest.finish(digest.algorithm, progress.hasher), digest)
    blob = NewBlob(digest, size, store.finish(upload, size=size))
    if not covered:
        require_content(store, blob)
    return blob


def require_content(store: BlobStore, blob: NewBlob) -> None:
    """Read a finished object, and remove and refuse it if it is not what `blob` says.

    Raises:
        DigestMismatchError: its bytes have another digest.
        StorageError, UnavailableError: it cannot be read.
    """
    hasher = new_hasher(blob.digest.algorithm)
    with closing(store.read(blob.location)) as pieces:
        for piece in pieces:
            hasher.update(piece)
    try:
        _require(Digest.finish(blob.digest.algorithm, hasher), blob.digest)
    except DigestMismatchError:
        store.delete(blob.location)
        raise


def _require(actual: Digest, digest: Digest) -> None:
    if actual != digest:
        raise DigestMismatchError(
            f"the upload has digest {actual}, not {digest}",
            hint="start a new upload; the bytes were damaged or the digest is wrong",
        )


def _hash(progress: Progress, batch: Sequence[bytes]) -> None:
    for piece in batch:
        progress.hasher.update(piece)
    progress.size += sum(map(len, batch))


def _require_not_above(taken: int, expected: int | None) -> None:
    if expected is not None and taken > expected:
        raise SizeMismatchError(
            f"the body has more than the {expected} bytes announced", hint="send it again"
        )
