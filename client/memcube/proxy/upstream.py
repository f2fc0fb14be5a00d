"""The engine behind the proxy: its address, whose key it is shown, and which headers pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import urlsplit

from memcube_protocol.errors import InvalidSettingError
from memcube_protocol.values import frozen

from memcube.settings import is_loopback

if TYPE_CHECKING:
    import httpx2

    from memcube.settings import Settings

CONNECT_S: Final = 10.0
WRITE_S: Final = 60.0
CONNECTIONS: Final = 64
TIMEOUT_S: Final = 600.0
"""How long the upstream may be silent: an engine may read a long prompt for minutes."""

_ASKED: Final = frozenset(
    {"accept", "accept-encoding", "idempotency-key", "traceparent", "user-agent", "x-request-id"}
)
_ASKED_FAMILIES: Final = ("openai-", "x-stainless-")
_OF_THE_CONNECTION: Final = frozenset(
    {
        *("connection", "keep-alive", "proxy-authenticate", "proxy-connection", "te"),
        *("trailer", "transfer-encoding", "upgrade"),
    }
)
_NO_PAGE: Final = {
    "content-security-policy": "sandbox; default-src 'none'",
    "x-content-type-options": "nosniff",
}
"""A browser that is led here shows an answer at most: what the upstream sends runs nothing under this address."""
_NOT_ANSWERED: Final = (
    _OF_THE_CONNECTION
    | _NO_PAGE.keys()
    | {"clear-site-data", "date", "location", "refresh", "server", "set-cookie"}
)


@frozen
class Upstream:
    """Where requests go: `url` as a client of the OpenAI API takes it, `…/v1`.

    With `key` the upstream is shown that one; else the caller's own.
    """

    url: str
    key: str | None = field(default=None, repr=False)
    timeout_s: float = TIMEOUT_S

    @classmethod
    def parse(
        cls, url: str, settings: Settings, *, key: str | None = None, timeout_s: float = TIMEOUT_S
    ) -> Self:
        """The upstream at `url`.

        Raises:
            InvalidSettingError: not an http or https address, one with a password, query or fragment,
                or plain http to another machine that is not listed as insecure.
        """
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname or "", parts.port
        except ValueError:
            raise _invalid(f"{url[:200]!r} is not an address") from None
        if parts.scheme not in ("http", "https") or not host or not url.isprintable():
            raise _invalid(f"{url[:200]!r} is not an address with http:// or https://")
        if parts.username is not None or parts.query or parts.fragment:
            raise _invalid("the address holds a password, a query or a fragment")
        if parts.scheme == "http" and not settings.allows_plain_http(parts.netloc):
            raise _invalid(
                f"http://{parts.netloc} would get memory and key unencrypted",
                hint=f"use https, or list {parts.netloc!r} under `insecure` in config.toml",
            )
        return cls(url.rstrip("/"), key, timeout_s)

    @property
    def host(self) -> str:
        """Where it is: `host` or `host:port`."""
        return urlsplit(self.url).netloc

    def headers(self, asked: Mapping[str, str], *, keep_key: bool) -> dict[str, str]:
        """What the upstream is told: of the headers `asked` (in lower case) those that concern it.

        The caller's key is among them if `keep_key` says that it is meant for the upstream.
        """
        told = {
            name: value
            for name, value in asked.items()
            if name in _ASKED or name.startswith(_ASKED_FAMILIES)
        }
        if self.key is not None:
            told["authorization"] = f"Bearer {self.key}"
        elif keep_key and "authorization" in asked:
            told["authorization"] = asked["authorization"]
        told.setdefault("accept-encoding", "identity")
        return told

    def connect(self) -> httpx2.AsyncClient:
        """A client for it: it follows no redirect, and keeps no cookie that callers would then share."""
        import httpx2

        return httpx2.AsyncClient(
            timeout=httpx2.Timeout(
                connect=CONNECT_S, read=self.timeout_s, write=WRITE_S, pool=CONNECT_S
            ),
            limits=httpx2.Limits(max_connections=CONNECTIONS),
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            follow_redirects=False,
            # Proxies of the environment; none leads to this machine.
            trust_env=not is_loopback(self.host),
        )


def answer_headers(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Of an upstream's `headers` those that go to the caller, and what makes the answer no page.

    Its cookies and redirects do not go there.
    """
    told = [
        (name.lower(), value)
        for name, value in headers
        if name.lower().decode("latin-1") not in _NOT_ANSWERED
    ]
    return told + [(name.encode(), value.encode()) for name, value in _NO_PAGE.items()]


def _invalid(why: str, *, hint: str | None = None) -> InvalidSettingError:
    return InvalidSettingError(
        why, hint=hint or "give the address that an OpenAI client would take: https://…/v1"
    )
