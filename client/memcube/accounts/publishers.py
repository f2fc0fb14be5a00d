"""Trusted publishers: CI jobs that may push to a cube, and what such a job does to get a token.

The token is kept in memory only, good for one cube and fifteen minutes. With it comes the job as the
registry knows it, which every release that is pushed with the token names.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import field
from datetime import datetime
from typing import Any, Final

from memcube_protocol import canonical_json, limits
from memcube_protocol.errors import (
    InvalidError,
    NotFoundError,
    UnauthenticatedError,
)
from memcube_protocol.reference import HUB_HOST, Reference
from memcube_protocol.values import frozen
from memcube_signing.job import Job

from memcube.accounts import identity_tokens
from memcube.accounts.credentials import Credentials, CredentialStore
from memcube.context import Context
from memcube.http import HttpClient, Request
from memcube.remote import Registry
from memcube.remote.connection import nonsense

_PATH: Final = "/api/v1/publishers"
_JSON: Final = {"Content-Type": "application/json"}
_ODD: Final = "something else than trusted publishers"


@frozen
class TrustedPublisher:
    """Jobs of `issuer` that may push to the cube `repository`: those with these claims."""

    id: int
    repository: str
    issuer: str
    claims: Mapping[str, str]
    created_at: str


@frozen
class JobLogin:
    """What an identity token bought: `credentials` for one cube until `expires_at`, and its `job`."""

    credentials: Credentials = field(repr=False)
    job: Job
    expires_at: datetime


def add(
    context: Context, place: Reference, issuer: str, claims: Mapping[str, str]
) -> TrustedPublisher:
    """Let jobs of `issuer` with these claims push to the cube at `place`.

    Raises:
        UnauthenticatedError, ForbiddenError, NotFoundError: not a cube of this user's, or a token
            without the scope admin.
        InvalidRequestError: the registry does not take tokens of that issuer, or such claims.
        NetworkError: no answer, or one of another kind of registry.
    """
    wanted = {"repository": place.name, "issuer": issuer, "claims": dict(claims)}
    value = _ask(context.registry(place.host), "POST", "", (201,), wanted)
    return _publisher(value, context.registry(place.host).host)


def of_cube(context: Context, place: Reference) -> tuple[TrustedPublisher, ...]:
    """The trusted publishers of the cube at `place`.

    Raises:
        …: as `add`.
    """
    registry = context.registry(place.host)
    found = _ask(registry, "GET", f"?repository={place.name}", (200,))
    if not isinstance(found, list):
        raise nonsense(registry.host, _ODD)
    return tuple(_publisher(value, registry.host) for value in found)


def remove(context: Context, place: Reference, publisher_id: int) -> TrustedPublisher:
    """Trust that publisher of the cube at `place` no more; the tokens that its jobs have end at once.

    Raises:
        NotFoundError: the cube has no such publisher.
        …: as `add`.
    """
    for known in of_cube(context, place):
        if known.id == publisher_id:
            _ask(context.registry(place.host), "DELETE", f"/{publisher_id}", (204,))
            return known
    raise NotFoundError(
        f"{place.location} has no trusted publisher {publisher_id}",
        hint=f"memcube publisher list {place.location}",
    )


def log_in_as_job(context: Context, place: Reference) -> None:
    """Where this is a CI job without other credentials: exchange its identity token to push to `place`.

    Raises:
        InvalidSettingError: the job's environment holds something else than a token for this registry.
        UnauthenticatedError: the registry does not take the token, or trusts no such job.
        UnavailableError, NetworkError, StorageError: the CI, its issuer or the registry do not answer.
    """
    host = context.settings.endpoint_of(place.host).host
    if host == HUB_HOST:
        return
    if not identity_tokens.is_at_hand(os.environ) or context.job_at(place):
        return
    if CredentialStore(context.settings).find(host) is not None:
        return
    # A client of its own: what is asked here carries no credentials, and what it learns is not kept.
    http = HttpClient(context.settings, find_credentials=lambda _: None)
    try:
        registry = Registry(host, http, context.settings)
        if not _takes_identity_tokens(registry):
            return
        token = identity_tokens.find(os.environ, http, host)
        if token is not None:
            login = _exchange(registry, place.name, token)
            context.act_as_job(place, login.credentials, login.job, login.expires_at)
    finally:
        http.close()


def _exchange(registry: Registry, name: str, token: identity_tokens.IdentityToken) -> JobLogin:
    body = {"repository": name, "identityToken": token.text}
    request = Request(
        "POST", f"{registry.endpoint.url}/api/v1/oidc/exchange", _JSON, canonical_json.dump(body)
    )
    try:
        with registry.http.send(request, (201,)) as response:
            value = canonical_json.parse_object(response.content(limits.MIB), what="exchange")
    except UnauthenticatedError as error:
        raise identity_tokens.refused(token, registry.host, error) from None
    try:
        return JobLogin(
            Credentials("", str(value["secret"])),
            Job.from_json(value["job"]),
            datetime.fromisoformat(str(value["expiresAt"])),
        )
    except (KeyError, ValueError, InvalidError):
        raise nonsense(registry.host, _ODD) from None


def _takes_identity_tokens(registry: Registry) -> bool:
    """Whether the registry says that it exchanges identity tokens, of some issuer at least."""
    try:
        return bool(registry.features["trustedPublishing"]["issuers"])
    except (KeyError, TypeError):
        return False


def _ask(
    registry: Registry,
    method: str,
    rest: str,
    accept: tuple[int, ...],
    value: Mapping[str, Any] | None = None,
) -> Any:
    body = None if value is None else canonical_json.dump(value)
    headers = {} if value is None else _JSON
    request = Request(method, f"{registry.endpoint.url}{_PATH}{rest}", headers, body)
    with registry.http.send(request, accept) as response:
        content = response.content(limits.MIB)
    return canonical_json.parse(content) if content else None


def _publisher(value: Any, host: str) -> TrustedPublisher:
    try:
        claims = {str(name): str(wanted) for name, wanted in value["claims"].items()}
        return TrustedPublisher(
            int(value["id"]), value["repository"], value["issuer"], claims, value["createdAt"]
        )
    except (TypeError, KeyError, ValueError, AttributeError):
        raise nonsense(host, _ODD) from None
