"""One HTTP exchange on raw ASGI: what came in, and the two kinds of answer.

The distribution API bypasses the web framework, which would decode and normalise paths and costs
more time than the work itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl

from memcube_protocol import limits
from memcube_protocol.errors import InvalidRequestError, LimitExceededError, UnavailableError

from memcube_registry.http.asgi import Receive, Scope, Send
from memcube_registry.storage import Pieces

Result = TypeVar("Result")

QUERY_BYTES: Final = 8 * limits.KIB
_QUERY_FIELDS: Final = 64

# Services wait for the database, transfers for the disk: neither may take the other's threads.
_SERVICES: Final = ThreadPoolExecutor(32, thread_name_prefix="service")
_TRANSFERS: Final = ThreadPoolExecutor(16, thread_name_prefix="transfer")


async def serve(work: Callable[..., Result], *args: Any, **kwargs: Any) -> Result:
    """What a synchronous service returns, called in a thread."""
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_SERVICES, partial(work, *args, **kwargs))


def transfer(work: Callable[..., Result], *args: Any) -> asyncio.Future[Result]:
    """Start moving or hashing bytes in a thread."""
    return asyncio.get_running_loop().run_in_executor(_TRANSFERS, work, *args)


class Request:
    """A request as ASGI hands it over. Header names are lower-case bytes."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.scope = scope
        self._receive = receive
        self._ended = False

    @property
    def method(self) -> str:
        """The method, in capitals."""
        return str(self.scope["method"])

    @cached_property
    def headers(self) -> dict[bytes, bytes]:
        """The headers; of one that stands twice, the last."""
        return dict(self.scope["headers"])

    def header(self, name: bytes) -> str | None:
        """A header's value, if it was sent."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")

    @cached_property
    def query(self) -> dict[str, list[str]]:
        """The query's values by name.

        Raises:
            InvalidRequestError: it is too long, or not UTF-8.
        """
        raw = self.scope.get("query_string", b"")
        if not raw:
            return {}
        try:
            if len(raw) > QUERY_BYTES:
                raise ValueError("it is too long")
            pairs = parse_qsl(
                raw.decode("ascii"),
                keep_blank_values=True,
                errors="strict",
                max_num_fields=_QUERY_FIELDS,
            )
        except ValueError as error:
            raise InvalidRequestError(
                f"the query string is not acceptable: {error}", hint="send fewer, shorter values"
            ) from None
        values: dict[str, list[str]] = {}
        for name, value in pairs:
            values.setdefault(name, []).append(value)
        return values

    def argument(self, name: str) -> str | None:
        """The one value of `name` in the query, if there is one.

        Raises:
            InvalidRequestError: there are several.
        """
        values = self.query.get(name, ())
        if len(values) > 1:
            raise InvalidRequestError(f"{name!r} stands twice in the query", hint="send it once")
        return values[0] if values else None

    @cached_property
    def content_length(self) -> int | None:
        """The announced length of the body in bytes.

        Raises:
            InvalidRequestError: it is not a number.
        """
        text = self.header(b"content-length")
        if text is None:
            return None
        if not (text.isascii() and text.isdigit() and len(text) <= 18):
            raise InvalidRequestError(
                f"Content-Length {text[:40]!r} is not a number of bytes", hint="send a number"
            )
        return int(text)

    async def body(self, limit: int, what: str) -> bytes:
        """The whole body, for content that fits in memory.

        Raises:
            LimitExceededError: it has more than `limit` bytes.
            InvalidRequestError: the client hung up, or paused longer than the server waits.
        """
        pieces, size = [], 0
        while (piece := await self.piece()) is not None:
            size += len(piece)
            if size > limit:
                raise LimitExceededError(
                    f"{what} has more than the allowed {limit} bytes",
                    hint="docs/spec/limits.md lists every limit",
                )
            pieces.append(piece)
        return b"".join(pieces)

    async def skip(self, limit: int) -> None:
        """Read the rest of the body, `limit` bytes at most, and keep nothing of it.

        So that a client hears of a refusal although it is still sending.
        """
        size = 0
        with suppress(InvalidRequestError):
            while size <= limit and (piece := await self.piece()) is not None:
                size += len(piece)

    async def piece(self) -> bytes | None:
        """The next piece of the body; None after the last.

        Raises:
            InvalidRequestError: the client hung up, or paused longer than the server waits.
        """
        if self._ended:
            return None
        message = await self._receive()
        if message["type"] != "http.request":
            raise InvalidRequestError(
                "the connection ended inside the body, or nothing came for too long",
                hint="check the connection and resume the upload",
            )
        self._ended = not message.get("more_body", False)
        return bytes(message.get("body", b""))


Headers = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Answer:
    """A status, headers and a short body. `size` tells HEAD the length of a body that it leaves out."""

    status: int
    headers: Headers = ()
    body: bytes = b""
    size: int | None = None

    async def send(self, request: Request, send: Send) -> None:
        """Send it."""
        length = len(self.body) if self.size is None else self.size
        headers = [*self.headers]
        if self.status != 204:
            headers.append((b"content-length", b"%d" % length))
        await _start(send, self.status, headers)
        body = b"" if request.method == "HEAD" else self.body
        await send({"type": "http.response.body", "body": body})


@dataclass(frozen=True, slots=True)
class StreamAnswer:
    """Pieces of a blob. Those that are at hand are read here: a thread for each would cost more."""

    status: int
    headers: Headers
    pieces: Pieces = field(repr=False)

    async def send(self, request: Request, send: Send) -> None:  # noqa: ARG002 - as every answer
        """Send it."""
        size = self.pieces.size
        with closing(self.pieces):
            await _start(send, self.status, [*self.headers, (b"content-length", b"%d" % size)])
            sent = 0
            while (piece := await self._next()) is not None:
                sent += len(piece)
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        if sent != size:
            # Ending the body here would pass a short file off as a whole one.
            raise UnavailableError(
                f"the store returned {sent} of {size} bytes",
                hint="check the registry's blob store",
            )
        await send({"type": "http.response.body", "body": b""})

    async def _next(self) -> bytes | None:
        if self.pieces.at_hand():
            return next(self.pieces, None)
        return await transfer(next, self.pieces, None)


Response = Answer | StreamAnswer


async def _start(send: Send, status: int, headers: list[tuple[bytes, bytes]]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
