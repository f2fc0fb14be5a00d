"""Tags: names that point to manifests. Full SemVer versions never move."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from memcube_protocol.digest import Digest
from memcube_protocol.errors import ConflictError, NotFoundError
from memcube_protocol.reference import is_immutable_tag
from sqlalchemy import delete as delete_rows
from sqlalchemy import insert
from sqlmodel import Session, col, select

from memcube_registry.accounts.principal import Principal
from memcube_registry.delivery.service import Act, Part, authorize
from memcube_registry.manifests.models import Manifest, RetiredTag, Tag

PAGE: Final = 10_000
_NAMES_AT_ONCE: Final = 500


@dataclass(frozen=True, slots=True)
class Expectation:
    """Where a push expects its tags to point before it moves them: compare and swap.

    `digest` is the expected target (`If-Match`); `absent` says that there must be no such tag
    (`If-None-Match: *`).
    """

    digest: Digest | None = None
    absent: bool = False


ANYTHING: Final = Expectation()


@dataclass(frozen=True, slots=True)
class Page:
    """Some tags in byte order, and whether there are more."""

    names: tuple[str, ...]
    has_more: bool


def point(
    session: Session,
    repository_id: int,
    name: str,
    manifest: Manifest,
    expected: Expectation,
    now: datetime,
) -> None:
    """Let the tag point to `manifest`.

    Raises:
        ConflictError: it is immutable and taken, or not where it is expected to be.
    """
    row = session.get(Tag, (repository_id, name))
    current = session.get_one(Manifest, row.manifest_id) if row else None
    _require_expected(name, current.digest if current else None, expected)
    if is_immutable_tag(name):
        taken_by = current.digest if current else _retired(session, repository_id, name)
        if taken_by not in (None, manifest.digest):
            raise ConflictError(
                f"the version {name} is {taken_by} and never changes",
                hint="publish the change under a new version",
            )
    if row is None:
        row = Tag(repository_id=repository_id, name=name, manifest_id=_id(manifest))
    row.manifest_id, row.updated_at = _id(manifest), now
    session.add(row)


def delete(
    session: Session, principal: Principal, repository: str, name: str, now: datetime
) -> None:
    """Remove the tag, not the manifest.

    Raises:
        NotFoundError: no such tag.
        UnauthenticatedError, ForbiddenError: see `authorize`.
    """
    owner = authorize(session, principal, repository, Act.DELETE)
    row = session.get(Tag, (owner.id, name))
    if row is None:
        raise NotFoundError(f"this repository has no tag {name}", hint="list its tags")
    _remove(session, session.get_one(Manifest, row.manifest_id), [name], now)


def remove_all(session: Session, manifest: Manifest, now: datetime) -> None:
    """Remove every tag that points to `manifest`."""
    names = select(Tag.name).where(Tag.manifest_id == manifest.id)
    _remove(session, manifest, list(session.exec(names)), now)


def retire(session: Session, repository_id: int, targets: Mapping[str, str], now: datetime) -> None:
    """Remove the tags that `targets` names with their digests; versions among them lead nowhere else again.

    In few statements: there may be any number of tags, and others wait for this transaction.
    """
    for names in _portions(list(targets)):
        here = col(RetiredTag.repository_id) == repository_id, col(RetiredTag.name).in_(names)
        known = set(session.exec(select(RetiredTag.name).where(*here)))
        new = [
            {
                "repository_id": repository_id,
                "name": name,
                "digest": targets[name],
                "retired_at": now,
            }
            for name in names
            if is_immutable_tag(name) and name not in known
        ]
        if new:
            session.execute(insert(RetiredTag), new)
        gone = col(Tag.repository_id) == repository_id, col(Tag.name).in_(names)
        session.execute(delete_rows(Tag).where(*gone))


def page(
    session: Session, principal: Principal, repository: str, *, after: str, count: int
) -> Page:
    """At most `count` tags that come after `after` in byte order.

    Raises:
        NotFoundError: no such repository, or none that the caller may know of.
        UnauthenticatedError, ForbiddenError: see `authorize`.
    """
    owner = authorize(session, principal, repository, Act.READ, part=Part.DESCRIPTION)
    query = (
        select(Tag.name)
        .where(Tag.repository_id == owner.id, col(Tag.name) > after)
        .order_by(col(Tag.name))
        .limit(count + 1)
    )
    names = tuple(session.exec(query))
    return Page(names[:count], len(names) > count)


def _remove(session: Session, manifest: Manifest, names: Sequence[str], now: datetime) -> None:
    # The manifest stays for a grace period from now on, not from its push.
    manifest.used_at = now
    session.add(manifest)
    retire(session, manifest.repository_id, dict.fromkeys(names, manifest.digest), now)
    session.flush()


def _portions(names: Sequence[str]) -> Iterable[Sequence[str]]:
    return (names[at : at + _NAMES_AT_ONCE] for at in range(0, len(names), _NAMES_AT_ONCE))


def _retired(session: Session, repository_id: int, name: str) -> str | None:
    row = session.get(RetiredTag, (repository_id, name))
    return row.digest if row else None


def _require_expected(name: str, current: str | None, expected: Expectation) -> None:
    wrong = (expected.absent and current is not None) or (
        expected.digest is not None and current != str(expected.digest)
    )
    if wrong:
        raise ConflictError(
            f"the tag {name} points to {current or 'nothing'}, another push was first",
            hint="look at what was pushed, then decide whether to push again",
        )


def _id(manifest: Manifest) -> int:
    assert manifest.id is not None, "the manifest was written before its tags"
    return manifest.id
