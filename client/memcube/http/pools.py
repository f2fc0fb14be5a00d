"""Connections: pools kept per origin, TLS verified, proxies from the environment, peers checked."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable
from typing import Any, Final

import urllib3
from memcube_protocol.errors import UnsafeRedirectError
from urllib3.connection import HTTPConnection, HTTPSConnection

from memcube.http.bodies import FileSlice
from memcube.http.origins import Origin, Reach, reach_of_address

CONNECT_S: Final = 10.0
READ_S: Final = 60.0
_POOLS: Final = 16

Note = Callable[[str, str], None]
"""Hears of a host and of the address at which it was reached."""


class _Connection(HTTPConnection):
    """A connection that can send a part of a file, and that knows how far inside it may lead."""

    deepest = Reach.LOOPBACK
    note: Note

    def connect(self) -> None:
        super().connect()
        self.note(self.host, peer_of(self))
        _require_peer(self, self.deepest)

    def send(self, data: Any) -> None:
        if isinstance(data, FileSlice):
            data.send_to(self.sock)
        else:
            super().send(data)


class _TlsConnection(_Connection, HTTPSConnection):
    """The same over TLS."""


class Pools:
    """The connection pools of one client; `note` hears whom each connection reached."""

    def __init__(self, connections: int, note: Note) -> None:
        self._connections = connections
        self._note = note
        self._managers: dict[tuple[Reach, str], urllib3.PoolManager] = {}

    def manager(self, target: Origin, deepest: Reach) -> urllib3.PoolManager:
        """Pools for `target`, whose connections lead no further inside than `deepest`."""
        proxy = _proxy_of(target)
        key = (deepest, proxy)
        if key not in self._managers:
            self._managers[key] = self._make(deepest, proxy)
        return self._managers[key]

    def close(self) -> None:
        """Close every connection that is not in use."""
        for manager in self._managers.values():
            manager.clear()

    def _make(self, deepest: Reach, proxy: str) -> urllib3.PoolManager:
        options: dict[str, Any] = {"num_pools": _POOLS, "maxsize": self._connections}
        manager = (
            urllib3.ProxyManager(proxy, **options) if proxy else urllib3.PoolManager(**options)
        )
        # A proxy resolves names itself: whom it connects to cannot be seen from here.
        manager.pool_classes_by_scheme = _pool_classes(
            Reach.LOOPBACK if proxy else deepest, self._note
        )
        return manager


def waits(patience_s: float | None = None) -> urllib3.Timeout:
    """How long a server may take to be reached, and to say something: `READ_S`, or `patience_s`."""
    return urllib3.Timeout(connect=CONNECT_S, read=READ_S if patience_s is None else patience_s)


def peer_of(connection: HTTPConnection) -> str:
    """The address that an open connection leads to."""
    return str(connection.sock.getpeername()[0])


def _pool_classes(deepest: Reach, note: Note) -> dict[str, Any]:
    own = {"deepest": deepest, "note": staticmethod(note)}
    plain = type("Plain", (_Connection,), own)
    tls = type("Tls", (_TlsConnection,), own)
    return {
        "http": type("PlainPool", (urllib3.HTTPConnectionPool,), {"ConnectionCls": plain}),
        "https": type("TlsPool", (urllib3.HTTPSConnectionPool,), {"ConnectionCls": tls}),
    }


def _require_peer(connection: HTTPConnection, deepest: Reach) -> None:
    """Refuse a peer further inside than allowed: a name may resolve anew between check and use."""
    if deepest is Reach.LOOPBACK:
        return
    reach = reach_of_address(peer_of(connection))
    if reach > deepest:
        connection.close()
        raise UnsafeRedirectError(
            f"{connection.host} leads into a {reach.name.lower().replace('_', '-')} network",
            hint="the registry is set up wrongly or hostile: ask its operator",
        )


def _proxy_of(target: Origin) -> str:
    """Address of the proxy to use for `target`, or the empty text."""
    if target.is_loopback or urllib.request.proxy_bypass(target.host):
        return ""
    return urllib.request.getproxies().get(target.scheme, "")
