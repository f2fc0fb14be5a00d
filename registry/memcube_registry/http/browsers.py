"""What browsers may ask a registry, whose requests are caused by pages of strangers too.

A browser sends what a page of any site asks for, with the name and token that its user once typed at
`/token` (Basic), and under a name that the site let lead to this machine (DNS rebinding). So what
changes something does not come from another site, and a registry that only this machine can ask is not
asked under a name that others give it. Programs send none of the headers that decide here.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import urlsplit

from memcube_protocol.errors import ForbiddenError

from memcube_registry.http.asgi import Scope
from memcube_registry.settings import Settings

_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_SITES: Final = frozenset({b"none", b"same-origin"})
"""`Sec-Fetch-Site` of what the user typed, or a page of this registry asks."""
_USUAL_PORTS: Final = {"http": ":80", "https": ":443"}


@dataclass(frozen=True, slots=True)
class Entrance:
    """`origin` is that of the registry's own pages; `is_local` says that only this machine can ask."""

    origin: str
    is_local: bool

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The entrance of a registry with these settings.

        With an external URL others may ask through a proxy, under whatever names that has.
        """
        parts = urlsplit(settings.url)
        host = parts.netloc.lower().removesuffix(_USUAL_PORTS[parts.scheme])
        is_local = not settings.external_url and _is_of_this_machine(settings.host.strip("[]"))
        return cls(f"{parts.scheme}://{host}", is_local)

    def require_welcome(self, scope: Scope) -> None:
        """Refuse what a page of somebody else caused, as far as it could do harm.

        Raises:
            ForbiddenError: it would change something, or asks a local registry under another's name.
        """
        headers: Iterable[tuple[bytes, bytes]] = scope["headers"]
        if self.is_local and not all(_is_own_name(v) for k, v in headers if k == b"host"):
            raise ForbiddenError(
                "only this machine can ask this registry, and not by that name",
                hint="ask 127.0.0.1 or localhost, or set external_url to the URL by which clients reach it",
            )
        if scope["method"] not in _READS and any(self._is_foreign(k, v) for k, v in headers):
            raise ForbiddenError(
                "pages of other sites may change nothing here",
                hint="use a program, such as memcube",
            )

    def _is_foreign(self, name: bytes, value: bytes) -> bool:
        """Whether a header tells of a page of another site."""
        if name == b"origin":
            return value.decode("latin-1").lower() != self.origin
        return name == b"sec-fetch-site" and value not in _OWN_SITES


def _is_own_name(host: bytes) -> bool:
    """Whether a `Host` header holds an address, which nobody can let lead elsewhere, or `localhost`."""
    try:
        name = urlsplit("//" + host.decode("latin-1")).hostname or ""
    except ValueError:
        return False
    return name == "localhost" or name.endswith(".localhost") or _address(name) is not None


def _is_of_this_machine(host: str) -> bool:
    address = _address(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
