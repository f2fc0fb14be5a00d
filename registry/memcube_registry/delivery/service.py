"""The one authorisation point: every entry and exit of bytes asks here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    ForbiddenError,
    InvalidReferenceError,
    MemcubeError,
    NotFoundError,
    UnauthenticatedError,
)
from memcube_protocol.reference import is_name
from sqlalchemy import Connection, Row, Select, bindparam
from sqlalchemy import select as select_columns
from sqlmodel import Session, select

from memcube_registry.accounts.models import Account, Membership, Role
from memcube_registry.accounts.principal import Principal
from memcube_registry.accounts.scopes import Act
from memcube_registry.catalog.models import Repository, Visibility
from memcube_registry.database import table_of
from memcube_registry.delivery.decision import Decision, Form, Part, Question, Verdict, decide

__all__ = ["READABLE", "Act", "Form", "Part", "authorize", "read", "require_allowed", "role_in"]

# Built once: this runs with every request, and building costs as much as asking SQLite.
_BY_NAME: Final = select(Repository).where(Repository.name == bindparam("name"))
_REPOSITORY: Final = table_of(Repository).c
_MEMBER: Final = table_of(Membership).c
_NAMESPACE: Final = table_of(Account).c
_ROLE: Final = (
    select_columns(_MEMBER.role)
    .join(table_of(Account), _NAMESPACE.id == _MEMBER.organisation_id)
    .where(_NAMESPACE.name == bindparam("namespace"), _MEMBER.member_id == bindparam("account"))
)
READABLE: Final = select_columns(
    _REPOSITORY.id.label("repository_id"),
    _REPOSITORY.visibility,
    _ROLE.scalar_subquery().label("role"),
).where(_REPOSITORY.name == bindparam("cube"))
"""What `read` decides by. Statements for it join what they are after, which may be absent."""
_VERBS: Final = {
    Act.READ: "read",
    Act.WRITE: "push to",
    Act.DELETE: "delete from",
    Act.ADMIN: "administer",
}


def authorize(
    session: Session,
    principal: Principal,
    repository: str,
    act: Act,
    *,
    digest: Digest | None = None,
    part: Part = Part.CONTENT,
    form: Form = Form.OPEN,
) -> Repository:
    """The repository of that name, once `principal` may do `act` to it.

    The first allowed WRITE creates it, private, so `session` must then be a writing one. `digest` names the
    bytes in question where there are any, and only appears in the explanation.

    Raises:
        InvalidReferenceError: not `namespace/name`.
        UnauthenticatedError: a login, or a handshake token of wider scope, could change the answer.
        ForbiddenError: neither could.
        NotFoundError: no such repository, or one that `principal` must not know of.
    """
    found = require_allowed(
        session, principal, repository, act, digest=digest, part=part, form=form
    )
    return found or _create(session, repository)


def require_allowed(
    session: Session,
    principal: Principal,
    repository: str,
    act: Act,
    *,
    digest: Digest | None = None,
    part: Part = Part.CONTENT,
    form: Form = Form.OPEN,
) -> Repository | None:
    """As `authorize`, before anything is done: an absent repository is None where it could be made.

    Raises:
        InvalidReferenceError, UnauthenticatedError, ForbiddenError, NotFoundError: as `authorize`.
    """
    _require_qualified(repository)
    row = session.execute(_BY_NAME, {"name": repository}).scalar_one_or_none()
    visibility = row.visibility if row else None
    public_read = act is Act.READ and visibility is Visibility.PUBLIC
    role = None if public_read else role_in(session, principal, repository.partition("/")[0])
    question = _question(principal, repository, act, visibility, role, part, form)
    _require(question, repository, digest)
    return row


def read(
    connection: Connection,
    principal: Principal,
    repository: str,
    statement: Select[Any],
    values: Mapping[str, Any],
    *,
    digest: Digest | None,
    part: Part = Part.CONTENT,
) -> Row[Any]:
    """The row of `statement`, made of `READABLE`, once `principal` may read the repository.

    One statement decides and reads, so that both see the same instant without a transaction. Its column
    `form`, if it has one, is the form of the bytes in question.

    Raises:
        InvalidReferenceError, UnauthenticatedError, ForbiddenError, NotFoundError: as `authorize`.
    """
    _require_qualified(repository)
    namespace = repository.partition("/")[0]
    given = {"cube": repository, "namespace": namespace, "account": principal.account_id, **values}
    row = connection.execute(statement, given).one_or_none()
    role = _own_role(principal, namespace) or (row.role if row else None)
    visibility = row.visibility if row else None
    form = (row._mapping.get("form") if row else None) or Form.OPEN
    question = _question(principal, repository, Act.READ, visibility, role, part, form)
    _require(question, repository, digest)
    assert row is not None, "nothing is read of a repository that is not there"
    return row


def role_in(session: Session, principal: Principal, namespace: str) -> Role | None:
    """The role of `principal` in `namespace`: OWNER in their own, a member's in an organisation's."""
    if principal.is_anonymous:
        return None
    if own := _own_role(principal, namespace):
        return own
    values = {"namespace": namespace, "account": principal.account_id}
    found: Role | None = session.connection().execute(_ROLE, values).scalar_one_or_none()
    return found


def _own_role(principal: Principal, namespace: str) -> Role | None:
    """The role that needs no membership."""
    is_own = not principal.is_anonymous and principal.name == namespace
    return Role.OWNER if is_own else None


def _question(
    principal: Principal,
    repository: str,
    act: Act,
    visibility: Visibility | None,
    role: Role | None,
    part: Part,
    form: Form,
) -> Question:
    return Question(
        act=act,
        part=part,
        form=form,
        visibility=visibility,
        is_anonymous=principal.is_anonymous,
        is_in_scope=principal.may_try(act, repository),
        can_widen_scope=principal.came_by_handshake,
        role=role,
        reads_public=principal.reads_public,
    )


def _require(question: Question, repository: str, digest: Digest | None) -> None:
    decision = decide(question)
    if decision.verdict is not Verdict.ALLOW:
        raise _refusal(decision, question.act, repository, digest)


def _create(session: Session, name: str) -> Repository:
    owner = session.exec(select(Account).where(Account.name == name.partition("/")[0])).one()
    created = Repository(name=name, account_id=owner.id)
    session.add(created)
    session.flush()
    return created


def _require_qualified(repository: str) -> None:
    if "/" not in repository or not is_name(repository):
        raise InvalidReferenceError(
            f"{repository[:100]!r} is not the name of a cube on this registry",
            hint="use namespace/name, where the namespace is your account's name",
        )


def _refusal(decision: Decision, act: Act, repository: str, digest: Digest | None) -> MemcubeError:
    what = f"{repository}@{digest}" if digest else repository
    if decision.verdict is Verdict.CHALLENGE:
        return UnauthenticatedError(
            f"you cannot {_VERBS[act]} {what}: {decision.rule}",
            hint="run `memcube login`, or use a token whose scope includes this cube",
        )
    if decision.verdict is Verdict.FORBID:
        return ForbiddenError(
            f"you may not {_VERBS[act]} {what}: {decision.rule}",
            hint="ask an owner of the namespace, or use a token of wider scope",
        )
    return NotFoundError(
        f"there is no cube {repository} here, or it is private",
        hint="check the name, or log in as somebody who may see it",
    )
