"""`/log` as C2SP tlog-tiles wants it, `/api/v1/log` for submissions and preimages, the trusted root."""

from __future__ import annotations

from typing import Any, Final

from litestar import Request, Response, Router, get, post
from litestar.params import FromPath
from memcube_protocol.errors import InvalidRequestError, MemcubeError, NotFoundError
from memcube_signing.transparency import tiles, trusted_root

from memcube_registry.accounts.authentication import principal_of
from memcube_registry.accounts.principal import Principal
from memcube_registry.accounts.scopes import Act
from memcube_registry.database import utc_now
from memcube_registry.delivery.service import Part, authorize, require_allowed, role_in
from memcube_registry.log import service
from memcube_registry.log.intake import Arrival
from memcube_registry.services import Services, services_of

Asked = Request[Any, Any, Any]
_JSON: Final = "application/json"
_FOREVER: Final = {"cache-control": "public, max-age=31536000, immutable"}
_NO_STORE: Final = {"cache-control": "no-store"}


@get("/log/checkpoint", sync_to_thread=True, include_in_schema=False)
def get_checkpoint(request: Asked) -> Response[str]:
    """The newest checkpoint as a signed note."""
    note = services_of(request).log.checkpoint()
    return Response(note.text, media_type="text/plain; charset=utf-8", headers=_NO_STORE)


@get("/log/tile/{path:path}", sync_to_thread=True, include_in_schema=False)
def get_tile(request: Asked, path: FromPath[str]) -> Response[bytes]:
    """A tile, an entry bundle, or a bundle of tags: what its path names never changes."""
    content = services_of(request).log.tile(tiles.parse_path(path.removeprefix("/")))
    return Response(content, media_type="application/octet-stream", headers=_FOREVER)


@get("/.well-known/trusted_root.json", sync_to_thread=True, include_in_schema=False)
def get_trusted_root(request: Asked) -> Response[dict[str, Any]]:
    """How cosign and its kin learn to trust this log."""
    document = trusted_root.write(services_of(request).log.key, service.since(utc_now()))
    return Response(document, headers={"cache-control": "public, max-age=300"})


@post("/log/entries", tags=["log"], status_code=201)
async def add_entry(request: Asked) -> Response[bytes]:
    """Log a signed statement about a cube that you may push to. The same again has the same entry."""
    arrival = Arrival(principal_of(request), await request.body())
    content = await services_of(request).log.take(arrival)
    return Response(content, status_code=201, media_type=_JSON, headers=_NO_STORE)


@get("/log/entries/{leaf_hash:str}", sync_to_thread=True, tags=["log"])
def get_entry(request: Asked, leaf_hash: FromPath[str]) -> Response[bytes]:
    """The entry whose leaf has this SHA-256 (64 hex digits), proved against the newest checkpoint."""
    content = service.shown(services_of(request).log.entry(_sha256(leaf_hash)))
    return Response(content, media_type=_JSON, headers=_NO_STORE)


@get("/log/preimages/{digest:str}", sync_to_thread=True, tags=["log"])
def get_preimage(request: Asked, digest: FromPath[str]) -> Response[bytes]:
    """The statement whose signed bytes have this SHA-256, if you may read its cube."""
    services, principal = services_of(request), principal_of(request)
    for found in services.log.preimages(_sha256(digest).hex()):
        if _may_read(services, principal, found.repository):
            content = services.log.content(found)
            return Response(content, media_type=_JSON, headers=_NO_STORE)
    raise NotFoundError(
        "there is no such statement here, or it is about a private cube",
        hint="check the hash, or log in as somebody who may see the cube",
    )


@get("/log/releases/{name:path}", sync_to_thread=True, tags=["log"])
def list_releases(request: Asked, name: FromPath[str]) -> list[dict[str, Any]]:
    """The places that releases of a cube have taken in the log, oldest first."""
    services, principal, repository = services_of(request), principal_of(request), name[1:]
    with services.database.read() as session:
        if require_allowed(session, principal, repository, Act.WRITE) is None:
            return []
    return [
        {
            "origin": row.origin,
            "publishers": row.publishers,
            "seq": row.seq,
            "manifest": row.manifest,
        }
        for row in services.log.releases(repository)
    ]


@get("/log/namespaces/{namespace:str}", sync_to_thread=True, tags=["log"])
def get_namespace(request: Asked, namespace: FromPath[str]) -> dict[str, str]:
    """The key by which a namespace's own people find its entries among the tags in `/log/tile/names`."""
    services, principal = services_of(request), principal_of(request)
    with services.database.read() as session:
        role = role_in(session, principal, namespace)
    if role is None:
        raise NotFoundError(
            "there is no such namespace, or it is not yours", hint="log in as one of its people"
        )
    return {"namespace": namespace, "key": services.log.names.key(namespace).hex()}


def _may_read(services: Services, principal: Principal, repository: str) -> bool:
    try:
        with services.database.read() as session:
            authorize(session, principal, repository, Act.READ, part=Part.DESCRIPTION)
    except MemcubeError:
        return False
    return True


def _sha256(text: str) -> bytes:
    if len(text) != 64 or not set(text) <= set("0123456789abcdef"):
        raise InvalidRequestError(
            f"{text[:80]!r} is not a SHA-256", hint="write it as 64 lower-case hex digits"
        )
    return bytes.fromhex(text)


router: Final = Router(
    "/api/v1",
    route_handlers=[add_entry, get_entry, get_preimage, list_releases, get_namespace],
)
