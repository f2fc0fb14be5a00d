"""Runs the proxy: one event loop, one thread that looks records up, one listening socket."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from memcube_protocol.errors import MissingDependencyError

from memcube.listening import address_of, listen_at
from memcube.proxy.addition import Addition
from memcube.proxy.callers import Callers
from memcube.proxy.upstream import Upstream

if TYPE_CHECKING:
    import uvicorn

    from memcube.proxy.application import Tell

REQUESTS: Final = 64
"""Requests at the same time; more are told to come again."""

_STOP_S: Final = 10
_HEADER_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Plan:
    """What a proxy does: where it asks, what it adds, whom it answers."""

    upstream: Upstream
    addition: Addition
    callers: Callers


class ProxyServer:
    """A proxy that listens on `port` (0: any free one) of its callers' host; a context manager.

    Raises:
        MissingDependencyError: httpx2 or uvicorn is not installed.
        ConflictError: the port is taken, or the host is not one of this machine.
    """

    def __init__(self, plan: Plan, port: int, tell: Tell) -> None:
        require_packages()
        self._plan = plan
        self._tell = tell
        self._socket = listen_at(plan.callers.host, port)
        self._server: uvicorn.Server | None = None
        self._stopped = False

    @property
    def url(self) -> str:
        """What a client of the OpenAI API takes as its base URL."""
        return f"{address_of(self._socket)}/v1"

    def run(self) -> None:
        """Answer until `stop`, or until a signal ends the process's main thread."""
        asyncio.run(self._serve())

    def stop(self) -> None:
        """End `run`, from any thread; answers under way get some seconds to end."""
        self._stopped = True
        if self._server is not None:
            self._server.should_exit = True

    async def _serve(self) -> None:
        import uvicorn

        from memcube.proxy.application import Proxy

        plan = self._plan
        with ThreadPoolExecutor(1, "memory") as memory:
            async with plan.upstream.connect() as client:
                proxy = Proxy(
                    plan.upstream, client, plan.addition, plan.callers, memory, self._tell
                )
                config = uvicorn.Config(
                    proxy,
                    loop="asyncio",
                    http="h11",
                    ws="none",
                    interface="asgi3",
                    lifespan="off",
                    log_config=None,
                    log_level="critical",
                    access_log=False,
                    proxy_headers=False,
                    server_header=False,
                    limit_concurrency=REQUESTS,
                    timeout_graceful_shutdown=_STOP_S,
                    h11_max_incomplete_event_size=_HEADER_BYTES,
                )
                self._server = uvicorn.Server(config)
                self._server.should_exit = self._stopped
                await self._server.serve(sockets=[self._socket])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()


def require_packages() -> None:
    """Refuse early, before anything is mounted.

    Raises:
        MissingDependencyError: httpx2 or uvicorn is not installed.
    """
    try:
        import httpx2  # noqa: F401
        import uvicorn  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"the proxy needs the package {error.name!r}", hint="pip install 'memcube[proxy]'"
        ) from None
