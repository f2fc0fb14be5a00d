"""Runs the proxy: one event loop, one thread that looks records up, one listening socket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from memcube_protocol.errors import MissingDependencyError

from memcube.closing import Closing
from memcube.proxy.addition import Addition
from memcube.proxy.upstream import Upstream
from memcube.serving.guard import Entrance, Guard
from memcube.serving.listening import address_of, listen_at

if TYPE_CHECKING:
    import httpx2
    import uvicorn

    from memcube.proxy.application import Tell

_STOP_S: Final = 10


class ProxyServer(Closing):
    """A proxy that listens at `host` and `port` (0: any free one); a context manager.

    `entrance` says for the port that was got whom it answers.

    Raises:
        MissingDependencyError: a package of the extra is not installed.
        ConflictError: the port is taken, or the host is not one of this machine.
        InvalidSettingError: whatever `entrance` raises.
    """

    def __init__(
        self,
        upstream: Upstream,
        addition: Addition,
        *,
        host: str,
        port: int,
        entrance: Callable[[int], Entrance],
        tell: Tell,
    ) -> None:
        require_packages()
        self._upstream = upstream
        self._addition = addition
        self._tell = tell
        self._socket = listen_at(host, port)
        try:
            self._entrance = entrance(self._socket.getsockname()[1])
        except BaseException:
            self._socket.close()
            raise
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
        from memcube.serving.http_server import server_of

        with ThreadPoolExecutor(1, "memory") as memory:
            async with self._upstream.connect() as client:
                self._server = server_of(self._application(client, memory), stop_s=_STOP_S)
                self._server.should_exit = self._stopped
                await self._server.serve(sockets=[self._socket])

    def _application(self, client: httpx2.AsyncClient, memory: Executor) -> Guard:
        """The proxy behind its guard; what browsers ask before a page's request ends between them."""
        from starlette.middleware.cors import CORSMiddleware

        from memcube.proxy.application import Proxy

        keep_key = self._entrance.token is None
        proxy = Proxy(self._upstream, client, self._addition, memory, self._tell, keep_key=keep_key)
        pages: Any = CORSMiddleware(
            proxy,
            allow_origins=sorted(self._entrance.origins),
            allow_methods=("GET", "POST"),
            allow_headers=("*",),
        )
        return Guard(pages, self._entrance)

    def close(self) -> None:
        """Let go of the port."""
        self._socket.close()


def require_packages() -> None:
    """Refuse early, before anything is mounted.

    Raises:
        MissingDependencyError: a package of the extra is not installed.
    """
    try:
        import httpx2  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"the proxy needs the package {error.name!r}", hint="pip install 'memcube[proxy]'"
        ) from None
