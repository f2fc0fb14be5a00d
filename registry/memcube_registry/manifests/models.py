"""The tables of manifests, of what they refer to, and of tags."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar, Final

from memcube_protocol.digest import Digest
from sqlalchemy import JSON, BigInteger, Index, String, UniqueConstraint
from sqlmodel import Field, SQLModel

from memcube_registry.database import UtcDateTime, utc_now

# PostgreSQL would sort by the language of the server, and pages of a list must not depend on it.
TAG_NAME = String(128).with_variant(String(128, collation="C"), "postgresql")


COMMIT_CHARS: Final = 40


def commit_of(digest: Digest) -> str:
    """What a manifest is called where a Git commit is wanted: the first 40 hex digits of its digest."""
    return digest.hex[:COMMIT_CHARS]


class Manifest(SQLModel, table=True):
    """A manifest or index of one repository. `content` holds the bytes exactly as they came.

    `commit` names it where Git's names are wanted (docs/spec/hub.md), once in a repository. `artifact_type` falls back to the config's media type. `condemned_at` is when garbage
    collection found that nothing keeps it alive.
    """

    __table_args__ = (
        UniqueConstraint("repository_id", "digest"),
        UniqueConstraint("repository_id", "commit"),
        Index("ix_manifest_subject", "repository_id", "subject_digest"),
    )

    id: int | None = Field(default=None, primary_key=True)
    repository_id: int = Field(foreign_key="repository.id")
    digest: str = Field(max_length=160)
    commit: str = Field(max_length=COMMIT_CHARS)
    media_type: str = Field(max_length=255)
    artifact_type: str | None = Field(default=None, max_length=255)
    annotations: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)
    size_bytes: int = Field(sa_type=BigInteger)
    content: bytes
    subject_digest: str | None = Field(default=None, max_length=160)
    account_id: int = Field(foreign_key="account.id", index=True)
    """Who pushed it."""
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    used_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    """When a push last relied on it."""
    condemned_at: datetime | None = Field(default=None, sa_type=UtcDateTime, index=True)


class ManifestBlob(SQLModel, table=True):
    """That a manifest names a blob of its repository."""

    __tablename__: ClassVar[Any] = "manifest_blob"

    manifest_id: int = Field(foreign_key="manifest.id", primary_key=True)
    blob_id: int = Field(foreign_key="blob.id", primary_key=True, index=True)


class ManifestChild(SQLModel, table=True):
    """That an index names a manifest of its repository."""

    __tablename__: ClassVar[Any] = "manifest_child"

    manifest_id: int = Field(foreign_key="manifest.id", primary_key=True)
    child_digest: str = Field(max_length=160, primary_key=True, index=True)


class Tag(SQLModel, table=True):
    """A name for a manifest of a repository."""

    repository_id: int = Field(foreign_key="repository.id", primary_key=True)
    name: str = Field(sa_type=TAG_NAME, primary_key=True)
    manifest_id: int = Field(foreign_key="manifest.id", index=True)
    updated_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)


class RetiredTag(SQLModel, table=True):
    """An immutable tag that was deleted: it may come back for the same manifest only."""

    __tablename__: ClassVar[Any] = "retired_tag"

    repository_id: int = Field(foreign_key="repository.id", primary_key=True)
    name: str = Field(sa_type=TAG_NAME, primary_key=True)
    digest: str = Field(max_length=160)
    retired_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
