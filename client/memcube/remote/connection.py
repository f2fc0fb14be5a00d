"""What every request to one registry needs: its address, its URLs, the scopes to ask a token for."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote

from memcube_protocol import limits
from memcube_protocol.errors import NetworkError, UnsupportedError
from memcube_protocol.reference import HUB_HOST

from memcube.http import HttpClient, Origin, Request, Response
from memcube.settings import Settings

DONE: Final = (201, 200, 204)
"""Answers that mean that a blob is there whole: registries do not agree on the one that is right."""
TAKEN: Final = (*DONE, 202)
"""The same for a manifest."""
GONE: Final = (202, 200, 204)
"""Answers that mean that what was deleted is gone."""
PAGES: Final = 10_000
LIST_BYTES: Final = 64 * limits.MIB
"""What all pages of one list may hold: they are kept in memory."""
_LINK: Final = re.compile(r"<([^<>]+)>([^,<]*)")
_NEXT: Final = re.compile(r";\s*rel=\"?next\"?")


class Connection:
    """The registry at `host` (`host[:port]`; empty: the default one).

    Raises:
        UnsupportedError: `host` is the Hub's, which is none.
    """

    def __init__(self, host: str, http: HttpClient, settings: Settings) -> None:
        self.endpoint = settings.endpoint_of(host)
        if self.endpoint.host == HUB_HOST:
            raise UnsupportedError(
                "the Hugging Face Hub is no registry, and cannot do this",
                hint="log in there with HF_TOKEN or hf auth login; keep keys, logs and jobs at a registry",
            )
        self.host = self.endpoint.host
        self.http = http
        self.origin = Origin.of(self.endpoint.url)

    def read(
        self, name: str, method: str, rest: str, headers: dict[str, str] | None = None
    ) -> Request:
        """A request that reads from repository `name`."""
        scopes = frozenset({scope_of(name, "pull")})
        return Request(method, self.url(name, rest), headers or {}, scopes=scopes)

    def write(self, name: str, method: str, rest: str) -> Request:
        """A request that changes repository `name`."""
        return Request(
            method, self.url(name, rest), scopes=frozenset({scope_of(name, "delete,pull")})
        )

    def send(self, request: Request, *accept: int) -> Response:
        """The answer, if its status is one of `accept` (200 if none is given)."""
        return self.http.send(request, accept or (200,))

    def url(self, name: str, rest: str) -> str:
        """URL of something in repository `name`."""
        return f"{self.endpoint.url}/v2/{quote(name)}/{rest}"

    def same_origin(self, url: str) -> str:
        """`url` itself, if it is of this registry.

        Raises:
            NetworkError: it leads elsewhere.
        """
        if Origin.of(url) != self.origin:
            raise nonsense(self.host, "a next page on another host")
        return url


def next_page(response: Response) -> str | None:
    """Where a list goes on, as `Link` says (RFC 8288); nothing: it ends here."""
    links = _LINK.finditer(response.headers.get("link", ""))
    return next((link[1] for link in links if _NEXT.search(link[2])), None)


def scope_of(name: str, actions: str) -> str:
    """A scope of the token handshake."""
    return f"repository:{name}:{actions}"


def nonsense(host: str, what: str) -> NetworkError:
    """The error for an answer that breaks the protocol."""
    return NetworkError(f"{host} answered with {what}", hint="the registry is faulty")
