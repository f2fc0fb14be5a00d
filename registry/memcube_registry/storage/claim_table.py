"""Claims to uploads in the registry's database, which all replicas share."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import Text, update
from sqlmodel import Field, Session, SQLModel, col, select

from memcube_registry.database import PASSING, Database, UtcDateTime, utc_now
from memcube_registry.storage.claims import LEASE, Claimed, busy, lost


class UploadClaim(SQLModel, table=True):
    """One upload of a store that cannot lock. `owner` is one request of one process, if any writes now."""

    __tablename__: ClassVar[Any] = "upload_claim"
    __table_args__ = PASSING

    upload: str = Field(max_length=32, primary_key=True)
    owner: str | None = Field(default=None, max_length=32, index=True)
    expires_at: datetime = Field(sa_type=UtcDateTime)
    written_at: datetime = Field(sa_type=UtcDateTime)
    state: str = Field(default="", sa_type=Text)


class DatabaseClaims:
    """`Claims` of every process that uses `database`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def take(self, upload: str, owner: str) -> str:
        """See `Claims.take`."""
        now = utc_now()

        def take(session: Session) -> str:
            row = session.get(UploadClaim, upload)
            if row is None:
                row = UploadClaim(upload=upload, expires_at=now, written_at=now)
            if row.owner not in (None, owner) and row.expires_at > now:
                raise busy()
            row.owner, row.expires_at = owner, now + LEASE
            session.add(row)
            return row.state

        return self._database.run(take)

    def keep(self, upload: str, owner: str, state: str, *, release: bool = False) -> None:
        """See `Claims.keep`."""
        now = utc_now()
        change = (
            update(UploadClaim)
            .where(col(UploadClaim.upload) == upload, col(UploadClaim.owner) == owner)
            .values(
                state=state,
                written_at=now,
                expires_at=now + LEASE,
                owner=None if release else owner,
            )
        )

        def keep(session: Session) -> None:
            if session.execute(change).rowcount != 1:  # type: ignore[attr-defined]
                raise lost()

        self._database.run(keep)

    def forget(self, upload: str) -> str | None:
        """See `Claims.forget`."""

        def forget(session: Session) -> str | None:
            row = session.get(UploadClaim, upload)
            if row is None:
                return None
            session.delete(row)
            return row.state

        return self._database.run(forget)

    def renew(self, owners: Collection[str]) -> None:
        """See `Claims.renew`."""
        change = (
            update(UploadClaim)
            .where(col(UploadClaim.owner).in_(owners))
            .values(expires_at=utc_now() + LEASE)
            .execution_options(synchronize_session=False)
        )
        self._database.run(lambda session: session.execute(change))

    def state(self, upload: str) -> str:
        """See `Claims.state`."""
        with self._database.read() as session:
            row = session.get(UploadClaim, upload)
            return row.state if row else ""

    def all(self) -> Iterable[Claimed]:
        """See `Claims.all`."""
        with self._database.read() as session:
            rows = session.exec(select(UploadClaim)).all()
        return [Claimed(row.upload, row.state, row.written_at, row.owner) for row in rows]
