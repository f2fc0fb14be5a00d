"""What is there, read without any of memcube's code: rows by SQL, bytes from the disk or the bucket."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import psycopg

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_SESSIONS = {"upload": "id", "direct_upload": "upload_id", "upload_claim": "upload"}
"""Tables of what has begun and not ended, with a column that names it."""


class Objects(Protocol):
    """The store's bytes as they lie there."""

    def names(self) -> dict[str, int]:
        """Size of every finished object by its location."""
        ...

    def unfinished(self) -> list[str]:
        """Everything that is there and no finished object."""
        ...

    def sha256(self, location: str) -> str: ...


@dataclass(frozen=True)
class BlobFolder:
    """Local files: `blobs/` and `uploads/` below `folder`."""

    folder: Path

    def names(self) -> dict[str, int]:
        return {path.name: path.stat().st_size for path in self._files("blobs")}

    def unfinished(self) -> list[str]:
        known = set(self._files("blobs"))
        return sorted(path.name for path in self._files("") if path not in known)

    def sha256(self, location: str) -> str:
        with (self.folder / "blobs" / location[:2] / location).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def _files(self, below: str) -> Iterator[Path]:
        return (path for path in (self.folder / below).rglob("*") if path.is_file())


@dataclass(frozen=True)
class Bucket:
    """The objects of a bucket below `blobs/`, and its multipart uploads."""

    client: S3Client
    bucket: str

    def names(self) -> dict[str, int]:
        return {
            key.removeprefix("blobs/"): size
            for key, size in self._keys().items()
            if key.startswith("blobs/")
        }

    def unfinished(self) -> list[str]:
        strays = [key for key in self._keys() if not key.startswith("blobs/") and key != "check"]
        uploads = self.client.list_multipart_uploads(Bucket=self.bucket).get("Uploads", [])
        return sorted(strays + [f"multipart upload of {each['Key']}" for each in uploads])

    def sha256(self, location: str) -> str:
        reply = self.client.get_object(Bucket=self.bucket, Key=f"blobs/{location}")
        return hashlib.sha256(reply["Body"].read()).hexdigest()

    def _keys(self) -> dict[str, int]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        return {each["Key"]: each["Size"] for page in pages for each in page.get("Contents", ())}


@dataclass(frozen=True)
class Manifest:
    """A manifest's row, with what its bytes name."""

    repository: str
    digest: str
    size: int
    content: bytes = field(repr=False)
    body: Mapping[str, Any] = field(repr=False)

    @property
    def blobs(self) -> list[str]:
        found = [self.body.get("config"), *self.body.get("layers", ())]
        return [each["digest"] for each in found if each]

    @property
    def children(self) -> list[str]:
        return [each["digest"] for each in self.body.get("manifests", ())]

    @property
    def subject(self) -> str | None:
        found = self.body.get("subject")
        return str(found["digest"]) if found else None


@dataclass(frozen=True)
class State:
    """The database at one moment."""

    tags: dict[tuple[str, str], str]
    """Digest by repository and tag; empty where the tag points to nothing."""
    manifests: dict[tuple[str, str], Manifest]
    links: set[tuple[str, str]]
    blobs: dict[str, tuple[str, int]]
    """Location and size by digest."""
    unlinked: set[str]
    uploads: list[str]
    condemned: int
    used: dict[str, int]
    """What each account is said to use."""
    owners: dict[str, str]
    """Account by repository."""
    entries: list[tuple[int, bytes, bytes]]
    """Number, leaf hash and body, in order."""
    tiles: dict[tuple[int, int], bytes]
    log: tuple[int, str]
    """Size and signed note."""
    unsigned: list[str]
    """Attestations of releases that are there, and that the registry refused to countersign."""
    due: list[str]
    """Work that the registry still has to do."""

    def alive(self) -> set[tuple[str, str]]:
        """Manifests that are tagged, or kept by one that is."""
        keeps: dict[tuple[str, str], list[tuple[str, str]]] = {}
        for key, one in self.manifests.items():
            for child in one.children:
                keeps.setdefault(key, []).append((one.repository, child))
            if one.subject:
                keeps.setdefault((one.repository, one.subject), []).append(key)
        waiting = [(repository, digest) for (repository, _), digest in self.tags.items()]
        found = set(waiting)
        while waiting:
            for key in keeps.get(waiting.pop(), ()):
                if key not in found:
                    found.add(key)
                    waiting.append(key)
        return found


def look(database: str) -> State:
    """The rows that `database`, an URL, holds now: of one snapshot."""
    if database.startswith("sqlite:///"):
        connection: Any = sqlite3.connect(database.removeprefix("sqlite:///"), timeout=60)
        with closing(connection):
            connection.execute("BEGIN")
            return _state(connection)
    with psycopg.connect(database) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        return _state(connection)


def _state(connection: Any) -> State:
    def rows(query: str) -> list[Any]:
        return list(connection.execute(query).fetchall())

    log = rows("SELECT size, note FROM log_state")
    return State(
        tags={
            (name, tag): digest or ""
            for name, tag, digest in rows(
                "SELECT r.name, t.name, m.digest FROM tag t JOIN repository r ON r.id = t.repository_id"
                " LEFT JOIN manifest m ON m.id = t.manifest_id AND m.repository_id = r.id"
            )
        },
        manifests={
            (name, digest): Manifest(name, digest, size, bytes(raw), json.loads(bytes(raw)))
            for name, digest, size, raw in rows(
                "SELECT r.name, m.digest, m.size_bytes, m.content FROM manifest m"
                " JOIN repository r ON r.id = m.repository_id"
            )
        },
        links={
            (name, digest)
            for name, digest in rows(
                "SELECT r.name, b.digest FROM blob_link l JOIN repository r ON r.id = l.repository_id"
                " JOIN blob b ON b.id = l.blob_id"
            )
        },
        blobs={
            digest: (location, size)
            for digest, location, size in rows("SELECT digest, location, size_bytes FROM blob")
        },
        unlinked={
            digest
            for (digest,) in rows(
                "SELECT digest FROM blob WHERE id NOT IN (SELECT blob_id FROM blob_link)"
            )
        },
        uploads=[
            f"{upload} of {table}"
            for table, column in _SESSIONS.items()
            for (upload,) in rows(f"SELECT {column} FROM {table}")
        ],
        condemned=sum(
            rows(f"SELECT count(*) FROM {table} WHERE condemned_at IS NOT NULL")[0][0]
            for table in ("manifest", "blob_link")
        ),
        used=dict(rows("SELECT name, used_bytes FROM account")),
        owners=dict(
            rows("SELECT r.name, a.name FROM repository r JOIN account a ON a.id = r.account_id")
        ),
        entries=[
            (number, bytes(leaf), bytes(body))
            for number, leaf, body in rows(
                "SELECT number, leaf_hash, body FROM log_entry ORDER BY number"
            )
        ],
        tiles={
            (level, number): bytes(hashes)
            for level, number, hashes in rows("SELECT level, number, hashes FROM log_tile")
        },
        log=(int(log[0][0]), str(log[0][1])) if log else (0, ""),
        unsigned=[
            f"{name}@{referrer}: {refused}"
            for name, referrer, refused in rows(
                "SELECT r.name, c.referrer, c.refused FROM countersigning c"
                " JOIN repository r ON r.id = c.repository_id JOIN manifest m"
                " ON m.repository_id = r.id AND m.digest = c.referrer WHERE c.refused IS NOT NULL"
            )
        ],
        due=_due(rows),
    )


def _due(rows: Any) -> list[str]:
    """Jobs that are to be done once."""
    found = rows("SELECT kind, subject, state, attempts, error FROM job WHERE every_s IS NULL")
    return [" ".join(map(str, row)) for row in found]
