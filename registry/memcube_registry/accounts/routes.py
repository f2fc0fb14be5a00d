"""`/api/v1`: accounts, API tokens, organisations and their members."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Annotated, Any, Final

import msgspec
from litestar import Request, Router, delete, get, post, put
from litestar.params import FromPath, JSONBody
from memcube_protocol.errors import ForbiddenError, NotFoundError, UnauthenticatedError
from sqlmodel import Session

from memcube_registry.accounts import service, tokens
from memcube_registry.accounts.authentication import principal_of
from memcube_registry.accounts.models import Account, AccountKind, ApiToken, Role
from memcube_registry.accounts.principal import Principal
from memcube_registry.accounts.scopes import Act, Scope, parse_scopes
from memcube_registry.database import utc_now
from memcube_registry.delivery.decision import includes
from memcube_registry.delivery.service import role_in
from memcube_registry.services import services_of

DAYS_MAX: Final = 3650
Asked = Request[Any, Any, Any]


class _Body(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A request's body: camelCase names, unknown ones refused."""


class _View(msgspec.Struct, frozen=True, rename="camel"):
    """An answer's body: camelCase names."""


class NewAccount(_Body, frozen=True):
    """A person to create. `quotaBytes` null: what everybody gets; 0: unlimited."""

    name: str
    quota_bytes: Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)] | None = None


class NewOrganisation(_Body, frozen=True):
    """An organisation to create; the caller becomes its owner."""

    name: str


class NewToken(_Body, frozen=True):
    """A token to create. `scopes` as in `push:namespace/name`; `days` null: it never expires."""

    name: str
    scopes: list[str]
    days: Annotated[float, msgspec.Meta(gt=0, le=DAYS_MAX)] | None = None


class NewRole(_Body, frozen=True):
    """The role that a member shall have."""

    role: Role


class AccountView(_View, frozen=True):
    """What everybody may know of an account."""

    name: str
    kind: AccountKind
    created_at: datetime


class MeView(_View, frozen=True):
    """The caller's own account, and the scopes of the token that was shown."""

    name: str
    is_operator: bool
    used_bytes: int
    quota_bytes: int | None
    scopes: list[str]
    organisations: dict[str, Role]


class TokenView(_View, frozen=True):
    """A token, without its secret."""

    id: int
    name: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


class CreatedToken(_View, frozen=True):
    """A new token with its secret, which is not shown again."""

    secret: str
    token: TokenView


class MemberView(_View, frozen=True):
    """A member of an organisation."""

    name: str
    role: Role


@get("/me", sync_to_thread=True, tags=["accounts"])
def get_me(request: Asked) -> MeView:
    """Your account, its storage, and what your token may do."""
    principal = require_account(request)
    with services_of(request).database.read() as session:
        row = _row_of(session, principal)
        joined = service.organisations_of(session, row.id)
    return MeView(
        row.name,
        row.is_operator,
        row.used_bytes,
        row.quota_bytes,
        [str(scope) for scope in principal.scopes],
        {organisation.name: role for organisation, role in joined},
    )


@post("/accounts", sync_to_thread=True, tags=["accounts"])
def create_account(request: Asked, data: JSONBody[NewAccount]) -> AccountView:
    """Create a person's account; for operators of the registry."""
    principal, services = require_account(request), services_of(request)
    _require_no_wider(principal, [Scope(Act.ADMIN)])
    quota = services.settings.default_quota_bytes if data.quota_bytes is None else data.quota_bytes

    def work(session: Session) -> Account:
        service.require_operator(session, principal.account_id)
        return service.create_account(session, data.name, quota_bytes=quota or None)

    return _account_view(services.database.run(work))


@get("/accounts/{name:str}", sync_to_thread=True, tags=["accounts"])
def get_account(request: Asked, name: FromPath[str]) -> AccountView:
    """What everybody may know of an account."""
    principal_of(request)
    with services_of(request).database.read() as session:
        return _account_view(service.account_named(session, name))


@get("/tokens", sync_to_thread=True, tags=["tokens"])
def list_tokens(request: Asked) -> list[TokenView]:
    """Your API tokens, newest first."""
    principal = _require_admin(request)
    with services_of(request).database.read() as session:
        row = _row_of(session, principal)
        return [_token_view(token) for token in tokens.tokens_of(session, row.id)]


@post("/tokens", sync_to_thread=True, tags=["tokens"])
def create_token(request: Asked, data: JSONBody[NewToken]) -> CreatedToken:
    """Create an API token; its secret is in this answer only."""
    principal = _require_admin(request)
    scopes = parse_scopes(" ".join(data.scopes))
    _require_no_wider(principal, scopes)
    lifetime = None if data.days is None else timedelta(days=data.days)

    def work(session: Session) -> CreatedToken:
        owner = _row_of(session, principal)
        secret, row = tokens.create_token(
            session, owner, data.name, scopes, now=utc_now(), lifetime=lifetime
        )
        return CreatedToken(secret, _token_view(row))

    return services_of(request).database.run(work)


@delete("/tokens/{token_id:int}", sync_to_thread=True, tags=["tokens"])
def revoke_token(request: Asked, token_id: FromPath[int]) -> None:
    """End one of your API tokens at once. Any token may end itself."""
    principal = require_account(request)
    if principal.token_id != token_id:
        _require_admin(request)
    account_id = principal.account_id
    assert account_id is not None, "require_account refused nobody"
    services_of(request).database.run(
        lambda session: tokens.revoke_token(session, account_id, token_id, now=utc_now())
    )


@get("/organisations", sync_to_thread=True, tags=["organisations"])
def list_organisations(request: Asked) -> list[MemberView]:
    """The organisations you belong to, with your role in each."""
    principal = require_account(request)
    with services_of(request).database.read() as session:
        row = _row_of(session, principal)
        joined = service.organisations_of(session, row.id)
    return [MemberView(organisation.name, role) for organisation, role in joined]


@post("/organisations", sync_to_thread=True, tags=["organisations"])
def create_organisation(request: Asked, data: JSONBody[NewOrganisation]) -> AccountView:
    """Create an organisation and become its owner."""
    principal, services = _require_admin(request), services_of(request)
    quota = services.settings.default_quota_bytes or None
    at_most = services.settings.organisations_per_account

    def work(session: Session) -> Account:
        founder = _row_of(session, principal)
        return service.found_organisation(
            session, founder, data.name, quota_bytes=quota, at_most=at_most
        )

    return _account_view(services.database.run(work))


@get("/organisations/{name:str}/members", sync_to_thread=True, tags=["organisations"])
def list_members(request: Asked, name: FromPath[str]) -> list[MemberView]:
    """The members of an organisation, for its members."""
    principal = require_account(request)
    with services_of(request).database.read() as session:
        organisation = _organisation(session, principal, name, Role.READER)
        return [MemberView(*member) for member in service.members_of(session, organisation)]


@put("/organisations/{name:str}/members/{member:str}", sync_to_thread=True, tags=["organisations"])
def set_member(
    request: Asked, name: FromPath[str], member: FromPath[str], data: JSONBody[NewRole]
) -> MemberView:
    """Add a member to an organisation, or change their role; for its owners."""
    principal = _require_admin(request, name)

    def work(session: Session) -> None:
        organisation = _organisation(session, principal, name, Role.OWNER)
        person = service.account_named(session, member)
        service.set_member(session, organisation, person, data.role)

    services_of(request).database.run(work)
    return MemberView(member, data.role)


@delete(
    "/organisations/{name:str}/members/{member:str}", sync_to_thread=True, tags=["organisations"]
)
def remove_member(request: Asked, name: FromPath[str], member: FromPath[str]) -> None:
    """End a membership; for owners, and for members who leave."""
    principal = require_account(request)
    needed = Role.READER if principal.name == member else Role.OWNER
    _require_admin(request, member if needed is Role.READER else name)

    def work(session: Session) -> None:
        organisation = _organisation(session, principal, name, needed)
        service.remove_member(session, organisation, service.account_named(session, member))

    services_of(request).database.run(work)


def require_account(request: Asked) -> Principal:
    """The principal of a request that an account made.

    Raises:
        UnauthenticatedError: nobody did.
    """
    principal = principal_of(request)
    if principal.is_anonymous:
        raise UnauthenticatedError("this needs a login", hint="run `memcube login`")
    return principal


def _require_admin(request: Asked, namespace: str | None = None) -> Principal:
    """The principal, if the token's scope covers the account itself, or `namespace`."""
    principal = require_account(request)
    if not principal.may_try(Act.ADMIN, namespace or principal.name or ""):
        raise ForbiddenError(
            "the token's scope does not include this", hint="use a token of scope admin"
        )
    return principal


def _require_no_wider(principal: Principal, scopes: Iterable[Scope]) -> None:
    """Refuse what the caller's own token could not do: nobody gets more by making a token."""
    for scope in scopes:
        if not any(held.includes(scope) for held in principal.scopes):
            raise ForbiddenError(
                f"the token's scopes do not include {scope}", hint="use a token of scope admin"
            )


def _row_of(session: Session, principal: Principal) -> Account:
    return session.get_one(Account, principal.account_id)


def _organisation(session: Session, principal: Principal, name: str, needed: Role) -> Account:
    """The organisation, if the caller has at least that role; members are known to members only."""
    organisation = service.account_named(session, name)
    role = role_in(session, principal, name)
    if role is None or organisation.kind is not AccountKind.ORGANISATION:
        raise NotFoundError(f"you belong to no organisation {name!r}", hint="check the name")
    if not includes(role, needed):
        raise ForbiddenError(
            f"this needs the role {needed} in {name}, you have {role}", hint="ask an owner"
        )
    return organisation


def _account_view(row: Account) -> AccountView:
    return AccountView(row.name, row.kind, row.created_at)


def _token_view(row: ApiToken) -> TokenView:
    return TokenView(
        row.id,
        row.name,
        row.scopes.split(),
        row.created_at,
        row.expires_at,
        row.revoked_at,
        row.last_used_at,
    )


router: Final = Router(
    "/api/v1",
    route_handlers=[
        get_me,
        create_account,
        get_account,
        list_tokens,
        create_token,
        revoke_token,
        list_organisations,
        create_organisation,
        list_members,
        set_member,
        remove_member,
    ],
)
