"""HTTP of uploads: POST, PATCH, PUT, GET and DELETE (distribution specification, "Pushing blobs")."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from memcube_protocol import limits
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    DigestMismatchError,
    InvalidRequestError,
    MemcubeError,
    NotFoundError,
    RangeMismatchError,
    SizeMismatchError,
    StorageError,
)
from sqlmodel import Session

from memcube_registry.accounts.authentication import principal_in
from memcube_registry.accounts.principal import Principal
from memcube_registry.blobs import service, uploading
from memcube_registry.blobs.ranges import chunk_span
from memcube_registry.blobs.receiving import Hashes, Progress, Receiver, finish_verified
from memcube_registry.blobs.uploading import NewBlob, OpenUpload
from memcube_registry.database import Database, utc_now
from memcube_registry.http.exchange import Answer, Request, Response, serve, transfer
from memcube_registry.storage import BlobStore

# A reservation costs a transaction; uploads this small are only checked.
UNRECORDED_BYTES = limits.MIB


@dataclass(frozen=True, slots=True)
class UploadRoutes:
    """Answers requests about uploads."""

    database: Database
    store: BlobStore
    hashes: Hashes = field(default_factory=Hashes)

    async def post(self, request: Request, name: str) -> Response:
        """Begin an upload: 202; or 201 where a mount, or the body itself, already ends it."""
        principal = principal_in(request.scope)
        whole, mount = request.argument("digest"), request.argument("mount")
        digest = Digest.parse(whole) if whole else None
        mounted = Digest.parse(mount) if mount else None
        source = request.argument("from")
        upload = await serve(self._begin, principal, name, mounted, source)
        if upload is None:
            assert mounted, "nothing else spares an upload"
            return _created(name, mounted)
        if digest is None:
            return _accepted(upload, upload.size_bytes)
        try:
            return await self._finish(request, principal, upload, digest)
        except MemcubeError:
            await serve(self._discard, principal, upload)
            raise

    async def patch(self, request: Request, name: str, upload_id: str) -> Response:
        """Take one more chunk: 202; 416 where it does not continue the upload."""
        principal = principal_in(request.scope)
        upload = await self._resume(principal, name, upload_id)
        progress = self.hashes.take(upload_id, None, upload.size_bytes)
        size = await self._take_body(request, upload, progress)
        await serve(self._record, upload_id, size)
        return _accepted(upload, size)

    async def put(self, request: Request, name: str, upload_id: str) -> Response:
        """Take the last chunk, if there is one, and turn the upload into a blob: 201."""
        principal = principal_in(request.scope)
        digest = Digest.parse(_require_digest(request))
        upload = await self._resume(principal, name, upload_id)
        return await self._finish(request, principal, upload, digest)

    async def get(self, request: Request, name: str, upload_id: str) -> Response:
        """How far the upload is: 204."""
        upload = await self._resume(principal_in(request.scope), name, upload_id)
        return Answer(204, _progress(upload, upload.size_bytes))

    async def delete(self, request: Request, name: str, upload_id: str) -> Response:
        """Forget the upload: 204."""
        principal = principal_in(request.scope)
        await serve(uploading.cancel, self.database, self.store, principal, name, upload_id)
        return Answer(204)

    def _begin(
        self, principal: Principal, name: str, mounted: Digest | None, source: str | None
    ) -> OpenUpload | None:
        """A new upload; None where the blob `mounted` was linked instead."""
        now = utc_now()
        with self.database.glance() as connection:
            may_begin = uploading.has_few_open(connection, principal)

        def begin(session: Session) -> OpenUpload | None:
            if mounted and service.mount(session, principal, name, mounted, source, now):
                return None
            if not may_begin:
                raise uploading.too_many_open()
            return uploading.begin(session, principal, name, now)

        # It relies on the cube alone, which the new row locks by its key; counting what others hold or begin
        # in SERIALIZABLE transactions would make them begin anew. A mount relies on more.
        return self.database.run(begin, locks=mounted is None)

    async def _resume(self, principal: Principal, name: str, upload_id: str) -> OpenUpload:
        return await serve(uploading.resume, self.database, self.store, principal, name, upload_id)

    async def _finish(
        self, request: Request, principal: Principal, upload: OpenUpload, digest: Digest
    ) -> Response:
        progress = self.hashes.take(upload.id, digest.algorithm, upload.size_bytes)
        size = await self._take_body(request, upload, progress)
        try:
            blob = await transfer(finish_verified, self.store, upload.id, digest, progress, size)
        except DigestMismatchError:
            await serve(self._discard, principal, upload)
            raise
        await serve(self._publish, principal, upload, blob)
        return _created(upload.repository, digest)

    def _publish(self, principal: Principal, upload: OpenUpload, blob: NewBlob) -> None:
        uploading.complete(self.database, self.store, principal, upload, blob, utc_now())
        with suppress(MemcubeError):  # else garbage collection lets go of it
            self.store.abort(upload.id)

    async def _take_body(
        self, request: Request, upload: OpenUpload, progress: Progress | None
    ) -> int:
        """Append the request's body; returns the upload's new size."""
        expected = _expected_bytes(request, upload)
        await serve(self._admit, upload, expected or 0)
        if expected == 0:
            return upload.size_bytes
        sink = await serve(self.store.open, upload.id, size=upload.size_bytes)
        receiver = Receiver(sink, progress)
        try:
            await receiver.receive(request, expected, partial(self._announce, upload))
        except MemcubeError as error:
            await serve(self._interrupted, upload, receiver, error)
            raise
        finally:
            await transfer(sink.close)
        size = upload.size_bytes + receiver.received
        if progress:
            self.hashes.keep(upload.id, progress)
        return size

    def _admit(self, upload: OpenUpload, extra_bytes: int) -> None:
        if extra_bytes > UNRECORDED_BYTES:
            now = utc_now()
            self.database.run(lambda session: uploading.announce(session, upload, extra_bytes, now))
            return
        with self.database.read() as session:
            uploading.require_room(session, upload, extra_bytes)

    async def _announce(self, upload: OpenUpload, extra_bytes: int) -> None:
        await serve(self._admit, upload, extra_bytes)

    def _interrupted(self, upload: OpenUpload, receiver: Receiver, error: MemcubeError) -> None:
        """After a failure: keep what a client may resume, give back what a full disk needs."""
        if isinstance(error, StorageError | SizeMismatchError):
            receiver.sink.undo()
        receiver.sink.close()
        self._record(upload.id, self.store.size(upload.id))

    def _record(self, upload_id: str, size: int) -> None:
        now = utc_now()
        self.database.run(lambda session: uploading.record(session, upload_id, size, now))

    def _discard(self, principal: Principal, upload: OpenUpload) -> None:
        """Cancel the upload, unless that has happened already."""
        with suppress(NotFoundError):
            uploading.cancel(self.database, self.store, principal, upload.repository, upload.id)


class ChunkOutOfOrderError(RangeMismatchError):
    """A chunk that does not continue its upload; carries the headers that say where it stands."""

    def __init__(self, upload: OpenUpload, start: int) -> None:
        super().__init__(
            f"the chunk starts at byte {start}, the upload goes on at {upload.size_bytes}",
            hint="ask for the upload's status and go on from there",
        )
        self.headers = _progress(upload, upload.size_bytes)


def _expected_bytes(request: Request, upload: OpenUpload) -> int | None:
    """Length of the body as announced, after its place was found to continue the upload."""
    length = request.content_length
    place = request.header(b"content-range")
    if place is None:
        return length
    span = chunk_span(place)
    if span.start != upload.size_bytes:
        raise ChunkOutOfOrderError(upload, span.start)
    if length is not None and length != span.size:
        raise SizeMismatchError(
            f"Content-Range names {span.size} bytes, Content-Length {length}",
            hint="send both for the same chunk",
        )
    return span.size


def _require_digest(request: Request) -> str:
    digest = request.argument("digest")
    if digest is None:
        raise InvalidRequestError(
            "the digest is missing", hint="end an upload with PUT <location>?digest=…"
        )
    return digest


def _progress(upload: OpenUpload, size: int) -> list[tuple[bytes, bytes]]:
    location = f"/v2/{upload.repository}/blobs/uploads/{upload.id}"
    return [
        (b"location", location.encode()),
        (b"range", b"0-%d" % max(0, size - 1)),
        (b"docker-upload-uuid", upload.id.encode()),
    ]


def _accepted(upload: OpenUpload, size: int) -> Answer:
    return Answer(202, _progress(upload, size))


def _created(name: str, digest: Digest) -> Answer:
    headers = [
        (b"location", f"/v2/{name}/blobs/{digest}".encode()),
        (b"docker-content-digest", str(digest).encode()),
    ]
    return Answer(201, headers)
