"""The gate before every route: no page of strangers, who is it, too fast, and how to log in (401)."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from memcube_protocol.errors import MemcubeError, RateLimitedError, outcome_of
from memcube_protocol.reference import is_name

from memcube_registry.accounts.authentication import SCOPE_KEY, Authenticator
from memcube_registry.accounts.principal import Principal
from memcube_registry.accounts.tokens import unknown_credentials
from memcube_registry.batching import Batches
from memcube_registry.database import utc_now
from memcube_registry.http import problems
from memcube_registry.http.asgi import Application, Message, Receive, Scope, Send
from memcube_registry.http.browsers import Entrance
from memcube_registry.observability.requests import PROBES, request_id_of
from memcube_registry.rates.buckets import Buckets, Rate, whole_seconds

AT_ONCE: Final = 64
"""Credentials of so many requests are looked up together."""
_CHALLENGE: Final = b"www-authenticate"
_FAILED_KEY: Final = "memcube.failed-login"
_ACTIONS: Final = {"GET": "pull", "HEAD": "pull", "DELETE": "pull,delete"}
_REPOSITORY: Final = re.compile(
    r"/v2/(?P<name>.+)/(?:(?P<upload>blobs/uploads)|(?P<blob>blobs)|manifests|tags|referrers)(?:/.*)?"
)


@dataclass(frozen=True, slots=True)
class Limits:
    """How many requests are answered: of one account, of one address, with wrong credentials."""

    account: Rate
    address: Rate
    failures: Rate


@dataclass(frozen=True, slots=True)
class Realm:
    """Where Docker clients get their tokens, from the settings and never from the Host header."""

    url: str
    service: str

    def challenge(self, scope: Scope) -> str:
        """The WWW-Authenticate header for a request that was answered 401."""
        if scope["path"] == "/token":
            return f'Basic realm="{self.service}"'
        parts = [f'Bearer realm="{self.url}/token"', f'service="{self.service}"']
        if wanted := _wanted_scope(scope):
            parts.append(f'scope="{wanted}"')
        return ",".join(parts)


class Gate:
    """An application that knows who asks, and asks the too fast ones to wait."""

    def __init__(
        self,
        app: Application,
        authenticator: Authenticator,
        buckets: Buckets,
        limits: Limits,
        realm: Realm,
        entrance: Entrance,
        proxies: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network] = (),
    ) -> None:
        self._app = app
        self._authenticator = authenticator
        self._buckets = buckets
        self._limits = limits
        self._realm = realm
        self._entrance = entrance
        self._proxies = proxies
        self._asked: Batches[bytes, Principal] = Batches(self._identify_all, AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request through the application, or refuse it."""
        if scope["type"] != "http" or scope["path"] in PROBES:
            await self._app(scope, receive, send)
            return
        try:
            self._entrance.require_welcome(scope)
        except MemcubeError as error:
            await _refuse(scope, send, error)
            return
        scope[_FAILED_KEY] = partial(self._count_failure, scope)
        found = await self._identify(scope)
        scope[SCOPE_KEY] = found
        wait_s = await self._wait(scope, found)
        if wait_s:
            await _refuse(scope, send, _too_fast(wait_s))
            return
        await self._app(scope, receive, self._challenging(scope, found, send))

    async def _identify(self, scope: Scope) -> Principal | MemcubeError:
        headers = [value for name, value in scope["headers"] if name == b"authorization"]
        if not headers:
            return self._authenticator.anonymous
        if len(headers) > 1:
            return unknown_credentials()
        try:
            return await asyncio.wrap_future(self._asked.submit(bytes(headers[0])))
        except MemcubeError as error:
            return error

    def _identify_all(self, batch: Sequence[bytes]) -> list[Principal | MemcubeError]:
        """Whose each of the headers is; one that several requests brought is looked up once."""
        found = {header: self._look_up(header) for header in dict.fromkeys(batch)}
        return [found[header] for header in batch]

    def _look_up(self, header: bytes) -> Principal | MemcubeError:
        try:
            return self._authenticator.authenticate(header, now=utc_now())
        except MemcubeError as error:
            return error

    async def _wait(self, scope: Scope, found: Principal | MemcubeError) -> float:
        """Seconds to wait before this request may be answered; 0 for now."""
        now_s = time.monotonic()
        if isinstance(found, Principal) and not found.is_anonymous:
            return await self._buckets.take(
                f"account:{found.account_id}", self._limits.account, now_s=now_s
            )
        if isinstance(found, MemcubeError):
            return await self._count_failure(scope)
        address = network_of(client_address(scope, self._proxies))
        return await self._buckets.take(f"address:{address}", self._limits.address, now_s=now_s)

    async def _count_failure(self, scope: Scope) -> float:
        """Note wrong credentials of the sender; seconds until it may hear that they are."""
        address = network_of(client_address(scope, self._proxies))
        return await self._buckets.take(
            f"failures:{address}", self._limits.failures, now_s=time.monotonic()
        )

    def _challenging(self, scope: Scope, found: Principal | MemcubeError, send: Send) -> Send:
        """`send` that completes a 401 by how to log in and what was wrong with the credentials."""

        async def challenged(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 401:
                challenge = (self._realm.challenge(scope) + _flaw(found)).encode()
                kept = [pair for pair in message.get("headers", ()) if pair[0] != _CHALLENGE]
                message["headers"] = [*kept, (_CHALLENGE, challenge)]
            await send(message)

        return challenged


async def count_failed_login(scope: Scope) -> None:
    """Note that a request showed wrong credentials elsewhere than in its header.

    Raises:
        RateLimitedError: its sender did so too often.
    """
    wait_s: float = await scope[_FAILED_KEY]()
    if wait_s:
        raise _too_fast(wait_s)


def client_address(
    scope: Scope, proxies: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]
) -> str:
    """The address a request comes from: the last one in the chain that is not a trusted proxy."""
    client = scope.get("client")
    address = _plain(client[0]) if client else "unknown"
    if not proxies or not _is_within(address, proxies):
        return address
    forwarded = b",".join(v for k, v in scope["headers"] if k == b"x-forwarded-for")
    for hop in reversed(forwarded.decode("latin-1").split(",")):
        try:
            address = _plain(str(ipaddress.ip_address(hop.strip())))
        except ValueError:
            return address
        if not _is_within(address, proxies):
            return address
    return address


def network_of(address: str) -> str:
    """What counts as one sender: an IPv4 address, or the /64 network of an IPv6 one."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    return address if parsed.version == 4 else str(ipaddress.ip_network((parsed, 64), strict=False))


def _plain(address: str) -> str:
    """`address`; of an IPv4 address as a socket for both families tells it, the IPv4 address."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    mapped = parsed.ipv4_mapped if parsed.version == 6 else None
    return str(mapped) if mapped else address


def _is_within(
    address: str, networks: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]
) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in networks)


def _wanted_scope(scope: Scope) -> str:
    """What the request needs, as the Docker handshake writes it; empty where it names no cube."""
    found = _REPOSITORY.fullmatch(str(scope["path"]))
    if found is None or not is_name(found["name"]):
        return ""
    # A HEAD of a blob begins a push; some clients then keep the token they got for it.
    is_push = found["upload"] or (found["blob"] and scope["method"] == "HEAD")
    actions = "pull,push" if is_push else _ACTIONS.get(scope["method"], "pull,push")
    return f"repository:{found['name']}:{actions}"


def _flaw(found: Principal | MemcubeError) -> str:
    """What RFC 6750 (section 3.1) calls the credentials' fault; none where none were shown."""
    if isinstance(found, MemcubeError):
        return ',error="invalid_token"'
    return "" if found.is_anonymous else ',error="insufficient_scope"'


def _too_fast(wait_s: float) -> RateLimitedError:
    seconds = whole_seconds(wait_s)
    return RateLimitedError(
        "too many requests", hint=f"wait {seconds} s and try again", retry_after_s=seconds
    )


async def _refuse(scope: Scope, send: Send, error: MemcubeError) -> None:
    is_oci = str(scope["path"]).startswith("/v2/")
    body = problems.encode(
        problems.to_oci(error)
        if is_oci
        else problems.to_problem(error, instance=request_id_of(scope))
    )
    kind = "application/json" if is_oci else problems.PROBLEM_TYPE
    headers: dict[str, str] = {
        **problems.headers_of(error),
        "content-type": kind,
        "content-length": str(len(body)),
    }
    start: Message = {
        "type": "http.response.start",
        "status": outcome_of(error).http_status,
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    await send(start)
    await send({"type": "http.response.body", "body": body, "more_body": False})
