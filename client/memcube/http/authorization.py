"""Answers to `401`: Basic, or the token handshake of Docker's registries.

Credentials go to the registry that asked, or to its realm over https (or on this machine, where
the registry is on this machine too), and nowhere else. Tokens are kept in memory, per scope.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final
from urllib.parse import urlencode, urlsplit

from memcube_protocol import canonical_json
from memcube_protocol.errors import NetworkError, UnauthenticatedError

from memcube.credentials import Credentials
from memcube.http.challenges import Challenge, parse_challenges
from memcube.http.origins import Origin, Resolve, require_no_deeper, resolve

_BEARER_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_SCOPE: Final = re.compile(r"([^:\s]+):(\S+):([a-z*,]+)")
_DEFAULT_LIFE_S: Final = 60.0
_MARGIN_S: Final = 10.0

FetchToken = Callable[[str, str | None], bytes]
"""Body of the answer to a GET of a URL with an `Authorization` header, if one is given."""


class Authenticator:
    """What to send as `Authorization`, and where.

    Raises, on use:
        UnauthenticatedError: the credentials are refused.
        NetworkError: the challenge or the realm's answer is malformed, or the realm is unsafe.
    """

    def __init__(
        self,
        find: Callable[[str], Credentials | None],
        fetch: FetchToken,
        *,
        now: Callable[[], float] = time.monotonic,
        resolver: Resolve = resolve,
    ) -> None:
        self._find = find
        self._fetch = fetch
        self._now = now
        self._resolver = resolver
        self._lock = threading.Lock()
        self._headers: dict[tuple[Origin, frozenset[str]], tuple[str, float]] = {}

    def header(self, origin: Origin, scopes: frozenset[str]) -> str | None:
        """A header that worked before for `scopes`, unless it has run out."""
        header, until_s = self._headers.get((origin, scopes), (None, 0.0))
        return header if self._now() < until_s else None

    def answer(
        self, origin: Origin, scopes: frozenset[str], challenge: str, rejected: str | None
    ) -> str | None:
        """A header to try after `rejected` was; nothing if there is no other one."""
        with self._lock:
            other_thread_got = self.header(origin, scopes)
            if other_thread_got not in (None, rejected):
                return other_thread_got
            header, life_s = self._new_header(origin, scopes, parse_challenges(challenge))
            if header is None or header == rejected:
                return None
            self._headers[origin, scopes] = (header, self._now() + life_s)
            return header

    def _new_header(
        self, origin: Origin, scopes: frozenset[str], challenges: list[Challenge]
    ) -> tuple[str | None, float]:
        credentials = self._find(origin.authority)
        for challenge in challenges:
            if challenge.scheme == "bearer" and "realm" in challenge.parameters:
                return self._token(origin, scopes, challenge, credentials)
        offered = {challenge.scheme for challenge in challenges}
        if credentials and "bearer" in offered and not credentials.username:
            return f"Bearer {credentials.secret}", float("inf")
        if credentials and "basic" in offered:
            return credentials.basic, float("inf")
        return None, 0.0

    def _token(
        self,
        origin: Origin,
        scopes: frozenset[str],
        challenge: Challenge,
        credentials: Credentials | None,
    ) -> tuple[str, float]:
        realm = challenge.parameters["realm"]
        self._require_safe_realm(origin, Origin.of(realm))
        asked = merge_scopes([*scopes, *challenge.parameters.get("scope", "").split()])
        query = [("service", service)] if (service := challenge.parameters.get("service")) else []
        query += [("scope", scope) for scope in asked]
        divider = "&" if urlsplit(realm).query else "?"
        body = self._fetch(
            f"{realm}{divider}{urlencode(query)}", credentials.basic if credentials else None
        )
        return _read_token(body, origin)

    def _require_safe_realm(self, origin: Origin, realm: Origin) -> None:
        if realm == origin:
            return
        if realm.scheme != "https" and not (origin.is_loopback and realm.is_loopback):
            raise NetworkError(
                f"{origin} wants credentials sent to {realm}, unencrypted",
                hint="the registry is set up wrongly or hostile: ask its operator",
            )
        if not origin.is_loopback:
            require_no_deeper(origin, realm, self._resolver)


def merge_scopes(scopes: Iterable[str]) -> list[str]:
    """Scopes with the actions of one resource joined: `repository:a/b:pull,push`."""
    actions: dict[tuple[str, str], set[str]] = {}
    for scope in scopes:
        if match := _SCOPE.fullmatch(scope):
            actions.setdefault((match[1], match[2]), set()).update(match[3].split(","))
    return [f"{kind}:{name}:{','.join(sorted(acts))}" for (kind, name), acts in actions.items()]


def _read_token(body: bytes, origin: Origin) -> tuple[str, float]:
    """Header and seconds of life that a token endpoint's answer gives."""
    fields = canonical_json.parse_object(body, what=f"token answer for {origin}")
    token = fields.get("token") or fields.get("access_token")
    if not isinstance(token, str) or not _BEARER_TOKEN.fullmatch(token):
        raise UnauthenticatedError(
            f"{origin} gave no usable token", hint="log in again: memcube login"
        )
    life = fields.get("expires_in")
    life_s = float(life) if isinstance(life, int) and life > 0 else _DEFAULT_LIFE_S
    return f"Bearer {token}", life_s - min(_MARGIN_S, life_s / 2)
