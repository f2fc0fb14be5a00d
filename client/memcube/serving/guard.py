"""Who may talk to a server of this machine: checked on the headers, before a byte of the body is read.

A page in a browser can send requests to 127.0.0.1, and with DNS rebinding under a name of its own
choice. So `Host` must be a name that this server was told it has, `Origin`, which browsers add, one
that was allowed, and with a token `Authorization` must hold it. The body then has to come in time.
"""

from __future__ import annotations

import asyncio
import hmac
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import field
from pathlib import Path
from typing import Any, Final

from memcube_protocol.errors import InvalidSettingError
from memcube_protocol.values import frozen

from memcube.settings import is_loopback
from memcube.store import files

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

TOKEN_CHARS: Final = 32
BODY_S: Final = 60.0
"""How long the body of a request may take, from its headers on."""

_TOKEN_BYTES: Final = 4096
_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s*?#]+")
_OWN_SITES: Final = frozenset({"none", "same-origin"})
"""What browsers say in `Sec-Fetch-Site` of what the user typed, or a page of this server asks."""
_LOOPBACK_NAMES: Final = ("127.0.0.1", "localhost", "[::1]")


@frozen
class Entrance:
    """Under which names, from which pages, and with which token the server may be asked.

    Raises:
        InvalidSettingError: the token is short, or holds what no header may; or an origin is none.
    """

    hosts: frozenset[str]
    origins: frozenset[str]
    token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        token = self.token
        if token is not None and (
            len(token) < TOKEN_CHARS
            or not token.isascii()
            or not token.isprintable()
            or " " in token
        ):
            raise InvalidSettingError(
                f"the token is not {TOKEN_CHARS} or more visible ASCII characters",
                hint="let --token-file make one: name a file that is not there yet",
            )
        if wrong := [origin for origin in self.origins if not _ORIGIN.fullmatch(origin)]:
            raise InvalidSettingError(
                f"{wrong[0][:100]!r} is not the origin of a page",
                hint="write each as https://app.example, without a path; there is no * for all",
            )

    @classmethod
    def of(
        cls,
        host: str,
        port: int,
        *,
        token: str | None = None,
        hosts: tuple[str, ...] = (),
        origins: tuple[str, ...] = (),
    ) -> Entrance:
        """The entrance of a server that listens at `host` and `port`, with further `hosts` and `origins`.

        Raises:
            InvalidSettingError: others than this machine could ask, and no token is demanded.
        """
        if not is_loopback(host) and token is None:
            raise InvalidSettingError(
                f"{host} can be reached from other machines, and no token is demanded",
                hint="add --token-file FILE, or listen on 127.0.0.1",
            )
        own = _LOOPBACK_NAMES if is_loopback(host) else (*_LOOPBACK_NAMES, host)
        named = {f"{name}:{port}" for name in own}
        return cls(
            frozenset({*named, *(name.lower() for name in hosts)}),
            frozenset({*(f"http://{name}" for name in named), *origins}),
            token,
        )

    def refuses(
        self, headers: list[tuple[bytes, bytes]], method: str = "POST"
    ) -> tuple[int, str] | None:
        """The status and reason that a request with `headers` is refused with; None lets it in.

        Browsers ask with OPTIONS what a page may send, and never show a token there.
        """
        values: dict[str, list[str]] = {}
        for name, value in headers:
            values.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        host = values.get("host", [])
        if len(host) != 1 or host[0].lower() not in self.hosts:
            return 421, "this server is not called that: see --allow-host"
        if not set(values.get("origin", [])) <= self.origins:
            return 403, "requests of pages from there are not allowed: see --allow-origin"
        if "origin" not in values and _is_led_by_a_page(values):
            return 403, "pages of other sites may not lead here"
        is_preflight = method == "OPTIONS" and "access-control-request-method" in values
        if is_preflight or self.token is None:
            return None
        if not self._is_shown(values.get("authorization", [])):
            return 401, "a bearer token is needed"
        return None

    def _is_shown(self, authorization: list[str]) -> bool:
        if len(authorization) != 1:
            return False
        scheme, _, shown = authorization[0].partition(" ")
        expected = (self.token or "").encode()
        return scheme.lower() == "bearer" and hmac.compare_digest(shown.encode(), expected)


class Guard:
    """An ASGI application that lets only those requests through to `app` that `entrance` allows.

    Where the body is not whole in time, `app` sees that the caller has gone, and the caller gets 408.
    """

    def __init__(self, app: Application, entrance: Entrance) -> None:
        self._app = app
        self._entrance = entrance

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection, or start and stop with the server."""
        refused = None
        if scope["type"] == "http":
            refused = self._entrance.refuses(scope["headers"], scope["method"])
        if refused is not None:
            await _refuse(send, *refused)
        elif scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._in_time(scope, _Exchange(receive, send))

    async def _in_time(self, scope: Scope, exchange: _Exchange) -> None:
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except Exception:
            # Applications may take it for an error that nobody waits for their answer.
            if not exchange.is_late:
                raise
        if exchange.is_late and not exchange.is_answered:
            exchange.is_late = False
            await _refuse(
                exchange.send, 408, f"the request did not come within {BODY_S:.0f} seconds"
            )


class _Exchange:
    """A request and its answer. Once the request `is_late`, the application hears and says no more."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._due = asyncio.get_running_loop().time() + BODY_S
        self._is_whole = False
        self.is_late = False
        self.is_answered = False

    async def receive(self) -> MutableMapping[str, Any]:
        """The next message of the caller."""
        if self._is_whole:
            return await self._receive()
        if not self.is_late:
            try:
                async with asyncio.timeout_at(self._due):
                    message = await self._receive()
            except TimeoutError:
                self.is_late = True
            else:
                self._is_whole = not message.get("more_body", False)
                return message
        return {"type": "http.disconnect"}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """Say `message` to the caller."""
        if not self.is_late:
            self.is_answered = True
            await self._send(message)


def _is_led_by_a_page(values: Mapping[str, list[str]]) -> bool:
    """Whether a page of another origin caused a request without `Origin`: a link, an image, a frame."""
    return not set(values.get("sec-fetch-site", [])) <= _OWN_SITES


def token_in(path: Path) -> str:
    """The token that the file `path` holds; a new one is written where there is no file.

    Raises:
        StorageError: others may write the file, or it cannot be read or written.
    """
    content = files.read_own_file(path, _TOKEN_BYTES, folder=False)
    if content is None:
        content = secrets.token_urlsafe(32).encode()
        files.replace_file(path, content + b"\n")
    return content.decode("ascii", "replace").strip()


async def _refuse(send: Send, status: int, why: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": why.encode()})
