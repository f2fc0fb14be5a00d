"""The identity token that a CI job has at hand (OpenID Connect): found, fetched, and looked at.

In this order: `MEMCUBE_ID_TOKEN` holds one (GitLab's `id_tokens`, and every other CI);
`MEMCUBE_ID_TOKEN_FILE` names a file with one; GitHub Actions gives one for the asking. A token is for one
audience, and sent to nobody else: its audience is the host that is pushed to, whatever that host says.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Final
from urllib.parse import quote

from memcube_protocol import canonical_json, limits
from memcube_protocol.errors import (
    InvalidError,
    InvalidSettingError,
    LimitExceededError,
    MemcubeError,
    UnauthenticatedError,
    UnavailableError,
)
from memcube_protocol.values import frozen

from memcube.http import HttpClient, Origin, Request
from memcube.store.files import read_file

TOKEN: Final = "MEMCUBE_ID_TOKEN"
TOKEN_FILE: Final = "MEMCUBE_ID_TOKEN_FILE"
GITHUB_URL: Final = "ACTIONS_ID_TOKEN_REQUEST_URL"
GITHUB_TOKEN: Final = "ACTIONS_ID_TOKEN_REQUEST_TOKEN"
_TOKEN_BYTES: Final = 16 * limits.KIB
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")
_GUIDE: Final = "see docs/guide/trusted-publishing.md"


@frozen
class IdentityToken:
    """A token as it was found, and what it says of itself: only its issuer's keys can prove that."""

    text: str = field(repr=False)
    issuer: str
    subject: str
    audiences: tuple[str, ...]


def is_at_hand(environ: Mapping[str, str]) -> bool:
    """Whether this looks like a job that has an identity token."""
    return any(environ.get(name) for name in (TOKEN, TOKEN_FILE)) or _is_github(environ)


def find(environ: Mapping[str, str], http: HttpClient, audience: str) -> IdentityToken | None:
    """The job's identity token for `audience`; None where there is none.

    Raises:
        InvalidSettingError: a variable holds something else, or a token for somebody else.
        UnavailableError: the CI does not give one now.
        NetworkError, StorageError: it cannot be reached, or read.
    """
    if text := environ.get(TOKEN):
        return _for_audience(read(text, TOKEN), audience, TOKEN)
    if path := environ.get(TOKEN_FILE):
        content = read_file(Path(path), _TOKEN_BYTES)
        if content is None:
            raise _unusable(TOKEN_FILE, "there is no such file")
        return _for_audience(
            read(content.decode("latin-1").strip(), TOKEN_FILE), audience, TOKEN_FILE
        )
    if _is_github(environ):
        text = _from_github(environ, http, audience)
        return _for_audience(read(text, GITHUB_URL), audience, GITHUB_URL)
    return None


def read(text: str, where: str) -> IdentityToken:
    """What the token `text`, found in the variable `where`, says; its signature is not looked at.

    Raises:
        InvalidSettingError: it is not a JSON Web Token with issuer, subject and audience.
    """
    try:
        if len(text) > _TOKEN_BYTES or not _TOKEN.fullmatch(text):
            raise ValueError
        part = text.split(".")[1]
        content = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
        claims = canonical_json.parse_object(content, what="identity token")
    except (ValueError, binascii.Error, InvalidError, LimitExceededError):
        raise _unusable(where, "it holds no identity token") from None
    issuer, subject, audience = claims.get("iss"), claims.get("sub"), claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    if not isinstance(issuer, str) or not isinstance(subject, str):
        raise _unusable(where, "the token names no issuer or no subject")
    return IdentityToken(text, issuer, subject, tuple(map(str, audiences)))


def advice(environ: Mapping[str, str]) -> str | None:
    """How a job of this CI gets an identity token, where it has none."""
    if is_at_hand(environ):
        return None
    if environ.get("GITHUB_ACTIONS"):
        return f"in GitHub Actions give the job `permissions: id-token: write`; {_GUIDE}"
    if environ.get("GITLAB_CI"):
        return f"in GitLab give the job `id_tokens: {TOKEN}: aud: HOST`; {_GUIDE}"
    return None


def _from_github(environ: Mapping[str, str], http: HttpClient, audience: str) -> str:
    url = environ[GITHUB_URL]
    origin = Origin.of(url)
    if origin.scheme != "https" and not origin.is_loopback:
        raise _unusable(GITHUB_URL, "it would send the job's token unencrypted")
    request = Request(
        "GET",
        f"{url}{'&' if '?' in url else '?'}audience={quote(audience, safe='')}",
        {"Accept": "application/json"},
        led_from=origin,
        authorization=f"Bearer {environ[GITHUB_TOKEN]}",
    )
    try:
        with http.send(request) as response:
            content = response.content(2 * _TOKEN_BYTES)
        token = canonical_json.parse_object(content, what="identity token").get("value")
    except MemcubeError as error:
        raise UnavailableError(
            f"GitHub Actions gives this job no identity token: {error}",
            hint=f"give the job `permissions: id-token: write`, or run it again; {_GUIDE}",
        ) from None
    return token if isinstance(token, str) else ""


def _is_github(environ: Mapping[str, str]) -> bool:
    return bool(environ.get(GITHUB_URL) and environ.get(GITHUB_TOKEN))


def _for_audience(token: IdentityToken, audience: str, where: str) -> IdentityToken:
    """`token`, if it is for `audience` alone: anybody else could use what is shown to them there."""
    if token.audiences != (audience,):
        named = ", ".join(token.audiences)[:200]
        raise _unusable(
            where, f"the token is for {named!r}, not for {audience!r}: it was sent nowhere"
        )
    return token


def _unusable(where: str, why: str) -> InvalidSettingError:
    return InvalidSettingError(
        f"no identity token can be had from {where}: {why}",
        hint=f"ask your CI for one whose audience is the registry's host; {_GUIDE}",
    )


def refused(token: IdentityToken, host: str, error: UnauthenticatedError) -> UnauthenticatedError:
    """The error of a registry that does not take `token`, with the names that its owner has to trust."""
    return UnauthenticatedError(
        f"{host} gives this job no token: {error}",
        hint=f"{error.hint}; the job is {token.subject!r} at {token.issuer}",
    )
