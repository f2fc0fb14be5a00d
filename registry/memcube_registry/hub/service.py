"""A cube as the Hub shows repositories: revisions, and the files of the canonical folder at each.

A revision is a tag, a digest, or the commit of a manifest (`commit_of`). `main` is the tag of that name
where there is one, else `latest`, as everywhere in memcube. Forty hex digits are always a commit, for
clients take for granted that those never move.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from memcube_protocol.digest import Digest
from memcube_protocol.errors import InvalidDigestError, NotFoundError
from memcube_protocol.reference import is_tag
from sqlalchemy import Executable, Row, bindparam
from sqlalchemy import select as select_columns
from sqlmodel import Session, col, select

from memcube_registry.accounts.models import Account, Membership
from memcube_registry.accounts.principal import Principal
from memcube_registry.blobs import service as blobs
from memcube_registry.blobs.service import StoredBlob
from memcube_registry.catalog.models import Repository, Visibility
from memcube_registry.database import table_of
from memcube_registry.delivery.service import Act, Part, authorize
from memcube_registry.hub.folders import Folder, Folders
from memcube_registry.manifests.models import COMMIT_CHARS, Manifest, Tag, commit_of

DEFAULT: Final = "main"
"""What clients ask for where their user names no revision."""
LATEST: Final = "latest"
TAGS_AT_MOST: Final = 10_000
_FOLDERS: Final = Folders()
_M: Final = table_of(Manifest).c
_T: Final = table_of(Tag).c
# Made once: putting a statement together takes longer than running it.
_FOUND: Final = select_columns(_M.id, _M.digest, _M.media_type, _M.created_at).where(
    _M.repository_id == bindparam("repository")
)
_BY_COMMIT: Final = _FOUND.where(_M.commit == bindparam("name"))
_BY_DIGEST: Final = _FOUND.where(_M.digest == bindparam("name"))
_BY_TAG: Final = (
    _FOUND.join(table_of(Tag), _T.manifest_id == _M.id)
    .where(
        _T.repository_id == bindparam("repository"),
        _T.name.in_([bindparam("name"), bindparam("fallback")]),
    )
    .order_by(_T.name != bindparam("name"))
    .limit(1)
)
_CONTENT: Final = select_columns(_M.content).where(_M.id == bindparam("id"))
_COMMIT: Final = re.compile(rf"[0-9a-f]{{{COMMIT_CHARS}}}")


class UnknownRevisionError(NotFoundError):
    """The cube is there, and has no such revision."""


class UnknownFileError(NotFoundError):
    """The revision is there, and has no such file or folder. `commit` is the revision's."""

    def __init__(self, message: str, *, hint: str | None = None, commit: str) -> None:
        super().__init__(message, hint=hint)
        self.commit = commit


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One revision of a cube: its commit, and the layers of its folder by path."""

    name: str
    digest: Digest
    files: Folder
    is_private: bool
    created_at: datetime
    pushed_at: datetime

    @property
    def commit(self) -> str:
        """The 40 hex digits that name it for ever."""
        return commit_of(self.digest)


@dataclass(frozen=True, slots=True)
class HeldFile:
    """A file that the caller may have, where it lies, and the commit that holds it."""

    commit: str
    path: str
    blob: StoredBlob


def find_snapshot(session: Session, principal: Principal, name: str, revision: str) -> Snapshot:
    """What `revision` names in the cube.

    Raises:
        UnknownRevisionError: there is none.
        NotFoundError, UnauthenticatedError, ForbiddenError: see `authorize`.
    """
    repository = authorize(session, principal, name, Act.READ, part=Part.DESCRIPTION)
    found = _manifest(session, repository, revision)

    def content() -> bytes:
        raw: bytes = session.connection().execute(_CONTENT, {"id": found.id}).scalar_one()
        return raw

    return Snapshot(
        repository.name,
        Digest.parse(found.digest),
        _FOLDERS.of(found.digest, found.media_type, content),
        repository.visibility is Visibility.PRIVATE,
        repository.created_at,
        found.created_at,
    )


def find_file(
    session: Session, principal: Principal, name: str, revision: str, path: str
) -> HeldFile:
    """The file at `path` of `revision`, once the caller may read its bytes.

    Raises:
        UnknownRevisionError, UnknownFileError: there is none.
        NotFoundError, UnauthenticatedError, ForbiddenError, PaymentRequiredError: see `authorize`.
    """
    snapshot = find_snapshot(session, principal, name, revision)
    layer = snapshot.files.get(path)
    if layer is None:
        raise unknown_file(path, snapshot.commit)
    try:
        blob = blobs.find(session.connection(), principal, name, layer.digest)
    except NotFoundError as error:
        # Layers that lie elsewhere (`manifests.service.ABSENT_BLOBS`) are not ours to give.
        raise unknown_file(path, snapshot.commit) from error
    return HeldFile(snapshot.commit, path, blob)


def find_revisions(session: Session, principal: Principal, name: str) -> list[tuple[str, str]]:
    """The cube's tags and the commits that they lead to, by name; at most `TAGS_AT_MOST`.

    Raises:
        NotFoundError, UnauthenticatedError, ForbiddenError: see `authorize`.
    """
    repository = authorize(session, principal, name, Act.READ, part=Part.DESCRIPTION)
    query = (
        select(Tag.name, Manifest.commit)
        .join(Manifest, col(Manifest.id) == Tag.manifest_id)
        .where(Tag.repository_id == repository.id)
        .order_by(col(Tag.name))
        .limit(TAGS_AT_MOST)
    )
    return [(tag, commit) for tag, commit in session.exec(query)]


def organisations_of(session: Session, principal: Principal) -> list[str]:
    """Names of the organisations that the caller is a member of."""
    query = (
        select(Account.name)
        .join(Membership, col(Membership.organisation_id) == Account.id)
        .where(Membership.member_id == principal.account_id)
        .order_by(col(Account.name))
    )
    return list(session.exec(query))


def unknown_file(path: str, commit: str) -> UnknownFileError:
    """The error of a path that a revision does not hold."""
    return UnknownFileError(
        f"the cube holds no {path[:200]!r} at {commit}", hint="list its files", commit=commit
    )


def _manifest(session: Session, repository: Repository, revision: str) -> Row[Any]:
    """The manifest that a revision of the repository names, without its content.

    Raises:
        UnknownRevisionError: there is none.
    """
    statement = _statement_for(revision)
    values = {"repository": repository.id, "name": revision}
    if statement is _BY_TAG:
        values["fallback"] = LATEST if revision == DEFAULT else revision
    row = session.connection().execute(statement, values).first() if statement is not None else None
    if row is None:
        raise UnknownRevisionError(
            f"{repository.name} has no revision {revision[:140]!r}",
            hint=f"name a tag, a digest or a commit; {DEFAULT} is the tag {LATEST}",
        )
    return row


def _statement_for(revision: str) -> Executable | None:
    """How to look a revision up; None where it can name nothing."""
    if _COMMIT.fullmatch(revision):
        return _BY_COMMIT
    if is_tag(revision):
        return _BY_TAG
    try:
        Digest.parse(revision)
    except InvalidDigestError:
        return None
    return _BY_DIGEST
