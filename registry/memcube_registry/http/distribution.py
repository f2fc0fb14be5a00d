"""The OCI distribution API 1.1 under `/v2/`, as one raw ASGI application.

It reads `raw_path` itself and accepts the canonical form only, for a decoded or normalised path
could name another repository than the one that was authorised.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    InvalidReferenceError,
    InvalidRequestError,
    LimitExceededError,
    MemcubeError,
    NotFoundError,
    UnauthenticatedError,
    outcome_of,
)
from memcube_protocol.reference import is_name

from memcube_registry.accounts.authentication import principal_in
from memcube_registry.blobs.routes import BlobRoutes
from memcube_registry.blobs.upload_routes import ChunkOutOfOrderError, UploadRoutes
from memcube_registry.database import Database
from memcube_registry.http.asgi import Receive, Scope, Send
from memcube_registry.http.exchange import Answer, Request, Response
from memcube_registry.http.problems import headers_of
from memcube_registry.manifests.routes import ManifestRoutes
from memcube_registry.observability.requests import log
from memcube_registry.storage import BlobStore

_PATH_CHARS: Final = 1024
_ROUTE: Final = re.compile(
    r"/v2/(?P<name>.+)/(?:"
    r"blobs/uploads/(?P<upload>[^/]+)|(?P<uploads>blobs/uploads/?)|blobs/(?P<blob>[^/]+)|"
    r"manifests/(?P<manifest>[^/]+)|(?P<tags>tags/list)|referrers/(?P<referrers>[^/]+))",
    re.ASCII,
)
_ODD: Final = re.compile(r"//|/\.\.?(?:/|$)|[^A-Za-z0-9/._:+=@~-]")
_UPLOAD: Final = re.compile(r"[0-9a-f]{32}")

# (error's code, kind of target) → code of the distribution specification; None stands for any kind.
_CODES: Final[Mapping[tuple[str, str | None], str]] = {
    ("not-found", "blob"): "BLOB_UNKNOWN",
    ("not-found", "upload"): "BLOB_UPLOAD_UNKNOWN",
    ("not-found", "manifest"): "MANIFEST_UNKNOWN",
    ("not-found", None): "NAME_UNKNOWN",
    ("conflict", None): "DENIED",
    ("digest-mismatch", None): "DIGEST_INVALID",
    ("forbidden", None): "DENIED",
    ("invalid-digest", None): "DIGEST_INVALID",
    ("invalid-json", "manifest"): "MANIFEST_INVALID",
    ("invalid-manifest", None): "MANIFEST_INVALID",
    ("invalid-reference", None): "NAME_INVALID",
    ("invalid-request", "upload"): "BLOB_UPLOAD_INVALID",
    ("limit-exceeded", "manifest"): "MANIFEST_INVALID",
    ("missing-content", None): "MANIFEST_BLOB_UNKNOWN",
    ("payment-required", None): "DENIED",
    ("quota-exceeded", None): "DENIED",
    ("range-mismatch", None): "BLOB_UPLOAD_INVALID",
    ("rate-limited", None): "TOOMANYREQUESTS",
    ("size-mismatch", None): "SIZE_INVALID",
    ("token-expired", None): "UNAUTHORIZED",
    ("unauthenticated", None): "UNAUTHORIZED",
}


@dataclass(frozen=True, slots=True)
class Target:
    """What a path names: a kind of thing, the repository it belongs to, and its own name there."""

    kind: str
    repository: str = ""
    reference: str = ""


ROOT: Final = Target("root")


def parse_path(raw: bytes) -> Target:
    """The target of a canonical path.

    Raises:
        NotFoundError: this API has no such path.
        InvalidRequestError: it is not canonical: `//`, `%`, `.`, `..` or an odd character.
        InvalidReferenceError: the repository's name is malformed.
    """
    path = raw.decode("latin-1")
    if path == "/v2/":
        return ROOT
    if len(path) > _PATH_CHARS or _ODD.search(path):
        raise InvalidRequestError(
            "the path is not in canonical form",
            hint="send it without %, //, . and .. components",
        )
    match = _ROUTE.fullmatch(path)
    if match is None:
        raise NotFoundError(
            "this API has no such path", hint="see the OCI distribution specification"
        )
    name = match["name"]
    if not is_name(name):
        raise InvalidReferenceError(
            f"{name[:100]!r} is not the name of a repository",
            hint="use lower-case letters, digits and single separators . _ -",
        )
    kind = match.lastgroup or ""
    reference = match[kind]
    if kind == "upload" and not _UPLOAD.fullmatch(reference):
        raise NotFoundError(f"there is no upload {reference[:64]}", hint="start a new upload")
    return Target(kind, name, reference)


class Distribution:
    """The ASGI application. The gate before it has put the principal into the scope."""

    def __init__(
        self,
        database: Database,
        store: BlobStore,
        countersign: Callable[[int, Digest], None] | None = None,
    ) -> None:
        """`countersign` is told of a release that was just attached."""
        self._blobs = BlobRoutes(database, store)
        self._uploads = UploadRoutes(database, store)
        self._manifests = ManifestRoutes(database, countersign)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        target = ROOT
        try:
            target = parse_path(scope["raw_path"])
            answer = await self._answer(request, target)
        except MemcubeError as error:
            answer = _refusal(error, target)
        except Exception as error:
            log.error("the server made a mistake", exc_info=error)
            answer = _failure()
        await answer.send(request, send)

    async def _answer(self, request: Request, target: Target) -> Response:
        method, name, reference = request.method, target.repository, target.reference
        match target.kind, method:
            case "manifest", "GET":
                return await self._manifests.get(request, name, reference)
            case "manifest", "HEAD":
                return await self._manifests.head(request, name, reference)
            case "manifest", "PUT":
                return await self._manifests.put(request, name, reference)
            case "manifest", "DELETE":
                return await self._manifests.delete(request, name, reference)
            case "blob", _:
                return await self._answer_blob(request, target)
            case "uploads" | "upload", _:
                return await self._answer_upload(request, target)
            case "tags", "GET":
                return await self._manifests.list_tags(request, name)
            case "referrers", "GET":
                return await self._manifests.list_referrers(request, name, reference)
            case "root", "GET" | "HEAD":
                return _ping(request)
        return _wrong_method(target)

    async def _answer_blob(self, request: Request, target: Target) -> Response:
        digest = Digest.parse(target.reference)
        match request.method:
            case "GET":
                return await self._blobs.get(request, target.repository, digest)
            case "HEAD":
                return await self._blobs.head(request, target.repository, digest)
            case "DELETE":
                return await self._blobs.delete(request, target.repository, digest)
        return _wrong_method(target)

    async def _answer_upload(self, request: Request, target: Target) -> Response:
        name, upload = target.repository, target.reference
        match target.kind, request.method:
            case "uploads", "POST":
                return await self._uploads.post(request, name)
            case "upload", "PATCH":
                return await self._uploads.patch(request, name, upload)
            case "upload", "PUT":
                return await self._uploads.put(request, name, upload)
            case "upload", "GET":
                return await self._uploads.get(request, name, upload)
            case "upload", "DELETE":
                return await self._uploads.delete(request, name, upload)
        return _wrong_method(target)


def _refusal(error: MemcubeError, target: Target) -> Answer:
    headers = [(b"content-type", b"application/json")]
    headers += [(name.encode(), text.encode()) for name, text in headers_of(error).items()]
    if isinstance(error, ChunkOutOfOrderError):
        headers += error.headers
    if isinstance(error, LimitExceededError | InvalidRequestError):
        # The rest of the body was not read: this connection cannot carry another request.
        headers.append((b"connection", b"close"))
    status = outcome_of(error).http_status
    if status >= 500:
        log.error("the distribution API failed", error=str(error), code=error.code)
    return Answer(status, headers, _errors(_code(error, target), str(error), error))


def _ping(request: Request) -> Answer:
    principal = principal_in(request.scope)
    if principal.is_anonymous and not principal.came_by_handshake:
        # Docker clients learn from this 401 where and how to log in.
        raise UnauthenticatedError("log in first", hint="run `memcube login`")
    headers = [
        (b"content-type", b"application/json"),
        (b"docker-distribution-api-version", b"registry/2.0"),
    ]
    return Answer(200, headers, b"{}")


_METHODS: Final = {
    "root": b"GET, HEAD",
    "manifest": b"DELETE, GET, HEAD, PUT",
    "blob": b"DELETE, GET, HEAD",
    "uploads": b"POST",
    "upload": b"DELETE, GET, PATCH, PUT",
    "tags": b"GET",
    "referrers": b"GET",
}


def _wrong_method(target: Target) -> Answer:
    allowed = _METHODS[target.kind]
    body = _errors("UNSUPPORTED", f"this path answers {allowed.decode()} only")
    return Answer(405, [(b"content-type", b"application/json"), (b"allow", allowed)], body)


def _failure() -> Answer:
    body = _errors("UNKNOWN", "the registry failed; its log says why")
    return Answer(500, [(b"content-type", b"application/json")], body)


def _code(error: MemcubeError, target: Target) -> str:
    kind = "upload" if target.kind == "uploads" else target.kind
    return _CODES.get((error.code, kind)) or _CODES.get((error.code, None)) or "UNSUPPORTED"


def _errors(code: str, message: str, error: MemcubeError | None = None) -> bytes:
    detail = {"code": error.code, "hint": error.hint} if error else None
    value = {"errors": [{"code": code, "message": message, "detail": detail}]}
    return json.dumps(value, ensure_ascii=False).encode()
