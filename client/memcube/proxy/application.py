"""The proxy as an ASGI application: parse, add the memory, and pass bytes on as they come.

What an upstream answers is passed on as it is, whatever its status. A caller who goes away ends the
upstream's work; an answer that breaks off breaks off here too, so that nobody takes it for whole.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from concurrent.futures import Executor
from contextlib import suppress
from typing import Any, Final

import httpx2
from memcube_protocol import canonical_json, limits
from memcube_protocol.errors import (
    InvalidRequestError,
    MemcubeError,
    NetworkError,
    NotFoundError,
    outcome_of,
)
from memcube_protocol.values import frozen

from memcube.proxy.addition import Addition
from memcube.proxy.forms import FORMS, Json
from memcube.proxy.upstream import Upstream, answer_headers

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Tell = Callable[[str], None]

BASE: Final = "/v1/"
PASSED: Final = ("embeddings", "models")
"""What goes through without memory."""

REQUEST_BYTES: Final = 32 * limits.MIB
_JSON: Final = [(b"content-type", b"application/json")]


class CallerGoneError(Exception):
    """Nobody waits for the answer any more."""


@frozen
class Asked:
    """A request: its method, its place below `/v1/`, its headers in lower case."""

    method: str
    place: str
    headers: Mapping[str, str]

    @classmethod
    def of(cls, scope: Mapping[str, Any]) -> Asked:
        """The request that `scope` tells of.

        Raises:
            NotFoundError: the proxy has nothing there.
        """
        path, method = str(scope["path"]), str(scope["method"])
        place = path.removeprefix(BASE)
        known = "POST" if place in FORMS or place == "embeddings" else "GET"
        named = place in FORMS or place in PASSED or _is_model(place)
        if not path.startswith(BASE) or not named or method != known:
            raise NotFoundError(
                f"this proxy has no {method} {path[:100]}",
                hint=f"it has {BASE} with {', '.join((*FORMS, *PASSED))}",
            )
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        return cls(method, place, headers)


class Proxy:
    """The application; `memory` runs what looks records up, one at a time, beside the event loop.

    `keep_key` says that callers' keys are meant for the upstream, not for the guard before this.
    `tell` hears one line a request: never content, headers or keys.
    """

    def __init__(
        self,
        upstream: Upstream,
        client: httpx2.AsyncClient,
        addition: Addition,
        memory: Executor,
        tell: Tell,
        *,
        keep_key: bool,
    ) -> None:
        self._upstream = upstream
        self._client = client
        self._addition = addition
        self._memory = memory
        self._tell = tell
        self._keep_key = keep_key

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request (ASGI 3)."""
        answer = _Answer(send)
        begun = time.monotonic()
        try:
            asked = Asked.of(scope)
            body = await _body(asked, receive)
            await _while_connected(receive, self._relay(asked, body, answer))
            end = str(answer.status)
        except CallerGoneError:
            end = "caller gone"
        except MemcubeError as error:
            end = f"{type(error).__name__}: {error}" if answer.status else error.code
            await answer.refuse(error)
        except Exception as error:
            # Its text may hold what was asked.
            end = f"unexpected {type(error).__name__}"
            await answer.refuse(MemcubeError("the proxy failed", hint="its own output says where"))
        self._tell(f"{_printable(scope)} {end} {time.monotonic() - begun:.1f} s")

    async def _relay(self, asked: Asked, body: bytes, answer: _Answer) -> None:
        if form := FORMS.get(asked.place):
            loop = asyncio.get_running_loop()
            request = canonical_json.parse_object(body, what="request", any_integer=True)
            body = await loop.run_in_executor(
                self._memory, lambda: _written(form(request, self._addition))
            )
        try:
            await self._pass_on(asked, body, answer)
        except httpx2.TimeoutException:
            raise NetworkError(
                "the upstream did not answer in time", hint="raise --timeout, or look at the engine"
            ) from None
        except httpx2.RequestError as error:
            raise NetworkError(
                f"the upstream cannot be reached: {type(error).__name__}",
                hint="check --upstream, and whether the engine runs",
            ) from None

    async def _pass_on(self, asked: Asked, body: bytes, answer: _Answer) -> None:
        headers = self._upstream.headers(asked.headers, keep_key=self._keep_key)
        if asked.method == "POST":
            headers["content-type"] = "application/json"
        request = self._client.build_request(
            asked.method,
            f"{self._upstream.url}/{asked.place}",
            headers=[(name.encode(), value.encode("latin-1")) for name, value in headers.items()],
            content=body if asked.method == "POST" else None,
        )
        response = await self._client.send(request, stream=True)
        try:
            if response.has_redirect_location:
                raise NetworkError(
                    f"the upstream answers with a redirect ({response.status_code})",
                    hint="give the address that it leads to as --upstream",
                )
            await answer.begin(response.status_code, answer_headers(response.headers.raw))
            async for piece in response.aiter_raw():
                await answer.write(piece)
            await answer.finish()
        finally:
            await response.aclose()


class _Answer:
    """The answer under way; `status` is 0 until it has begun."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0

    async def begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.status = status
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, piece: bytes) -> None:
        if piece:
            await self._send({"type": "http.response.body", "body": piece, "more_body": True})

    async def finish(self, content: bytes = b"") -> None:
        await self._send({"type": "http.response.body", "body": content, "more_body": False})

    async def refuse(self, error: MemcubeError) -> None:
        """Say `error` in the form of the OpenAI API; an answer that has begun stays unfinished."""
        if self.status:
            return
        told = {"message": str(error), "type": "memcube", "param": None, "code": error.code}
        content = _written({"error": {**told, "hint": error.hint}})
        length = (b"content-length", str(len(content)).encode())
        await self.begin(outcome_of(error).http_status, [*_JSON, length])
        await self.finish(content)


async def _body(asked: Asked, receive: Receive) -> bytes:
    """The request's content; the guard before this sees to it that it comes in time.

    Raises:
        InvalidRequestError: it is no JSON, or compressed.
        LimitExceededError: more than `REQUEST_BYTES`.
        CallerGoneError: it will not come.
    """
    if asked.method == "POST":
        media_type = asked.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type != "application/json" or "content-encoding" in asked.headers:
            raise InvalidRequestError(
                "the request is not plain application/json",
                hint="send Content-Type: application/json",
            )
    body, more = bytearray(), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise CallerGoneError
        body += message.get("body", b"")
        limits.require_at_most("request", len(body), REQUEST_BYTES)
        more = message.get("more_body", False)
    return bytes(body)


async def _while_connected(receive: Receive, work: Awaitable[None]) -> None:
    """Do `work` for as long as the caller waits for it.

    Raises:
        CallerGoneError: the caller went away; `work` was cancelled.
    """
    doing = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({doing, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            raise CallerGoneError
        await doing
    finally:
        for task in (doing, gone):
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await task


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _is_model(place: str) -> bool:
    """Whether `place` is one model's: `models/` and a name that leads nowhere else."""
    name = place.removeprefix("models/")
    plain = all(char.isalnum() or char in "-._:/@" for char in name)
    return place != name and plain and not {"", ".", ".."} & set(name.split("/"))


def _printable(scope: Mapping[str, Any]) -> str:
    """Method and path in one short line, whatever the caller put there."""
    line = f"{scope['method']} {scope['path']}"[:80]
    return "".join(char if char.isprintable() else "?" for char in line)


def _written(value: Json) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
