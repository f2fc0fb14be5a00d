"""The Hub's API as one raw ASGI application: what a request wants, and how refusals look there."""

from __future__ import annotations

import json
from typing import Final

from memcube_protocol.errors import (
    InvalidRequestError,
    LimitExceededError,
    MemcubeError,
    NotFoundError,
    UnauthenticatedError,
    outcome_of,
)

from memcube_registry.accounts.authentication import principal_in
from memcube_registry.accounts.principal import Principal
from memcube_registry.database import Database
from memcube_registry.http.asgi import Receive, Scope, Send
from memcube_registry.http.exchange import Answer, Request, Response
from memcube_registry.http.problems import headers_of
from memcube_registry.hub import addresses
from memcube_registry.hub.addresses import Address
from memcube_registry.hub.routes import HubRoutes
from memcube_registry.hub.service import UnknownFileError, UnknownRevisionError
from memcube_registry.observability.requests import log
from memcube_registry.storage import BlobStore

_WRONG_CREDENTIALS: Final = "Invalid credentials in Authorization header"
"""The Hub's words, by which its clients tell a wrong token from a repository that is not there."""
_MESSAGE_CHARS: Final = 500


class WrongCredentialsError(UnauthenticatedError):
    """Credentials were shown, and nobody has them."""


class HubApi:
    """The ASGI application. The gate before it has put the principal into the scope."""

    def __init__(self, database: Database, store: BlobStore, url: str) -> None:
        """`url` is how clients reach this registry; never what their Host header says."""
        self._routes = HubRoutes(database, store, url)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        try:
            answer = await self._answer(request, addresses.parse(scope["raw_path"]))
        except MemcubeError as error:
            answer = _refusal(error)
        except Exception as error:
            log.error("the server made a mistake", exc_info=error)
            answer = _refusal(MemcubeError("the registry failed; its log says why"))
        await answer.send(request, send)

    async def _answer(self, request: Request, address: Address) -> Response:
        principal = _principal(request)
        method = "GET" if request.method == "HEAD" else request.method
        match address.kind, method:
            case "whoami", "GET":
                return await self._routes.whoami(principal)
            case "info", "GET":
                return await self._routes.info(request, principal, address)
            case "tree", "GET":
                return await self._routes.tree(request, principal, address)
            case "refs", "GET":
                return await self._routes.refs(principal, address)
            case "paths-info", "POST":
                return await self._routes.paths_info(request, principal, address)
            case "file", "GET":
                return await self._routes.file(request, principal, address)
        return _wrong_method(address)


def _principal(request: Request) -> Principal:
    try:
        return principal_in(request.scope)
    except UnauthenticatedError as error:
        raise WrongCredentialsError(str(error), hint=error.hint) from error


def _refusal(error: MemcubeError) -> Answer:
    status = outcome_of(error).http_status
    headers = [(b"content-type", b"application/json; charset=utf-8")]
    headers += [(name.encode(), text.encode()) for name, text in headers_of(error).items()]
    if code := _code_of(error):
        headers.append((b"x-error-code", code))
    headers.append((b"x-error-message", _header_text(_message_of(error))))
    if isinstance(error, UnknownFileError):
        headers.append((b"x-repo-commit", error.commit.encode()))
    if isinstance(error, LimitExceededError | InvalidRequestError):
        # The rest of the body was not read: this connection cannot carry another request.
        headers.append((b"connection", b"close"))
    if status >= 500:
        log.error("the Hub's API failed", error=str(error), code=error.code)
    body = {"error": str(error), "code": error.code, "hint": error.hint}
    return Answer(status, headers, json.dumps(body, ensure_ascii=False).encode())


def _code_of(error: MemcubeError) -> bytes | None:
    """The Hub's word for what is missing: its clients raise their errors by it."""
    if isinstance(error, UnknownRevisionError):
        return b"RevisionNotFound"
    if isinstance(error, UnknownFileError):
        return b"EntryNotFound"
    if isinstance(error, WrongCredentialsError):
        return None
    # Without a login an absent cube and a private one are the same: it takes a login to see either.
    return b"RepoNotFound" if isinstance(error, NotFoundError | UnauthenticatedError) else None


def _message_of(error: MemcubeError) -> str:
    if isinstance(error, WrongCredentialsError):
        return _WRONG_CREDENTIALS
    return f"{error}. {error.hint}" if error.hint else str(error)


def _header_text(text: str) -> bytes:
    """`text` in one line of printable ASCII: it may repeat what the request said."""
    return bytes(c if 0x20 <= c < 0x7F else 0x3F for c in text[:_MESSAGE_CHARS].encode())


def _wrong_method(address: Address) -> Answer:
    allowed = b"POST" if address.kind == "paths-info" else b"GET, HEAD"
    body = json.dumps({"error": f"this address answers {allowed.decode()} only"}).encode()
    return Answer(405, [(b"content-type", b"application/json"), (b"allow", allowed)], body)
