"""HTTP of blobs: GET, HEAD and DELETE (distribution specification, "Pulling blobs")."""

from __future__ import annotations

from dataclasses import dataclass

from memcube_protocol.digest import Digest

from memcube_registry.accounts.authentication import principal_in
from memcube_registry.accounts.principal import Principal
from memcube_registry.blobs import sending, service
from memcube_registry.blobs.sending import Offer
from memcube_registry.blobs.service import StoredBlob
from memcube_registry.database import Database, utc_now
from memcube_registry.http.exchange import Answer, Request, Response, serve
from memcube_registry.storage import BlobStore


@dataclass(frozen=True, slots=True)
class BlobRoutes:
    """Answers requests for blobs."""

    database: Database
    store: BlobStore

    async def get(self, request: Request, name: str, digest: Digest) -> Response:
        """The blob, whole or in part; 304 where the client has it already."""
        blob = await serve(self._find, principal_in(request.scope), name, digest)
        return await sending.send(request, self.store, _offer(blob))

    async def head(self, request: Request, name: str, digest: Digest) -> Response:
        """The blob's length."""
        principal = principal_in(request.scope)
        blob = await serve(service.look, self.database, principal, name, digest, utc_now())
        return Answer(200, _offer(blob).headers, size=blob.size_bytes)

    async def delete(self, request: Request, name: str, digest: Digest) -> Response:
        """202 once the blob is no longer part of the repository."""
        principal = principal_in(request.scope)
        await serve(
            self.database.run,
            lambda session: service.delete(session, principal, name, digest),
        )
        return Answer(202)

    def _find(self, principal: Principal, name: str, digest: Digest) -> StoredBlob:
        with self.database.glance() as connection:
            return service.find(connection, principal, name, digest)


def _offer(blob: StoredBlob) -> Offer:
    digest = str(blob.digest)
    headers = [
        (b"docker-content-digest", digest.encode()),
        # Content under a digest never changes; who may have it does, so only for the client's own cache.
        (b"cache-control", b"private, max-age=31536000, immutable"),
    ]
    return Offer(blob, digest, headers)
