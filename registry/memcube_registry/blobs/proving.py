"""Ends direct uploads: joins the parts, proves the digest, and only then makes the blob visible.

A whole object was checked by the store when it came. Of parts the store knows but a checksum of
checksums, which says nothing about the blob: they are read back and hashed, by one process at a time.
"""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final

from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    ConflictError,
    DigestMismatchError,
    MemcubeError,
    SizeMismatchError,
    UnavailableError,
)
from sqlalchemy import update
from sqlmodel import Session, col

from memcube_registry.accounts.principal import Principal
from memcube_registry.blobs import uploading
from memcube_registry.blobs.direct import DirectUploads, OpenDirect
from memcube_registry.blobs.models import DirectUpload
from memcube_registry.blobs.uploading import NewBlob
from memcube_registry.database import utc_now
from memcube_registry.http.exchange import serve
from memcube_registry.observability.metrics import Metrics
from memcube_registry.observability.requests import log
from memcube_registry.storage.ahead import read_ahead
from memcube_registry.storage.direct import HeldPart

WAIT_S: Final = 25.0
"""How long one request waits for an upload to be read back: less than clients and proxies wait."""
LEASE: Final = timedelta(seconds=60)
"""How long a process that reads back may be silent before another one takes over."""
_RENEWAL_S: Final = 10.0
_THREADS: Final = 4
_AT_ONCE: Final = 3
"""Uploads of one account that are read back at once: others find a thread."""
_KEPT: Final = 1000
_TURN_S: Final = 1.0
"""How long a request waits that finds no thread free for its account."""


class Proof(StrEnum):
    """What shows that a blob has the bytes of its digest."""

    CHECKSUM = "checksum"
    READ_BACK = "readBack"


@dataclass(frozen=True, slots=True)
class Proven:
    """The end of a direct upload: the blob is visible."""

    digest: Digest
    size_bytes: int
    proof: Proof


@dataclass(frozen=True, slots=True)
class Underway:
    """A direct upload of which so many bytes have been read back."""

    read_back_bytes: int


@dataclass(slots=True)
class _Job:
    """A proof in the making, and for whom."""

    account_id: int | None
    size: int = 0
    future: Future[Proven | Underway] | None = None


class Prover:
    """Ends the direct uploads of one process. `stop` before the database is closed."""

    def __init__(self, uploads: DirectUploads, metrics: Metrics) -> None:
        self.uploads = uploads
        self._metrics = metrics
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="read-back")
        self._stopped = threading.Event()
        self._name = uuid.uuid4().hex
        self._jobs: dict[str, _Job] = {}

    async def complete(self, principal: Principal, upload_id: str) -> Proven | Underway:
        """Prove the upload's digest and make it a blob; after `WAIT_S` say how far that is.

        Raises:
            ConflictError: bytes are missing, or the upload was ended meanwhile.
            DigestMismatchError, SizeMismatchError: other bytes came; the upload is over.
            NotFoundError, QuotaExceededError, StorageError, UnavailableError …
        """
        if self._stopped.is_set():
            raise _stopping()
        job = self._jobs.get(upload_id)
        if job is None or job.account_id != principal.account_id:
            direct = await serve(self.uploads.resume, principal, upload_id)
            if direct.is_whole:
                return await serve(self._accept_whole, principal, direct)
            if self._running_for(principal) >= _AT_ONCE:
                await asyncio.sleep(_TURN_S)
                return Underway(0)
            job = self._start(principal, direct)
        assert job.future is not None, "a job is kept once it runs"
        running = asyncio.wrap_future(job.future)
        await asyncio.wait({running}, timeout=WAIT_S)
        if not job.future.done():
            return Underway(job.size)
        if self._jobs.get(upload_id) is job:  # else another request has begun anew since
            del self._jobs[upload_id]
        return job.future.result()

    def stop(self) -> None:
        """Let no further upload be proven here, and wait for what runs to notice."""
        self._stopped.set()
        self._threads.shutdown(cancel_futures=True)

    def _running_for(self, principal: Principal) -> int:
        return sum(
            job.account_id == principal.account_id
            and job.future is not None
            and not job.future.done()
            for job in self._jobs.values()
        )

    def _start(self, principal: Principal, direct: OpenDirect) -> _Job:
        job = self._jobs.get(direct.upload.id)
        if job is None or job.account_id != principal.account_id:
            if len(self._jobs) >= _KEPT:
                self._jobs = {
                    k: j for k, j in self._jobs.items() if j.future and not j.future.done()
                }
            job = _Job(principal.account_id)
            job.future = self._threads.submit(self._prove, principal, direct, job)
            # Nobody may ask again: what went wrong must not be reported as unheard of.
            job.future.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._jobs[direct.upload.id] = job
        return job

    def _accept_whole(self, principal: Principal, direct: OpenDirect) -> Proven:
        size = self.uploads.store.arrived(direct.location)
        if size is None:
            raise _incomplete((1,))
        if size != direct.size_bytes:
            raise self._refused(direct, _wrong_size(direct, size))
        return self._publish(principal, direct, Proof.CHECKSUM)

    def _prove(self, principal: Principal, direct: OpenDirect, job: _Job) -> Proven | Underway:
        """Join, read back, publish; or find that another process does."""
        read_by_another = self._claim(direct)
        if read_by_another is not None:
            return Underway(read_by_another)
        try:
            self._join(direct)
            self._read_back(direct, job)
        except (DigestMismatchError, SizeMismatchError) as error:
            raise self._refused(direct, error) from None
        except MemcubeError:
            self._release(direct)
            raise
        return self._publish(principal, direct, Proof.READ_BACK)

    def _join(self, direct: OpenDirect) -> None:
        """Make the parts one object, unless an earlier attempt has."""
        store, location = self.uploads.store, direct.location
        size = store.arrived(location)
        if size is None and (held := store.held(location, direct.parts_id)) is not None:
            _require_all(direct, held)
            store.join(location, direct.parts_id, held)
            size = store.arrived(location)
        if size is None:
            raise ConflictError(
                "the store has forgotten the upload", hint="cancel the upload and start a new one"
            )
        if size != direct.size_bytes:
            raise _wrong_size(direct, size)

    def _read_back(self, direct: OpenDirect, job: _Job) -> None:
        hasher, renewed_s = direct.digest.hasher(), time.monotonic()
        began_s = renewed_s
        with closing(read_ahead(self.uploads.blobs, direct.location, direct.size_bytes)) as pieces:
            for piece in pieces:
                hasher.update(piece)
                job.size += len(piece)
                if self._stopped.is_set():
                    raise _stopping()
                if time.monotonic() - renewed_s > _RENEWAL_S:
                    self._renew(direct, job.size)
                    renewed_s = time.monotonic()
        self._metrics.count_read_back(job.size)
        log.info(
            "a direct upload was read back",
            digest=str(direct.digest),
            read_back_bytes=job.size,
            duration_s=round(time.monotonic() - began_s, 3),
        )
        if job.size != direct.size_bytes:
            raise UnavailableError(
                f"the store returned {job.size} of {direct.size_bytes} bytes", hint="try again"
            )
        actual = Digest.finish(direct.digest.algorithm, hasher)
        if actual != direct.digest:
            raise DigestMismatchError(
                f"the upload has digest {actual}, not {direct.digest}",
                hint="start a new upload; the bytes were damaged or the digest is wrong",
            )

    def _publish(self, principal: Principal, direct: OpenDirect, proof: Proof) -> Proven:
        blob = NewBlob(direct.digest, direct.size_bytes, direct.location)
        uploads, now = self.uploads, utc_now()
        uploading.complete(uploads.database, uploads.blobs, principal, direct.upload, blob, now)
        self._metrics.count_direct_upload(proof.value)
        log.info("a direct upload became a blob", digest=str(direct.digest), proof=proof.value)
        return Proven(direct.digest, direct.size_bytes, proof)

    def _refused(self, direct: OpenDirect, error: MemcubeError) -> MemcubeError:
        """`error`, once nothing is left of the upload whose bytes it blames."""
        log.warning("a direct upload was refused", digest=str(direct.digest), error=str(error))
        self.uploads.discard(direct.upload.id)
        return error

    def _claim(self, direct: OpenDirect) -> int | None:
        """None once this process is the one that reads back; else how far another one is."""

        def claim(session: Session) -> int | None:
            now = utc_now()
            row = session.get(DirectUpload, direct.upload.id)
            if row is None:
                raise uploading.unknown_upload(direct.upload.id)
            if row.read_back_until and row.read_back_until > now and row.read_back_by != self._name:
                return row.read_back_bytes
            row.read_back_by, row.read_back_until = self._name, now + LEASE
            row.read_back_bytes = 0
            session.add(row)
            return None

        return self.uploads.database.run(claim)

    def _renew(self, direct: OpenDirect, read_bytes: int) -> None:
        """Say that this process is still at work, so that the upload is neither taken over nor swept.

        Raises:
            ConflictError: the upload has been ended, or another process has taken over.
        """

        def renew(session: Session) -> bool:
            now = utc_now()
            row = session.get(DirectUpload, direct.upload.id)
            if row is None or row.read_back_by != self._name:
                return False
            row.read_back_until, row.read_back_bytes = now + LEASE, read_bytes
            session.add(row)
            uploading.record(session, direct.upload.id, direct.size_bytes, now)
            return True

        if not self.uploads.database.run(renew):
            raise ConflictError("the upload has just ended", hint="start a new upload")

    def _release(self, direct: OpenDirect) -> None:
        release = (
            update(DirectUpload)
            .where(
                col(DirectUpload.upload_id) == direct.upload.id,
                col(DirectUpload.read_back_by) == self._name,
            )
            .values(read_back_until=None)
        )
        self.uploads.database.run(lambda session: session.execute(release))


def _require_all(direct: OpenDirect, held: Sequence[HeldPart]) -> None:
    right = {part.number for part in held if part.size == direct.part_size(part.number)}
    missing = [number for number in range(1, direct.part_count + 1) if number not in right]
    if missing or len(held) != direct.part_count:
        raise _incomplete(missing)


def _stopping() -> UnavailableError:
    return UnavailableError("the server is shutting down", hint="ask another replica, or again")


def _incomplete(numbers: Sequence[int]) -> ConflictError:
    named = ", ".join(map(str, numbers[:20]))
    return ConflictError(
        f"{len(numbers)} parts have not arrived: {named}",
        hint="put them, then complete the upload again",
    )


def _wrong_size(direct: OpenDirect, size: int) -> SizeMismatchError:
    return SizeMismatchError(
        f"the upload has {size} bytes, {direct.size_bytes} were announced",
        hint="start a new upload",
    )
