"""Garbage collection, while the registry serves.

Alive is a manifest that is tagged, or was used within the grace period, or is a child of a live
index, or whose subject is alive. What is not alive is condemned, and removed at a later run if
nothing has cleared that mark: a HEAD, a mount and an upload do. The same goes for the links of
blobs that no manifest names. Bytes go last, as jobs of the transactions that hid them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from itertools import islice
from typing import Final

from sqlalchemy import Row, delete, exists, select, update
from sqlmodel import Session, col

from memcube_registry.blobs import uploading
from memcube_registry.blobs.models import Blob, BlobLink, Upload
from memcube_registry.blobs.removing import remove_later
from memcube_registry.blobs.service import is_named_by_a_manifest, unlink
from memcube_registry.catalog.models import Repository
from memcube_registry.database import Database, utc_now
from memcube_registry.jobs.worker import Handler, Task
from memcube_registry.manifests.models import Manifest, ManifestChild, Tag
from memcube_registry.manifests.service import remove
from memcube_registry.observability.requests import log
from memcube_registry.storage import BlobStore, Object

DELAY: Final = timedelta(minutes=10)
"""How long something stays condemned at least, unless the grace period is shorter."""
KIND: Final = "collect-garbage"
ORPHAN_AGE: Final = timedelta(hours=1)
"""How old bytes must be that no row knows: a push may be between its file and its transaction."""
_AT_ONCE: Final = 200
_REMOVED_AT_ONCE: Final = 500
"""Manifests that go in one transaction."""


@dataclass(slots=True)
class Collected:
    """What one run did."""

    manifests_condemned: int = 0
    manifests_removed: int = 0
    links_condemned: int = 0
    links_removed: int = 0
    blobs_removed: int = 0
    uploads_expired: int = 0
    orphans_removed: int = 0


@dataclass(frozen=True, slots=True)
class Rules:
    """When things go. `grace` is how long unused content is kept, `upload_life` an unused upload."""

    now: datetime
    grace: timedelta
    upload_life: timedelta

    @property
    def used_before(self) -> datetime:
        """What was last used before this is old enough to be condemned."""
        return self.now - self.grace

    @property
    def condemned_before(self) -> datetime:
        """What was condemned before this, or just then, may be removed."""
        return self.now - min(self.grace, DELAY)


def collect_garbage(
    database: Database,
    store: BlobStore,
    now: datetime,
    grace: timedelta,
    *,
    upload_life: timedelta = timedelta(days=1),
    check: Callable[[], None] = lambda: None,
) -> Collected:
    """Condemn what nothing needs, and remove what was condemned before; bytes go as jobs.

    Safe while pushes run, and while another replica does the same. `check` is called between steps, and
    may end the run with an error of its own: the next one goes on from there.
    """
    rules, done = Rules(now, grace, upload_life), Collected()
    for repository_id in _repositories(database):
        check()
        _collect_manifests(database, repository_id, rules, done)
    # Before bytes become orphans that jobs are about to remove.
    _remove_orphans(database, store, rules, done)
    for step in (_condemn_links, _remove_links, _remove_blobs, _expire_uploads):
        check()
        step(database, rules, done)
    return done


def collector(
    database: Database, store: BlobStore, *, grace: timedelta, upload_life: timedelta
) -> Handler:
    """The periodic job that collects garbage."""

    def collect(task: Task) -> None:
        done = collect_garbage(
            database, store, utc_now(), grace, upload_life=upload_life, check=task.check
        )
        log.info(
            "garbage collected", **{each.name: getattr(done, each.name) for each in fields(done)}
        )

    return collect


def _repositories(database: Database) -> list[int]:
    with database.read() as session:
        return list(session.execute(select(col(Repository.id))).scalars())


def _collect_manifests(
    database: Database, repository_id: int, rules: Rules, done: Collected
) -> None:
    with database.read() as session:
        if not _is_work(session, repository_id, rules):
            return

    def sweep(session: Session) -> tuple[int, int, bool]:
        # Marked again inside the transaction that removes: a push may have come since.
        rows = _rows(session, repository_id)
        dead = _dead(session, repository_id, rows, rules)
        ripe = [row.id for row in dead if _is_ripe(row.condemned_at, rules)]
        fresh = [row.id for row in dead if row.condemned_at is None]
        spared = {row.id for row in rows if row.condemned_at} - {row.id for row in dead}
        _mark(session, fresh, rules.now)
        _mark(session, list(spared), None)
        # The rest in further turns: pushes of everybody wait for each.
        for key in ripe[:_REMOVED_AT_ONCE]:
            remove(session, session.get_one(Manifest, key), rules.now)
        return len(fresh), min(len(ripe), _REMOVED_AT_ONCE), len(ripe) > _REMOVED_AT_ONCE

    is_more = True
    while is_more:
        condemned, removed, is_more = database.run(sweep)
        done.manifests_condemned += condemned
        done.manifests_removed += removed


def _is_work(session: Session, repository_id: int, rules: Rules) -> bool:
    rows = _rows(session, repository_id)
    return any(row.condemned_at for row in rows) or bool(_dead(session, repository_id, rows, rules))


def _rows(
    session: Session, repository_id: int
) -> Sequence[Row[tuple[int, str, str, datetime, datetime]]]:
    query = select(
        col(Manifest.id),
        col(Manifest.digest),
        col(Manifest.subject_digest),
        col(Manifest.used_at),
        col(Manifest.condemned_at),
    ).where(col(Manifest.repository_id) == repository_id)
    return session.execute(query).all()


def _dead(
    session: Session,
    repository_id: int,
    rows: Sequence[Row[tuple[int, str, str, datetime, datetime]]],
    rules: Rules,
) -> list[Row[tuple[int, str, str, datetime, datetime]]]:
    """The manifests of `rows` that are not alive."""
    tagged = set(
        session.execute(
            select(col(Tag.manifest_id)).where(col(Tag.repository_id) == repository_id)
        ).scalars()
    )
    roots = {r.digest for r in rows if r.id in tagged or r.used_at >= rules.used_before}
    if len(roots) == len(rows):
        return []
    keeps: dict[str, list[str]] = {}
    for row in rows:
        if row.subject_digest:
            keeps.setdefault(row.subject_digest, []).append(row.digest)
    children = (
        select(col(Manifest.digest), col(ManifestChild.child_digest))
        .join(ManifestChild, col(ManifestChild.manifest_id) == Manifest.id)
        .where(col(Manifest.repository_id) == repository_id)
    )
    for parent, child in session.execute(children):
        keeps.setdefault(parent, []).append(child)
    alive = _reached(roots, keeps)
    return [row for row in rows if row.digest not in alive]


def _reached(roots: Iterable[str], keeps: Mapping[str, Sequence[str]]) -> set[str]:
    """Everything that `roots` keep, directly or through others."""
    alive, waiting = set(roots), list(roots)
    while waiting:
        for digest in keeps.get(waiting.pop(), ()):
            if digest not in alive:
                alive.add(digest)
                waiting.append(digest)
    return alive


def _is_ripe(condemned_at: datetime | None, rules: Rules) -> bool:
    return condemned_at is not None and condemned_at <= rules.condemned_before


def _mark(session: Session, keys: Sequence[int], condemned_at: datetime | None) -> None:
    for at in range(0, len(keys), _AT_ONCE):
        session.execute(
            update(Manifest)
            .where(col(Manifest.id).in_(keys[at : at + _AT_ONCE]))
            .values(condemned_at=condemned_at)
        )


def _condemn_links(database: Database, rules: Rules, done: Collected) -> None:
    unnamed = ~is_named_by_a_manifest(col(BlobLink.repository_id), col(BlobLink.blob_id))
    condemn = (
        update(BlobLink)
        .where(
            col(BlobLink.condemned_at).is_(None),
            col(BlobLink.used_at) < rules.used_before,
            unnamed,
        )
        .values(condemned_at=rules.now)
        .execution_options(synchronize_session=False)
    )
    result = database.run(lambda session: session.execute(condemn))
    done.links_condemned += result.rowcount  # type: ignore[attr-defined]


def _remove_links(database: Database, rules: Rules, done: Collected) -> None:
    unnamed = ~is_named_by_a_manifest(col(BlobLink.repository_id), col(BlobLink.blob_id))
    ripe = (
        select(BlobLink, Repository, Blob)
        .join(Repository, col(Repository.id) == BlobLink.repository_id)
        .join(Blob, col(Blob.id) == BlobLink.blob_id)
        .where(
            col(BlobLink.condemned_at) <= rules.condemned_before,
            col(BlobLink.used_at) < rules.used_before,
            unnamed,
        )
        .limit(_AT_ONCE)
    )

    def sweep(session: Session) -> int:
        found = session.execute(ripe).all()
        for _, repository, blob in found:
            unlink(session, repository, blob)
        return len(found)

    while removed := database.run(sweep):
        done.links_removed += removed


def _remove_blobs(database: Database, rules: Rules, done: Collected) -> None:
    unlinked = (
        select(col(Blob.id), col(Blob.location))
        .where(~exists().where(col(BlobLink.blob_id) == Blob.id))
        .limit(_AT_ONCE)
    )

    def sweep(session: Session) -> int:
        found = session.execute(unlinked).all()
        session.execute(delete(Blob).where(col(Blob.id).in_([row.id for row in found])))
        # A re-upload from here on gets a location of its own, so a late removal cannot hurt it.
        remove_later(session, rules.now, objects=[row.location for row in found])
        return len(found)

    while removed := database.run(sweep):
        done.blobs_removed += removed


def _expire_uploads(database: Database, rules: Rules, done: Collected) -> None:
    expired = select(col(Upload.id)).where(col(Upload.used_at) < rules.now - rules.upload_life)

    def sweep(session: Session) -> int:
        found = list(session.execute(expired.limit(_AT_ONCE)).scalars())
        for upload in found:
            uploading.end(session, upload)
        remove_later(session, rules.now, uploads=found)
        return len(found)

    while removed := database.run(sweep):
        done.uploads_expired += removed


def _remove_orphans(database: Database, store: BlobStore, rules: Rules, done: Collected) -> None:
    """Remove bytes that a crash left without a row."""
    oldest = rules.now - max(ORPHAN_AGE, rules.upload_life)
    uploads = [each.name for each in store.uploads() if each.written_at < oldest]
    for names in _portions(uploads):
        known = _known(database, names, Upload.id)
        for name in names - known:
            store.abort(name)
            done.orphans_removed += 1
    oldest = rules.now - max(ORPHAN_AGE, rules.grace)
    # As they are listed: there may be more than fit in memory.
    objects = (each for each in store.objects() if each.written_at < oldest)
    while portion := list(islice(objects, _AT_ONCE)):
        for orphan in _orphans(database, store, portion):
            store.delete(orphan)
            done.orphans_removed += 1


def _orphans(database: Database, store: BlobStore, objects: Sequence[Object]) -> set[str]:
    """Those of `objects` that no row knows; the store lets go of uploads that have ended."""
    names = {each.name for each in objects}
    # A direct upload's object, and one in local files, has the upload's name until its blob is there; S3
    # knows which upload each came from. In this order: a row that is gone from the first table has by
    # then become one of the second, or never will.
    underway = _known(database, names | {each.upload for each in objects if each.upload}, Upload.id)
    known = underway | _known(database, names, Blob.location)
    known |= {each.name for each in objects if each.upload in underway}
    for ended in {each.upload for each in objects if each.upload} - underway:
        store.abort(ended)
    return names - known


def _known(database: Database, names: Iterable[str], column: str) -> set[str]:
    with database.read() as session:
        return set(session.execute(select(col(column)).where(col(column).in_(names))).scalars())


def _portions(names: Sequence[str]) -> Iterable[set[str]]:
    return (set(names[at : at + _AT_ONCE]) for at in range(0, len(names), _AT_ONCE))
