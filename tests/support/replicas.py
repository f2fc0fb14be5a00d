"""Several registries on one PostgreSQL and one blob store, behind nginx."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

from support.nginx import Nginx, nginx
from support.postgres import postgres_url
from support.repository import Repository
from support.servers import MemcubeServer, free_port
from support.wire import Wire

PROXIES = "127.0.0.0/8"


@dataclass
class Replicas:
    """Registries that are one: `balancer` leads to any of them, in turn."""

    servers: list[MemcubeServer]
    balancer: Nginx

    @property
    def url(self) -> str:
        return self.balancer.url

    @property
    def wire(self) -> Wire:
        return Wire(self.url)

    @property
    def host(self) -> str:
        """Host and port of `url`."""
        return self.url.removeprefix("http://")

    @staticmethod
    def start(server: MemcubeServer) -> None:
        """Start one of the servers, also again."""
        server.start()
        # The line that a replica prints names the shared URL as well; here its own is wanted.
        server.url = f"http://127.0.0.1:{server.port}"

    def wires(self, token: str) -> list[Wire]:
        """One to each replica itself."""
        return [server.wire.bearer(token) for server in self.servers]

    def person(self, name: str, *quota: str) -> str:
        """A token of the new account `name`."""
        self.servers[0].admin("account", "create", name, *quota)
        return self.servers[0].create_token(name)

    def in_turn(self, token: str, name: str) -> Iterator[Repository]:
        """The repository `name` as each replica shows it, round and round."""
        return cycle([Repository(wire, name) for wire in self.wires(token)])

    def log_text(self) -> str:
        return "".join(server.log_text() for server in self.servers)


@contextmanager
def replicas(
    folder: Path, count: int, settings: Mapping[str, str], *, shared_data: bool
) -> Iterator[Replicas]:
    """`count` registries, started at once on an empty database; their keys are one set of files.

    With `shared_data` they share the data folder too, and so the blobs that lie in files there.
    """
    folder.mkdir(exist_ok=True)
    port = free_port()
    keys = {
        f"{name}_KEY_FILE": str(folder / "keys" / f"{name.lower()}.key")
        for name in ("TOKEN", "LOG", "COUNTERSIGNING")
    }
    common = {
        "DATABASE_URL": postgres_url(),
        "EXTERNAL_URL": f"http://127.0.0.1:{port}",
        "TRUSTED_PROXIES": PROXIES,
        "REQUESTS_PER_S": "0",
        "ANONYMOUS_REQUESTS_PER_S": "0",
    } | keys
    all_settings = {f"MEMCUBE_REGISTRY_{name}": value for name, value in common.items()}
    all_settings |= settings
    servers = [
        MemcubeServer(
            folder / ("data" if shared_data else f"data-{number}"),
            folder / f"server-{number}.log",
            all_settings,
            free_port(),
        )
        for number in range(count)
    ]
    try:
        with ThreadPoolExecutor(count) as pool:
            list(pool.map(Replicas.start, servers))
        with nginx(folder / "nginx", [server.port for server in servers], port) as balancer:
            yield Replicas(servers, balancer)
    finally:
        for server in servers:
            server.stop()
