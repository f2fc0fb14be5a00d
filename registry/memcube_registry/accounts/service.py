"""Accounts, organisations and their storage quotas."""

from __future__ import annotations

from typing import Final

from memcube_protocol.errors import (
    ConflictError,
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    QuotaExceededError,
)
from sqlalchemy import func, update
from sqlmodel import Session, col, or_, select

from memcube_registry.accounts.models import Account, AccountKind, Membership, Role
from memcube_registry.accounts.names import require_account_name, skeleton_of

MAX_MEMBERS: Final = 10_000


def create_account(
    session: Session,
    name: str,
    kind: AccountKind = AccountKind.PERSON,
    *,
    quota_bytes: int | None = None,
    is_operator: bool = False,
) -> Account:
    """A new account, and with it the namespace of its name. `quota_bytes` None: unlimited.

    Raises:
        InvalidReferenceError: the name is not one, or is reserved.
        ConflictError: the name, or one that looks like it, is taken.
    """
    require_account_name(name)
    skeleton = skeleton_of(name)
    alike = or_(Account.name == name, Account.skeleton == skeleton)
    taken = session.exec(select(Account).where(alike)).first()
    if taken is not None:
        likeness = "is taken" if taken.name == name else f"looks like {taken.name!r}, which exists"
        raise ConflictError(f"the name {name!r} {likeness}", hint="choose another name")
    account = Account(
        name=name, skeleton=skeleton, kind=kind, quota_bytes=quota_bytes, is_operator=is_operator
    )
    session.add(account)
    session.flush()
    return account


def account_named(session: Session, name: str) -> Account:
    """The account of that name.

    Raises:
        NotFoundError: there is none.
    """
    account = session.exec(select(Account).where(Account.name == name)).one_or_none()
    if account is None:
        raise NotFoundError(f"there is no account {name[:100]!r}", hint="check the name")
    return account


def create_organisation(
    session: Session, owner: Account, name: str, *, quota_bytes: int | None = None
) -> Account:
    """A new organisation with `owner` as its first owner.

    Raises:
        InvalidReferenceError: the name is not one, or is reserved.
        ConflictError: the name is taken.
    """
    organisation = create_account(session, name, AccountKind.ORGANISATION, quota_bytes=quota_bytes)
    session.add(Membership(organisation_id=organisation.id, member_id=owner.id, role=Role.OWNER))
    session.flush()
    return organisation


def found_organisation(
    session: Session, founder: Account, name: str, *, quota_bytes: int | None, at_most: int
) -> Account:
    """As `create_organisation`, for a person, who may make `at_most` of them (0: any number).

    Each has a name and a storage of its own, of which nobody shall have as much as they like.

    Raises:
        InvalidReferenceError, ConflictError: as `create_organisation`.
        QuotaExceededError: the founder has made as many.
    """
    made = select(func.count()).where(Account.creator_id == founder.id)
    if at_most and session.exec(made).one() >= at_most:
        raise QuotaExceededError(
            f"{founder.name} has made {at_most} organisations, and may not make more",
            hint="ask an operator of the registry for a further one",
        )
    organisation = create_organisation(session, founder, name, quota_bytes=quota_bytes)
    organisation.creator_id = founder.id
    session.flush()
    return organisation


def organisations_of(session: Session, account_id: int) -> list[tuple[Account, Role]]:
    """The organisations of a person, with the role in each, by name."""
    query = (
        select(Account, Membership.role)
        .join(Membership, col(Membership.organisation_id) == Account.id)
        .where(Membership.member_id == account_id)
        .order_by(Account.name)
    )
    return [(account, Role(role)) for account, role in session.exec(query)]


def members_of(session: Session, organisation: Account) -> list[tuple[str, Role]]:
    """Names and roles of an organisation's members, by name."""
    query = (
        select(Account.name, Membership.role)
        .join(Membership, col(Membership.member_id) == Account.id)
        .where(Membership.organisation_id == organisation.id)
        .order_by(Account.name)
    )
    return [(name, Role(role)) for name, role in session.exec(query)]


def set_member(session: Session, organisation: Account, member: Account, role: Role) -> None:
    """Give `member` that role in `organisation`, whatever it was before.

    Raises:
        InvalidRequestError: `organisation` is a person, or `member` is none.
        ConflictError: the last owner would be lost, or there are too many members.
    """
    if organisation.kind is not AccountKind.ORGANISATION or member.kind is not AccountKind.PERSON:
        raise InvalidRequestError(
            "only organisations have members, and only people are members",
            hint="create an organisation first",
        )
    row = session.get(Membership, (organisation.id, member.id))
    if row is None:
        _require_room(session, organisation)
        row = Membership(organisation_id=organisation.id, member_id=member.id, role=role)
    elif role is not Role.OWNER:
        _require_other_owner(session, row)
    row.role = role
    session.add(row)
    session.flush()


def remove_member(session: Session, organisation: Account, member: Account) -> None:
    """End a membership.

    Raises:
        NotFoundError: there is none.
        ConflictError: the last owner would be lost.
    """
    row = session.get(Membership, (organisation.id, member.id))
    if row is None:
        raise NotFoundError(
            f"{member.name} is not a member of {organisation.name}", hint="list the members"
        )
    _require_other_owner(session, row)
    session.delete(row)
    session.flush()


def require_operator(session: Session, account_id: int | None) -> None:
    """Refuse anybody who does not operate this registry.

    Raises:
        ForbiddenError: the account does not.
    """
    account = session.get(Account, account_id) if account_id is not None else None
    if account is None or not account.is_operator:
        raise ForbiddenError("this needs an operator of the registry", hint="ask an operator")


def require_quota(session: Session, account_id: int, extra_bytes: int) -> None:
    """Refuse `extra_bytes` of new content where the account's storage has no room for them.

    Raises:
        QuotaExceededError: naming what is used, asked for and allowed.
    """
    account = session.get_one(Account, account_id, populate_existing=True)
    if account.quota_bytes is None or account.used_bytes + extra_bytes <= account.quota_bytes:
        return
    raise QuotaExceededError(
        f"{account.name} uses {account.used_bytes} of {account.quota_bytes} bytes, "
        f"{extra_bytes} more do not fit",
        hint="delete cubes that are no longer needed, or ask the registry's operator for more",
    )


def take_room(session: Session, account_id: int, extra_bytes: int) -> None:
    """`require_quota`, and count the bytes as stored by the account, in one statement.

    Raises:
        QuotaExceededError: they do not fit; nothing is counted.
    """
    used = col(Account.used_bytes) + extra_bytes
    fits = or_(col(Account.quota_bytes).is_(None), used <= col(Account.quota_bytes))
    taken = session.execute(
        update(Account)
        .where(col(Account.id) == account_id, fits)
        .values(used_bytes=used)
        .returning(col(Account.id))
    )
    if taken.first() is None:
        require_quota(session, account_id, extra_bytes)


def add_usage(session: Session, account_id: int, delta_bytes: int) -> None:
    """Count `delta_bytes` more (or fewer) of content as stored by the account.

    Called once for each blob that an account gets its first link to, or loses its last one, and for
    each manifest.
    """
    session.execute(
        update(Account)
        .where(col(Account.id) == account_id)
        .values(used_bytes=col(Account.used_bytes) + delta_bytes)
    )


def _require_room(session: Session, organisation: Account) -> None:
    if len(members_of(session, organisation)) >= MAX_MEMBERS:
        raise ConflictError(
            f"{organisation.name} has {MAX_MEMBERS} members already", hint="remove some first"
        )


def _require_other_owner(session: Session, row: Membership) -> None:
    owners = select(func.count()).where(
        Membership.organisation_id == row.organisation_id, Membership.role == Role.OWNER
    )
    if row.role is Role.OWNER and session.exec(owners).one() <= 1:
        raise ConflictError(
            "an organisation keeps at least one owner", hint="make somebody else an owner first"
        )
