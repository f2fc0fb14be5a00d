"""Origins and how far inside they lie: what decides where a redirect or a token realm may lead."""

from __future__ import annotations

import enum
import ipaddress
import re
import socket
from collections.abc import Callable
from typing import Final, Self
from urllib.parse import urljoin, urlsplit

from memcube_protocol.errors import NetworkError, UnsafeRedirectError
from memcube_protocol.values import frozen

_PORTS: Final = {"http": 80, "https": 443}
_URL_CHARS: Final = 16 * 1024
_AUTHORITY: Final = re.compile(
    r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9._-]+)?\])(?::[0-9]*)?"
)
"""What every program reads as the same host and port: `@` and `\\` are read in two ways."""
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")

Resolve = Callable[[str, int], list[str]]
"""Addresses of a host name."""


class Reach(enum.IntEnum):
    """How far inside an address lies; nobody is led further inside than where they came from."""

    PUBLIC = 0
    PRIVATE = 1
    LINK_LOCAL = 2
    LOOPBACK = 3


class KnownAddresses:
    """Every address that a name was seen to have, beside those that it has now: a `Resolve`.

    Whoever owns a name could else lie outside while it is asked, and inside while it is judged.
    """

    def __init__(self, resolver: Resolve) -> None:
        self._resolver = resolver
        self._seen: dict[str, set[str]] = {}

    def note(self, host: str, address: str) -> None:
        """Remember that a connection to `host` led to `address`."""
        self._seen.setdefault(host, set()).add(address)

    def __call__(self, host: str, port: int) -> list[str]:
        """The addresses of `host`, old and new.

        Raises:
            NetworkError: it has none now.
        """
        for address in self._resolver(host, port):
            self.note(host, address)
        return list(self._seen.get(host, ()))


@frozen
class Origin:
    """Scheme, host and port: what credentials belong to (RFC 6454)."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Self:
        """Origin of an absolute http or https URL.

        Raises:
            NetworkError: it is no such URL, or it holds a user name, a password or another odd sign.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise _nonsense(url) from None
        plain = url.isascii() and url.isprintable() and " " not in url and len(url) <= _URL_CHARS
        if parts.scheme not in _PORTS or not parts.hostname or not plain:
            raise _nonsense(url)
        if not _AUTHORITY.fullmatch(parts.netloc):
            raise _nonsense(url)
        return cls(parts.scheme, parts.hostname, port or _PORTS[parts.scheme])

    @property
    def is_loopback(self) -> bool:
        """Whether the host is written as this machine."""
        return self.host == "localhost" or _reach_of_literal(self.host) is Reach.LOOPBACK

    @property
    def authority(self) -> str:
        """`host[:port]` as references write it: the port stands there unless it is the usual one."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def reach_of_address(address: str) -> Reach:
    """How far inside the IP address `address` lies; what is neither public nor known is loopback."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        ip = _within(ip)
    if ip.is_loopback or ip.is_unspecified or ip.is_multicast:
        return Reach.LOOPBACK
    if ip.is_link_local:
        return Reach.LINK_LOCAL
    return Reach.PUBLIC if ip.is_global else Reach.PRIVATE


def _within(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address that `ip` stands for, where gateways or the system translate it to IPv4."""
    if ip in _NAT64:
        return ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF)
    return ip.ipv4_mapped or ip.sixtofour or ip


def resolve(host: str, port: int) -> list[str]:
    """Addresses of `host`, as the system resolves it.

    Raises:
        NetworkError: it has none.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise NetworkError(
            f"host {host} is not found: {error.strerror}", hint="check the name and the connection"
        ) from None
    return [str(address[0]) for *_, address in found]


def follow(
    origin: Origin, base_url: str, location: str, *, resolver: Resolve = resolve
) -> tuple[str, Origin]:
    """URL and origin that `location`, answered at `base_url`, leads to.

    `origin` is where the first request went. Plain http leads only to itself or to this machine.

    Raises:
        UnsafeRedirectError: to another scheme, or further inside than `origin` lies.
        NetworkError: the location is not a URL, or its host is unknown.
    """
    url = urljoin(base_url, location).partition("#")[0]
    target = Origin.of(url)
    here = Origin.of(base_url)
    if target == here:
        return url, target
    if target.scheme == "http" and here.scheme == "https":
        raise _unsafe(here, target, "from https down to http")
    if target.scheme == "http" and not target.is_loopback and target.host != origin.host:
        raise _unsafe(here, target, "to a third host over plain http")
    if not origin.is_loopback:
        require_no_deeper(origin, target, resolver)
    return url, target


def require_no_deeper(
    origin: Origin,
    target: Origin,
    resolver: Resolve = resolve,
    *,
    deepest: Reach = Reach.LOOPBACK,
) -> None:
    """Refuse a `target` further inside than `origin`, or than `deepest`.

    Raises:
        UnsafeRedirectError: an address of `target` is loopback, link-local or private, and one of `origin`
            lies further out.
    """
    if target.host == origin.host:
        return
    there = max(_reach(target, resolver))
    if there > Reach.PUBLIC and there > min(deepest, deepest_from(origin, resolver)):
        raise _unsafe(origin, target, f"into a {there.name.lower().replace('_', '-')} network")


def deepest_from(origin: Origin, resolver: Resolve = resolve) -> Reach:
    """How far inside a redirect from `origin` may lead.

    Whoever owns a name chooses its addresses: one inside, beside one outside, opens nothing.
    """
    return min(_reach(origin, resolver))


def _reach(origin: Origin, resolver: Resolve) -> list[Reach]:
    if origin.is_loopback:
        return [Reach.LOOPBACK]
    literal = _reach_of_literal(origin.host)
    if literal is not None:
        return [literal]
    return [reach_of_address(address) for address in resolver(origin.host, origin.port)]


def _reach_of_literal(host: str) -> Reach | None:
    try:
        return reach_of_address(host)
    except ValueError:
        return None


def _unsafe(here: Origin, target: Origin, why: str) -> UnsafeRedirectError:
    return UnsafeRedirectError(
        f"{here} leads to {target}: {why}; nothing was sent there",
        hint="the registry is set up wrongly or hostile: ask its operator",
    )


def _nonsense(url: str) -> NetworkError:
    return NetworkError(
        f"the registry names an address that is not a URL: {url[:100]!r}",
        hint="the registry is set up wrongly: ask its operator",
    )
