"""Who may ask the proxy: programs of this machine, never a page that a browser has open.

A page of any site can make a browser send requests to 127.0.0.1, and, once its name is made to point
there, read the answers: memory would leave the machine, at the cost of whoever's key is used.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from memcube_protocol.errors import ForbiddenError, InvalidSettingError, UnauthenticatedError

from memcube.settings import host_name, is_loopback

_BEARER: Final = "bearer "


@dataclass(frozen=True, slots=True)
class Callers:
    """Whom the proxy at `host` answers; with `key`, those alone that show it as their API key.

    Raises:
        InvalidSettingError: other machines could ask, and no key keeps them out.
    """

    host: str
    key: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not is_loopback(self.host) and not self.key:
            raise InvalidSettingError(
                f"everybody who reaches {self.host} could read the mounted memory",
                hint="listen on 127.0.0.1, or demand a key with --caller-key-env",
            )

    def admit(self, headers: Mapping[str, str]) -> None:
        """Let the request with `headers` (names in lower case) pass, or refuse it.

        Raises:
            ForbiddenError: it comes from a browser, or was sent to another name than this machine's.
            UnauthenticatedError: it does not show the key.
        """
        if "origin" in headers or headers.get("sec-fetch-site", "none") != "none":
            raise ForbiddenError(
                "pages of the web may not ask this proxy",
                hint="call it from a program, not from a browser",
            )
        asked = headers.get("host", "")
        if is_loopback(self.host) and not is_loopback(asked):
            raise ForbiddenError(
                f"{host_name(asked)[:100]!r} is not a name of this machine",
                hint=f"ask http://{self.host}",
            )
        if self.key is not None and not _shows(headers.get("authorization", ""), self.key):
            raise UnauthenticatedError(
                "the API key is not the one that this proxy demands",
                hint="set the client's API key to the value of --caller-key-env",
            )


def _shows(authorization: str, key: str) -> bool:
    shown = authorization[len(_BEARER) :] if authorization.lower().startswith(_BEARER) else ""
    return hmac.compare_digest(shown.encode(), key.encode())
