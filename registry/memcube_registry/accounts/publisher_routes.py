"""`/api/v1/publishers` and `/api/v1/oidc/exchange`: trusted publishing from CI without stored secrets."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, Final

import msgspec
from litestar import Request, Router, delete, get, post
from litestar.params import FromPath, FromQuery, JSONBody
from memcube_protocol.errors import InvalidRequestError

from memcube_registry.accounts import publishers
from memcube_registry.accounts.authentication import principal_of
from memcube_registry.accounts.models import TrustedPublisher
from memcube_registry.database import utc_now
from memcube_registry.services import services_of

Asked = Request[Any, Any, Any]


class NewPublisher(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A CI job to trust: tokens of `issuer` with these `claims` may push to `repository`.

    A claim is equal, or ends in `*` after `/`, `:` or `@`: `refs/tags/*`.
    """

    repository: str
    issuer: str
    claims: dict[str, str]


class Exchange(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """An identity token of a CI job, and where it wants to push."""

    repository: str
    identity_token: str


class PublisherView(msgspec.Struct, frozen=True, rename="camel"):
    """A trusted publisher."""

    id: int
    repository: str
    issuer: str
    claims: dict[str, str]
    created_at: datetime


class ExchangedView(msgspec.Struct, frozen=True, rename="camel"):
    """A token for a job; it is not shown again. `job` is what a release that it pushes has to name."""

    secret: str
    scopes: list[str]
    expires_at: datetime | None
    job: dict[str, Any]


@get("/publishers", sync_to_thread=True, tags=["publishers"])
def list_publishers(request: Asked, repository: FromQuery[str]) -> list[PublisherView]:
    """The trusted publishers of a repository that you may push to."""
    principal = principal_of(request)
    with services_of(request).database.read() as session:
        found = publishers.publishers_of(session, principal, repository)
    return [_view(row) for row in found]


@post("/publishers", sync_to_thread=True, tags=["publishers"])
def add_publisher(request: Asked, data: JSONBody[NewPublisher]) -> PublisherView:
    """Trust a CI job to push to a repository in your name; needs a token of scope admin."""
    principal, services = principal_of(request), services_of(request)
    issuer = data.issuer.rstrip("/")
    if issuer not in services.identities.issuers:
        raise InvalidRequestError(
            f"this registry takes no identity tokens of {issuer[:200]!r}",
            hint="its operator names the issuers in the setting oidc_issuers",
        )
    return services.database.run(
        lambda session: _view(
            publishers.add_publisher(
                session, principal, data.repository, issuer, data.claims, now=utc_now()
            )
        )
    )


@delete("/publishers/{publisher_id:int}", sync_to_thread=True, tags=["publishers"])
def remove_publisher(request: Asked, publisher_id: FromPath[int]) -> None:
    """Trust a CI job no more; its tokens end at once."""
    principal = principal_of(request)
    services_of(request).database.run(
        lambda session: publishers.remove_publisher(session, principal, publisher_id, now=utc_now())
    )


@post("/oidc/exchange", sync_to_thread=True, tags=["publishers"])
def exchange(request: Asked, data: JSONBody[Exchange]) -> ExchangedView:
    """A token of fifteen minutes for the CI job whose identity token is shown."""
    services, now = services_of(request), utc_now()
    identity = services.identities.check(data.identity_token, now=now)

    def work(session: Any) -> ExchangedView:
        secret, row, job = publishers.exchange(session, identity, data.repository, now=now)
        return ExchangedView(secret, row.scopes.split(), row.expires_at, job.to_json())

    return services.database.run(work)


def _view(row: TrustedPublisher) -> PublisherView:
    return PublisherView(row.id, row.repository, row.issuer, json.loads(row.claims), row.created_at)


router: Final = Router(
    "/api/v1", route_handlers=[list_publishers, add_publisher, remove_publisher, exchange]
)
