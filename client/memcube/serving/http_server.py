"""The HTTP server for programs of this machine: uvicorn, which waits for no caller without end.

    caller ── headers, within HEADERS_S ──▶ guard ── body, within guard.BODY_S ──▶ application

A caller that sends its headers a byte at a time would otherwise hold one of the few connections for
as long as it likes (slow loris).
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, Literal

import uvicorn
from memcube_protocol import limits
from uvicorn.protocols.http.h11_impl import H11Protocol

from memcube.serving.guard import Guard

HEADERS_S: Final = 15.0
"""How long the headers of a request may take, from the connection or from the answer before."""
CONNECTIONS: Final = 64
"""At the same time; more are told to come again."""

_HEADER_BYTES: Final = 64 * limits.KIB


def server_of(
    application: Guard, *, lifespan: Literal["on", "off"] = "off", stop_s: int
) -> uvicorn.Server:
    """The server of `application`; at its end, answers under way get `stop_s` seconds to end."""
    config = uvicorn.Config(
        application,
        loop="asyncio",
        http=TimelyProtocol,
        ws="none",
        interface="asgi3",
        lifespan=lifespan,
        log_config=None,
        log_level="critical",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=stop_s,
        h11_max_incomplete_event_size=_HEADER_BYTES,
    )
    return uvicorn.Server(config)


class TimelyProtocol(H11Protocol):  # type: ignore[misc]  # uvicorn is optional
    """HTTP/1.1 on one connection, which is closed where the next request does not begin in time."""

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self._due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Wait for the first request."""
        super().connection_made(transport)
        self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._stop_waiting()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Take what has come; whole headers begin a cycle of their own."""
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            self._stop_waiting()

    def on_response_complete(self) -> None:
        """Wait for the next request, unless it is here already."""
        self._await_request()
        super().on_response_complete()

    def _await_request(self) -> None:
        self._stop_waiting()
        self._due = self.loop.call_later(HEADERS_S, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None
