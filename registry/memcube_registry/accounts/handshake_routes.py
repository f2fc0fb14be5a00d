"""`/token`: where Docker clients exchange an API token for handshake tokens.

GET with Basic credentials, or without for an anonymous token (distribution specification, "Token
authentication"); POST with a form (OAuth 2.0: RFC 6749, grants `password` and `refresh_token`,
where the refresh token is the API token itself).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, cast
from urllib.parse import parse_qs

from litestar import Request, Response, get, post
from litestar.enums import MediaType
from memcube_protocol import timestamps
from memcube_protocol.errors import InvalidRequestError, LimitExceededError, UnauthenticatedError

from memcube_registry.accounts import tokens
from memcube_registry.accounts.authentication import LONE_TOKEN, principal_of
from memcube_registry.accounts.handshake import grant, parse_requested
from memcube_registry.accounts.principal import Principal
from memcube_registry.database import utc_now
from memcube_registry.http.asgi import Scope
from memcube_registry.http.gate import count_failed_login
from memcube_registry.services import Services, services_of

FORM_BYTES: Final = 64 * 1024
_FORM: Final = "application/x-www-form-urlencoded"
_NO_STORE: Final = {"cache-control": "no-store"}


@get("/token", sync_to_thread=False, include_in_schema=False)
def get_token(request: Request[Any, Any, Any]) -> Response[dict[str, Any]]:
    """A handshake token for the credentials of the request, or an anonymous one."""
    services = services_of(request)
    principal = principal_of(request)
    if principal.came_by_handshake:
        raise UnauthenticatedError(
            "a handshake token does not buy another", hint="show the API token itself"
        )
    if principal.is_anonymous and not services.settings.anonymous_pull:
        raise UnauthenticatedError("log in first", hint="run `memcube login`")
    scopes = request.query_params.getall("scope", [])
    return _answer(services, principal, scopes, offline=None)


@post("/token", include_in_schema=False, status_code=200)
async def post_token(request: Request[Any, Any, Any]) -> Response[dict[str, Any]]:
    """A handshake token for the credentials in a form."""
    from litestar.concurrency import sync_to_thread

    form = _parse_form(request.headers.get("content-type", ""), await _read_form(request))
    services = services_of(request)
    try:
        secret = _secret_of(form)
        principal = await sync_to_thread(_identify, services, secret, form.get("username"))
    except UnauthenticatedError:
        await count_failed_login(cast(Scope, request.scope))
        raise
    wants_offline = form.get("access_type") == "offline"
    offline = secret if wants_offline or form["grant_type"] == "refresh_token" else None
    return _answer(services, principal, [form.get("scope", "")], offline=offline)


def _answer(
    services: Services, principal: Principal, scopes: list[str], *, offline: str | None
) -> Response[dict[str, Any]]:
    now: datetime = utc_now()
    granted = grant(principal, parse_requested(scopes))
    token = services.issuer.issue(principal, granted, now=now)
    body: dict[str, Any] = {
        "token": token,
        "access_token": token,
        "token_type": "Bearer",
        "expires_in": int(services.issuer.lifetime.total_seconds()),
        "issued_at": timestamps.write_seconds(now),
        "scope": " ".join(f"repository:{scope.within}:{scope.act}" for scope in granted),
    }
    if offline is not None:
        body["refresh_token"] = offline
    return Response(body, media_type=MediaType.JSON, headers=_NO_STORE)


def _identify(services: Services, secret: str, username: str | None) -> Principal:
    with services.database.read() as session:
        principal = tokens.principal_of_secret(session, secret, now=utc_now())
    if username not in (None, principal.name, LONE_TOKEN):
        raise tokens.unknown_credentials()
    return principal


async def _read_form(request: Request[Any, Any, Any]) -> bytes:
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > FORM_BYTES:
            raise LimitExceededError(
                f"the form is larger than {FORM_BYTES} bytes", hint="ask for fewer scopes at once"
            )
    return body


def _parse_form(content_type: str, body: bytes) -> dict[str, str]:
    """Fields of an OAuth form, each at most once."""
    if content_type.partition(";")[0].strip().lower() != _FORM:
        raise _invalid(f"the content type is not {_FORM}")
    try:
        fields = parse_qs(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            max_num_fields=32,
            errors="strict",
        )
    except ValueError:
        raise _invalid("the form is malformed") from None
    if any(len(values) > 1 for values in fields.values()):
        raise _invalid("a field of the form is repeated")
    return {name: values[0] for name, values in fields.items()}


def _secret_of(form: dict[str, str]) -> str:
    field = {"password": "password", "refresh_token": "refresh_token"}.get(
        form.get("grant_type", "")
    )
    if field is None or field not in form:
        raise _invalid("grant_type is neither password nor refresh_token, or its field is missing")
    if not tokens.is_secret(form[field]):
        raise tokens.unknown_credentials()
    return form[field]


def _invalid(what: str) -> InvalidRequestError:
    return InvalidRequestError(what, hint="see RFC 6749 and docs/guide/authentication.md")
