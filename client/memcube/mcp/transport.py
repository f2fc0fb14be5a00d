"""Running the server: over stdio for a client that started it, or over HTTP for several."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from memcube_protocol import limits
from memcube_protocol.errors import MissingDependencyError

from memcube.serving.guard import Entrance, Guard
from memcube.serving.listening import address_of, listen_at

if TYPE_CHECKING:
    from memcube.mcp.desk import Desk

PATH: Final = "/mcp"
BODY_BYTES: Final = 256 * limits.KIB
SESSIONS: Final = 64
_IDLE_S: Final = 30 * 60.0
_STOP_S: Final = 5


def require_sdk() -> None:
    """Refuse early, before anything is mounted.

    Raises:
        MissingDependencyError: the SDK is not installed.
    """
    try:
        import mcp.server
    except ImportError:
        raise MissingDependencyError(
            "`memcube mcp` needs the package 'mcp', which is not installed",
            hint="pip install 'memcube[mcp,plaintext]'",
        ) from None
    del mcp


def serve_stdio(desk: Desk) -> None:
    """Answer on stdin and stdout until the client closes them."""
    import anyio

    anyio.run(_stdio, desk)


async def _stdio(desk: Desk) -> None:
    from mcp.server.stdio import stdio_server

    from memcube.mcp.server import server_of

    server = server_of(desk)
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


def application(desk: Desk, entrance: Entrance) -> Guard:
    """The ASGI application behind its guard; its lifespan must be run."""
    from mcp.server.transport_security import TransportSecuritySettings
    from starlette.middleware.cors import CORSMiddleware

    from memcube.mcp.server import server_of

    app = server_of(desk).streamable_http_app(
        streamable_http_path=PATH,
        json_response=True,
        max_request_body_size=BODY_BYTES,
        max_sessions=SESSIONS,
        session_idle_timeout=_IDLE_S,
        # Names and pages are the guard's, which knows what the user allowed.
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )
    # Preflights end here, so that no request without a token comes further.
    pages = CORSMiddleware(
        app,
        allow_origins=sorted(entrance.origins),
        allow_methods=("GET", "POST", "DELETE"),
        allow_headers=("*",),
        expose_headers=("mcp-session-id",),
    )
    return Guard(pages, entrance)


def serve_http(
    desk: Desk,
    host: str,
    port: int,
    *,
    entrance: Callable[[int], Entrance],
    listening: Callable[[str], None],
) -> None:
    """Answer at `host` and `port` (0: a free one) until the process is stopped.

    `entrance` is made for the port that was got; `listening` hears the URL once requests are taken.

    Raises:
        ConflictError: the address is in use, or is none of this machine.
        InvalidSettingError: whatever `entrance` raises.
    """
    import anyio

    from memcube.serving.http_server import server_of

    with listen_at(host, port) as listener:
        guarded = application(desk, entrance(listener.getsockname()[1]))
        server = server_of(guarded, lifespan="on", stop_s=_STOP_S)
        listening(f"{address_of(listener)}{PATH}")
        serve: Any = partial(server.serve, sockets=[listener])
        anyio.run(serve)
