"""Requests and answers: one place for retries, redirects, logins, limits and error messages."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import field
from typing import Any, Final

import urllib3
from memcube_protocol import limits
from memcube_protocol.errors import (
    MemcubeError,
    NetworkError,
    StorageError,
    UnauthenticatedError,
    UnsafeRedirectError,
)
from memcube_protocol.values import frozen
from urllib3.exceptions import HTTPError, SSLError

from memcube.accounts.credentials import Credentials, CredentialStore
from memcube.closing import Closing
from memcube.http.authorization import Authenticator
from memcube.http.bodies import SizedBody
from memcube.http.failures import ERROR_BODY_BYTES, error_of
from memcube.http.origins import (
    KnownAddresses,
    Origin,
    Reach,
    Resolve,
    deepest_from,
    follow,
    resolve,
)
from memcube.http.pools import Pools, waits
from memcube.http.reaching import may_pass, unanswered
from memcube.http.retry import RETRIED_STATUSES, RetryPolicy, retry_after_s
from memcube.settings import Settings
from memcube.store.files import PIECE_BYTES
from memcube.version import VERSION

TOKEN_BYTES: Final = limits.MIB
_REDIRECTS: Final = 5
_REDIRECT_STATUSES: Final = frozenset({301, 302, 303, 307, 308})
_REPEATABLE: Final = frozenset({"GET", "HEAD", "PUT", "DELETE"})
_SLOWEST_BYTES_PER_S: Final = 1024
_PATIENCE_S: Final = 30.0


@frozen
class Request:
    """One request. `scopes` are what a token is asked for, should the registry want one.

    `repeatable` says whether it may be sent twice; by default that follows from the method.
    `led_from` is the origin that named the URL, where the user did not: such a request carries no
    credentials of ours but `authorization`, which no redirect takes to another origin, and leads no
    further inside than that origin lies. `patience_s` is how many seconds the server may say nothing.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes | SizedBody | None = None
    scopes: frozenset[str] = frozenset()
    repeatable: bool | None = None
    led_from: Origin | None = None
    authorization: str | None = field(default=None, repr=False)
    patience_s: float | None = None

    @property
    def may_repeat(self) -> bool:
        """Whether this may be sent again after a failure."""
        return self.method in _REPEATABLE if self.repeatable is None else self.repeatable

    def __str__(self) -> str:
        return f"{self.method} {self.url.partition('?')[0]}"


class Response(Closing):
    """An answer whose body is still to be read; a context manager that gives the connection back."""

    def __init__(self, raw: urllib3.BaseHTTPResponse, url: str, what: str) -> None:
        self._raw = raw
        self._what = what
        self.url = url
        self.status = raw.status
        self.headers: Mapping[str, str] = raw.headers

    @property
    def length(self) -> int | None:
        """The `Content-Length`, if there is a sensible one."""
        text = self.headers.get("content-length", "")
        return int(text) if text.isascii() and text.isdecimal() and len(text) < 16 else None

    def pieces(self) -> Iterator[bytes]:
        """The body as it comes, at most 512 KiB a piece.

        Raises:
            NetworkError: the body breaks off, or comes slower than 1 KiB a second for 30 s.
        """
        spent_s, taken = 0.0, 0
        while True:
            began_s = time.monotonic()
            try:
                piece = self._raw.read1(PIECE_BYTES, decode_content=False)
            except HTTPError as error:
                raise unanswered(self._what, error) from None
            if not piece:
                return
            spent_s, taken = spent_s + time.monotonic() - began_s, taken + len(piece)
            if spent_s > _PATIENCE_S:
                if taken < _PATIENCE_S * _SLOWEST_BYTES_PER_S:
                    raise _stalled(self._what)
                spent_s, taken = 0.0, 0
            yield piece

    def content(self, limit: int) -> bytes:
        """The whole body.

        Raises:
            LimitExceededError: more than `limit` bytes.
            NetworkError: it breaks off or comes too slowly.
        """
        limits.require_at_most(f"answer to {self._what}", self.length or 0, limit)
        content = bytearray()
        for piece in self.pieces():
            content += piece
            limits.require_at_most(f"answer to {self._what}", len(content), limit)
        self.close()
        return bytes(content)

    def failure(self) -> MemcubeError:
        """Our error for this answer; the body is read as far as an error may be long."""
        body = b""
        try:
            for piece in self.pieces():
                body += piece
                if len(body) > ERROR_BODY_BYTES:
                    body = b""
                    break
        except NetworkError:
            body = b""  # the status says enough
        self._raw.close()
        wait_s = retry_after_s(self.headers.get("retry-after"))
        return error_of(self.status, self._what, body, retry_after_s=wait_s)

    def close(self) -> None:
        """Give the connection back; one with much left to read is closed instead."""
        left = self._raw.length_remaining
        if left is not None and left <= PIECE_BYTES:
            self._raw.drain_conn()
        self._raw.close()


class HttpClient:
    """Sends requests; safe for several threads."""

    def __init__(
        self,
        settings: Settings,
        *,
        find_credentials: Callable[[str], Credentials | None] | None = None,
        retry: RetryPolicy | None = None,
        resolver: Resolve = resolve,
    ) -> None:
        self.retry = retry or RetryPolicy()
        self._settings = settings
        self._by_variable = find_credentials is None and settings.token is not None
        self._addresses = KnownAddresses(resolver)
        self._pools = Pools(settings.parallel + 2, self._addresses.note)
        self._agent = f"memcube/{VERSION}"
        self._authenticator = Authenticator(
            find_credentials or CredentialStore(settings).find,
            self._fetch_token,
            resolver=self._addresses,
        )

    def send(self, request: Request, accept: Iterable[int] = (200,)) -> Response:
        """The answer to `request`, if its status is one of `accept`.

        Raises:
            NetworkError: no answer, after all retries; or offline.
            UnsafeRedirectError: a redirect that must not be followed.
            MemcubeError: another status, as `failures.error_of` says.
        """
        accepted, failures = frozenset(accept), 0
        while True:
            problem: MemcubeError
            asked_s: float | None = None
            try:
                response = self._send_once(request)
            except HTTPError as error:
                problem = unanswered(str(request), error, request.url)
                transient = not isinstance(error, SSLError) and may_pass(
                    error, request.url, failures
                )
            else:
                if response.status in accepted:
                    return response
                asked_s = retry_after_s(response.headers.get("retry-after"))
                problem = self._blamed(response.failure(), Origin.of(request.url))
                is_broken = type(problem) is StorageError  # its operator has to mend that
                transient = response.status in RETRIED_STATUSES and not is_broken
            failures += 1
            wait_s = self.retry.wait_s(failures, asked_s)
            if not (transient and request.may_repeat) or wait_s is None:
                raise problem
            self.retry.sleep(wait_s)

    def lead(self, origin: Origin, base_url: str, location: str) -> tuple[str, Origin]:
        """See `origins.follow`."""
        return follow(origin, base_url, location, resolver=self._addresses)

    def close(self) -> None:
        """Close idle connections."""
        self._pools.close()

    def _send_once(self, request: Request) -> Response:
        """One attempt, with a login where one is asked for."""
        if self._settings.offline:
            raise NetworkError(
                f"{request} needs the network, and memcube is offline",
                hint="run it without --offline (or MEMCUBE_OFFLINE)",
            )
        origin = Origin.of(request.url)
        if request.led_from is not None:
            return self._follow(request, origin, request.authorization)
        header = self._authenticator.header(origin, request.scopes)
        response = self._follow(request, origin, header)
        challenge = response.headers.get("www-authenticate")
        if response.status == 401 and challenge and Origin.of(response.url) == origin:
            refusal = response.failure()
            better = self._authenticator.answer(origin, request.scopes, challenge, header)
            if better is None:
                raise self._blamed(refusal, origin)
            response = self._follow(request, origin, better)
        return response

    def _follow(self, request: Request, origin: Origin, authorization: str | None) -> Response:
        """The answer at the end of all redirects; credentials go to `origin` only."""
        url, target = request.url, origin
        for _ in range(_REDIRECTS + 1):
            response = self._exchange(
                request, url, origin, target, authorization if target == origin else None
            )
            location = response.headers.get("location")
            if response.status not in _REDIRECT_STATUSES or not location:
                return response
            response.failure()
            if request.method not in ("GET", "HEAD"):
                raise UnsafeRedirectError(
                    f"{request} is redirected, which only a read may be",
                    hint="use the address that the registry prefers",
                )
            url, target = self.lead(request.led_from or origin, url, location)
        raise NetworkError(
            f"{request} is redirected more than {_REDIRECTS} times",
            hint="the registry is set up wrongly: ask its operator",
        )

    def _exchange(
        self, request: Request, url: str, origin: Origin, target: Origin, authorization: str | None
    ) -> Response:
        headers = {"User-Agent": self._agent, "Accept-Encoding": "identity", **request.headers}
        if authorization:
            headers["Authorization"] = authorization
        body: Any = request.body
        if request.body is not None and not isinstance(request.body, bytes):
            headers["Content-Length"] = str(request.body.size)
        leader = request.led_from or origin
        led = target != leader
        deepest = deepest_from(leader, self._addresses) if led else Reach.LOOPBACK
        raw = self._pools.manager(target, deepest).request(
            request.method,
            url,
            body=body,
            headers=headers,
            timeout=waits(request.patience_s),
            retries=False,
            redirect=False,
            preload_content=False,
            decode_content=False,
        )
        return Response(raw, url, str(request))

    def _fetch_token(self, url: str, authorization: str | None, origin: Origin) -> bytes:
        request = Request("GET", url, led_from=origin, authorization=authorization)
        try:
            with self.send(request) as response:
                return response.content(TOKEN_BYTES)
        except UnauthenticatedError as error:
            refused = f"the registry refused the credentials ({error})"
            problem = type(error)(refused, hint="log in: memcube login")
            raise self._blamed(problem, origin) from None

    def _blamed(self, problem: MemcubeError, origin: Origin) -> MemcubeError:
        """`problem`, told of the variable where its token was the one refused."""
        if not (self._by_variable and isinstance(problem, UnauthenticatedError)):
            return problem
        if origin.authority != self._settings.endpoint.host:
            return problem
        return type(problem)(
            f"the token in MEMCUBE_TOKEN is refused: {problem}",
            hint="set MEMCUBE_TOKEN to a token that is valid, or unset it and log in: memcube login",
        )


def _stalled(what: str) -> NetworkError:
    return NetworkError(
        f"{what}: the answer comes slower than {_SLOWEST_BYTES_PER_S} bytes a second",
        hint="try again later: what has arrived is kept",
    )
