"""HTTP of blobs: GET, HEAD and DELETE (distribution specification, "Pulling blobs")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from memcube_protocol.digest import Digest
from memcube_protocol.errors import NotFoundError, StorageError

from memcube_registry.accounts.authentication import principal_in
from memcube_registry.accounts.principal import Principal
from memcube_registry.blobs import service
from memcube_registry.blobs.ranges import Span, requested_span
from memcube_registry.blobs.service import StoredBlob
from memcube_registry.database import Database, utc_now
from memcube_registry.exchange import (
    Answer,
    Request,
    Response,
    StreamAnswer,
    serve,
)
from memcube_registry.storage import BlobStore

MEDIA_TYPE: Final = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class BlobRoutes:
    """Answers requests for blobs."""

    database: Database
    store: BlobStore

    async def get(self, request: Request, name: str, digest: Digest) -> Response:
        """The blob, whole or in part; 304 where the client has it already."""
        blob = await serve(self._find, principal_in(request.scope), name, digest)
        if is_known_to(request, blob.digest):
            return Answer(304, _headers(blob))
        if url := self.store.url(blob.location, media_type=MEDIA_TYPE):
            return Answer(307, [(b"location", url.encode("ascii")), *_headers(blob)])
        span = _span(request, blob)
        return await serve(self._content, blob, span)

    async def head(self, request: Request, name: str, digest: Digest) -> Response:
        """The blob's length."""
        principal = principal_in(request.scope)
        blob = await serve(service.look, self.database, principal, name, digest, utc_now())
        return Answer(200, _headers(blob), size=blob.size_bytes)

    async def delete(self, request: Request, name: str, digest: Digest) -> Response:
        """202 once the blob is no longer part of the repository."""
        principal = principal_in(request.scope)
        await serve(
            self.database.run,
            lambda session: service.delete(session, principal, name, digest),
        )
        return Answer(202)

    def _find(self, principal: Principal, name: str, digest: Digest) -> StoredBlob:
        with self.database.read() as session:
            return service.find(session, principal, name, digest)

    def _content(self, blob: StoredBlob, span: Span | None) -> Response:
        headers = _headers(blob)
        start, stop = (span.start, span.stop) if span else (0, blob.size_bytes)
        try:
            pieces = self.store.read(blob.location, start=start, stop=stop)
        except NotFoundError as error:
            raise _lost(blob) from error
        if pieces.size != stop - start:
            pieces.close()
            raise _lost(blob)
        if span:
            place = f"bytes {start}-{stop - 1}/{blob.size_bytes}"
            headers.append((b"content-range", place.encode()))
        return StreamAnswer(206 if span else 200, headers, pieces)


def is_known_to(request: Request, digest: Digest) -> bool:
    """Whether `If-None-Match` says that the client holds this content."""
    known = request.header(b"if-none-match")
    if known is None:
        return False
    return known.strip() == "*" or f'"{digest}"' in (
        tag.strip().removeprefix("W/") for tag in known.split(",")
    )


def _span(request: Request, blob: StoredBlob) -> Span | None:
    """What `Range` asks for, unless `If-Range` makes it conditional on other content."""
    wanted = request.header(b"range")
    condition = request.header(b"if-range")
    if wanted is None or (condition is not None and condition.strip() != f'"{blob.digest}"'):
        return None
    return requested_span(wanted, blob.size_bytes)


def _headers(blob: StoredBlob) -> list[tuple[bytes, bytes]]:
    digest = str(blob.digest).encode()
    return [
        (b"content-type", MEDIA_TYPE.encode()),
        (b"docker-content-digest", digest),
        (b"etag", b'"' + digest + b'"'),
        (b"accept-ranges", b"bytes"),
        # Content under a digest never changes; who may have it does, so only for the client's own cache.
        (b"cache-control", b"private, max-age=31536000, immutable"),
        (b"x-content-type-options", b"nosniff"),
    ]


def _lost(blob: StoredBlob) -> StorageError:
    return StorageError(
        f"the bytes of blob {blob.digest} are damaged or lost",
        hint="push the blob again; the registry's operator should check its disk",
    )
