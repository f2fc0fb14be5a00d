"""Answers to `401`: an API token as it is, Basic, or the token handshake of Docker's registries.

An API token goes with every request to its own registry, so that one without a challenge (a price,
a private name) is answered for its owner. Other credentials go to the registry that asked, or to its realm over https (or on this machine, where
the registry is on this machine too), and nowhere else. Tokens are kept in memory, per scope.
"""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final
from urllib.parse import urlencode, urlsplit

from memcube_protocol import canonical_json
from memcube_protocol.errors import NetworkError, UnauthenticatedError
from memcube_protocol.values import frozen

from memcube.accounts.credentials import Credentials
from memcube.http.challenges import Challenge, parse_challenges
from memcube.http.origins import Origin, Resolve, require_no_deeper, resolve

_BEARER_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_SCOPE: Final = re.compile(r"([^:\s]+):(\S+):([a-z*,]+)")
_DEFAULT_LIFE_S: Final = 60.0
_MARGIN_S: Final = 10.0

Actions = dict[tuple[str, str], set[str]]
"""Actions per kind and name of a resource."""

FetchToken = Callable[[str, str | None, Origin], bytes]
"""Body of the answer to a GET of a URL, with an `Authorization` header if one is given, for a registry."""


@frozen
class Grant:
    """A header that a registry takes for `scopes` (nothing: for all) until a monotonic time."""

    header: str
    scopes: frozenset[str] | None
    until_s: float

    def covers(self, scopes: frozenset[str]) -> bool:
        """Whether this is good for all of `scopes`."""
        if self.scopes is None:
            return True
        held = actions_of(self.scopes)
        return all(acts <= held.get(key, set()) for key, acts in actions_of(scopes).items())


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
        self._grants: dict[Origin, tuple[Grant, ...]] = {}
        self._api_tokens: dict[Origin, str | None] = {}

    def header(self, origin: Origin, scopes: frozenset[str]) -> str | None:
        """A header that worked before for `scopes` and has not run out, or the API token."""
        for grant in self._grants.get(origin, ()):
            if grant.covers(scopes) and self._now() < grant.until_s:
                return grant.header
        return self._api_token(origin)

    def _api_token(self, origin: Origin) -> str | None:
        if origin not in self._api_tokens:
            credentials = self._find(origin.authority)
            lone = credentials if credentials and not credentials.username else None
            self._api_tokens[origin] = f"Bearer {lone.secret}" if lone else None
        return self._api_tokens[origin]

    def answer(
        self, origin: Origin, scopes: frozenset[str], challenge: str, rejected: str | None
    ) -> str | None:
        """A header to try after `rejected` was; nothing if there is no other one."""
        with self._lock:
            other_thread_got = self.header(origin, scopes)
            if other_thread_got not in (None, rejected):
                return other_thread_got
            grant = self._new_grant(origin, scopes, parse_challenges(challenge))
            if grant is None or grant.header == rejected:
                return None
            others = (old for old in self._grants.get(origin, ()) if old.header != rejected)
            self._grants[origin] = (grant, *others)
            return grant.header

    def _new_grant(
        self, origin: Origin, scopes: frozenset[str], challenges: list[Challenge]
    ) -> Grant | None:
        credentials = self._find(origin.authority)
        offered = {challenge.scheme: challenge for challenge in reversed(challenges)}
        bearer = offered.get("bearer")
        if bearer and (api_token := self._api_token(origin)):
            return Grant(api_token, None, math.inf)
        if bearer and "realm" in bearer.parameters:
            return self._token(origin, scopes, bearer, credentials)
        if credentials and "basic" in offered:
            return Grant(credentials.basic, None, math.inf)
        return None

    def _token(
        self,
        origin: Origin,
        scopes: frozenset[str],
        challenge: Challenge,
        credentials: Credentials | None,
    ) -> Grant:
        realm = challenge.parameters["realm"]
        self._require_safe_realm(origin, Origin.of(realm))
        asked = merge_scopes([*scopes, *challenge.parameters.get("scope", "").split()])
        query = [("service", service)] if (service := challenge.parameters.get("service")) else []
        query += [("scope", scope) for scope in asked]
        divider = "&" if urlsplit(realm).query else "?"
        authorization = credentials.basic if credentials else None
        body = self._fetch(f"{realm}{divider}{urlencode(query)}", authorization, origin)
        header, life_s = _read_token(body, origin)
        return Grant(header, frozenset(asked), self._now() + life_s)

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
    actions = actions_of(scopes).items()
    return [f"{kind}:{name}:{','.join(sorted(acts))}" for (kind, name), acts in actions]


def actions_of(scopes: Iterable[str]) -> Actions:
    """The actions that `scopes` name; malformed ones are left out."""
    actions: Actions = {}
    for scope in scopes:
        if match := _SCOPE.fullmatch(scope):
            actions.setdefault((match[1], match[2]), set()).update(match[3].split(","))
    return actions


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
