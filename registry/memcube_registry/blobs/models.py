"""The tables of blobs, of their links to repositories, and of uploads in progress."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import BigInteger
from sqlmodel import Field, SQLModel

from memcube_registry.database import PASSING, UtcDateTime, choice, utc_now
from memcube_registry.delivery.decision import Form


class Blob(SQLModel, table=True):
    """Bytes that the blob store holds at `location`, durable before this row is written.

    `lost_at` is when a check found that it holds them no longer: until somebody pushes them again, no
    repository has the blob.
    """

    id: int | None = Field(default=None, primary_key=True)
    digest: str = Field(max_length=160, unique=True)
    size_bytes: int = Field(sa_type=BigInteger)
    location: str = Field(max_length=255, unique=True)
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    lost_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class BlobLink(SQLModel, table=True):
    """That a blob belongs to a repository, which alone makes it visible there.

    `used_at` is when a push last relied on it. `condemned_at` is when garbage collection found that
    nothing refers to it; a HEAD, mount or upload before it is collected clears that.
    """

    __tablename__: ClassVar[Any] = "blob_link"

    repository_id: int = Field(foreign_key="repository.id", primary_key=True)
    blob_id: int = Field(foreign_key="blob.id", primary_key=True, index=True)
    form: Form = Field(default=Form.OPEN, sa_type=choice(Form))
    used_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    condemned_at: datetime | None = Field(default=None, sa_type=UtcDateTime, index=True)


class Upload(SQLModel, table=True):
    """An upload in progress. Its bytes lie in the blob store under `id`; it survives a restart.

    `size_bytes` counts what was received, or is announced by the request that is being received. A
    direct one has a `DirectUpload` as well, and takes no bytes here.
    """

    __table_args__ = PASSING

    id: str = Field(max_length=32, primary_key=True)
    repository_id: int = Field(foreign_key="repository.id", index=True)
    account_id: int = Field(foreign_key="account.id", index=True)
    size_bytes: int = Field(default=0, sa_type=BigInteger)
    is_direct: bool = False
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    used_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime, index=True)


class DirectUpload(SQLModel, table=True):
    """What an upload becomes whose bytes go to the store without passing here; goes with its `Upload`.

    The bytes lie at the location `upload_id`: in one object, or in parts under the store's name
    `parts_id`. `read_back_by` names the process that reads them back, which is taken to be dead once
    `read_back_until` is over.
    """

    __tablename__: ClassVar[Any] = "direct_upload"
    __table_args__ = PASSING

    upload_id: str = Field(
        max_length=32, primary_key=True, foreign_key="upload.id", ondelete="CASCADE"
    )
    digest: str = Field(max_length=160, index=True)
    size_bytes: int = Field(sa_type=BigInteger)
    part_bytes: int = Field(sa_type=BigInteger)
    parts_id: str = Field(default="", max_length=1024)
    read_back_bytes: int = Field(default=0, sa_type=BigInteger)
    read_back_by: str = Field(default="", max_length=32)
    read_back_until: datetime | None = Field(default=None, sa_type=UtcDateTime)


class DirectPart(SQLModel, table=True):
    """The one SHA-256 (hex) for which requests are signed that put a part; goes with its `Upload`."""

    __tablename__: ClassVar[Any] = "direct_part"
    __table_args__ = PASSING

    upload_id: str = Field(
        max_length=32, primary_key=True, foreign_key="upload.id", ondelete="CASCADE"
    )
    number: int = Field(primary_key=True)
    sha256: str = Field(max_length=64)
