"""HTTP of the Hub's API: parses a request, asks the service, and writes the answer as the Hub would."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import parse_qs, quote, urlencode

from memcube_protocol import limits
from memcube_protocol.errors import InvalidRequestError, UnauthenticatedError
from sqlmodel import Session

from memcube_registry.accounts.principal import Principal
from memcube_registry.blobs import sending
from memcube_registry.blobs.sending import Offer
from memcube_registry.database import Database
from memcube_registry.http.exchange import Answer, Headers, Request, Response, serve
from memcube_registry.hub import service, showing
from memcube_registry.hub.addresses import Address
from memcube_registry.hub.service import HeldFile, Snapshot
from memcube_registry.hub.showing import ENTRIES_AT_ONCE
from memcube_registry.storage import BlobStore

Result = TypeVar("Result")

PATHS_BODY_BYTES: Final = limits.MIB
_JSON: Final = (b"content-type", b"application/json; charset=utf-8")
_PRIVATE: Final = (b"cache-control", b"private, no-cache")


@dataclass(frozen=True, slots=True)
class HubRoutes:
    """Answers requests of the Hub's clients. `url` is how they reach this registry."""

    database: Database
    store: BlobStore
    url: str

    async def whoami(self, principal: Principal) -> Response:
        """Whose the token is.

        Raises:
            UnauthenticatedError: there is none.
        """
        if principal.is_anonymous:
            raise UnauthenticatedError("log in first", hint="set HF_TOKEN to an API token")
        names = await self._read(lambda session: service.organisations_of(session, principal))
        return _json(showing.whoami(principal, names))

    async def info(self, request: Request, principal: Principal, address: Address) -> Response:
        """The cube at a revision."""
        snapshot = await self._snapshot(principal, address)
        with_files = request.argument("blobs") is not None
        return _json(showing.info(snapshot, with_files=with_files), _of_commit(snapshot.commit))

    async def refs(self, principal: Principal, address: Address) -> Response:
        """The cube's tags."""
        found = await self._read(
            lambda session: service.find_revisions(session, principal, address.repository)
        )
        return _json(showing.refs(found))

    async def tree(self, request: Request, principal: Principal, address: Address) -> Response:
        """Files and folders, in pages: the address of the next one stands in `Link`."""
        snapshot = await self._snapshot(principal, address)
        recursive = _flag(request, "recursive")
        found = showing.entries(snapshot, address.path, recursive=recursive)
        if address.path and not found:
            raise service.unknown_file(address.path, snapshot.commit)
        after, count = request.argument("cursor") or "", _count(request)
        page = [entry for entry in found if entry["path"] > after]
        headers = _of_commit(snapshot.commit)
        if len(page) > count:
            query = {"recursive": str(recursive).lower(), "limit": count}
            query["cursor"] = page[count - 1]["path"]
            headers.append(self._next(request, query))
        return _json(page[:count], headers)

    async def paths_info(
        self, request: Request, principal: Principal, address: Address
    ) -> Response:
        """What lies at the paths that the form in the body names."""
        wanted = _paths(await request.body(PATHS_BODY_BYTES, "the list of paths"))
        snapshot = await self._snapshot(principal, address)
        return _json(showing.entries_at(snapshot, wanted), _of_commit(snapshot.commit))

    async def file(self, request: Request, principal: Principal, address: Address) -> Response:
        """A file: as the distribution API sends it to a GET, without its bytes to a HEAD."""
        name, revision, path = address.repository, address.revision, address.path
        held = await self._read(
            lambda session: service.find_file(session, principal, name, revision, path)
        )
        offer = _offer(held)
        if request.method == "GET" or sending.is_known_to(request, offer.entity_tag):
            return await sending.send(request, self.store, offer)
        return Answer(200, offer.headers, size=held.blob.size_bytes)

    async def _snapshot(self, principal: Principal, address: Address) -> Snapshot:
        name, revision = address.repository, address.revision or service.DEFAULT
        return await self._read(
            lambda session: service.find_snapshot(session, principal, name, revision)
        )

    async def _read(self, work: Callable[[Session], Result]) -> Result:
        def read() -> Result:
            with self.database.read() as session:
                return work(session)

        return await serve(read)

    def _next(self, request: Request, query: dict[str, Any]) -> tuple[bytes, bytes]:
        path = request.scope["raw_path"].decode("ascii")
        return b"link", f'<{self.url}{path}?{urlencode(query)}>; rel="next"'.encode()


def _offer(held: HeldFile) -> Offer:
    blob = held.blob
    tag = showing.entity_tag(blob.digest)
    file_name = quote(held.path.rpartition("/")[2], safe="")
    headers = [
        *_of_commit(held.commit),
        (b"x-linked-etag", f'"{tag}"'.encode()),
        (b"x-linked-size", b"%d" % blob.size_bytes),
        (b"content-disposition", f"attachment; filename*=UTF-8''{file_name}".encode()),
    ]
    return Offer(blob, tag, headers)


def _of_commit(commit: str) -> list[tuple[bytes, bytes]]:
    return [(b"x-repo-commit", commit.encode()), _PRIVATE]


def _json(value: object, headers: Headers = (_PRIVATE,)) -> Answer:
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    return Answer(200, [_JSON, *headers], body)


def _flag(request: Request, name: str) -> bool:
    return (request.argument(name) or "").lower() in ("true", "1")


def _count(request: Request) -> int:
    text = request.argument("limit")
    if text is None:
        return ENTRIES_AT_ONCE
    if not (text.isascii() and text.isdigit() and 0 < len(text) <= 9 and int(text)):
        raise InvalidRequestError(f"limit={text[:40]!r} is not a number", hint="send 1 to 1000")
    return min(int(text), ENTRIES_AT_ONCE)


def _paths(body: bytes) -> list[str]:
    """The paths that a form or JSON names.

    Raises:
        InvalidRequestError: it is neither, or names too many.
    """
    try:
        if body.startswith(b"{"):
            found = json.loads(body)["paths"]
        else:
            fields = ENTRIES_AT_ONCE + 1
            found = parse_qs(body.decode("ascii"), errors="strict", max_num_fields=fields)["paths"]
        named = [found] if isinstance(found, str) else list(found)
        if len(named) <= ENTRIES_AT_ONCE and all(isinstance(path, str) for path in named):
            return named
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise InvalidRequestError(
        "the body names no paths", hint=f"send a form with paths=…, {ENTRIES_AT_ONCE} at most"
    )
