"""The tables of the log: entries with their preimages, tiles, its state, who fills it, and the order of releases."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import BigInteger, LargeBinary, Text
from sqlmodel import Field, SQLModel

from memcube_registry.database import UtcDateTime, utc_now


class LogEntry(SQLModel, table=True):
    """One leaf. `number` counts from 0; `body` is what the tree hashes.

    `name_tag` is the HMAC by which those who hold a namespace's key recognise its entries; `statement`
    is the SHA-256 of the signed bytes in hex, `envelope` the JSON of the preimage, `repository` the
    name of the cube by whose rights it may be read.
    """

    __tablename__: ClassVar[Any] = "log_entry"

    number: int = Field(
        primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False}
    )
    leaf_hash: bytes = Field(sa_type=LargeBinary, unique=True)
    body: bytes = Field(sa_type=LargeBinary)
    name_tag: bytes = Field(sa_type=LargeBinary)
    statement: str = Field(max_length=64, index=True)
    envelope: bytes = Field(sa_type=LargeBinary)
    repository: str = Field(max_length=255, index=True)
    logged_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)


class LogTile(SQLModel, table=True):
    """Hashes of a tile, 32 bytes each; the last one of a level grows until it has 256."""

    __tablename__: ClassVar[Any] = "log_tile"

    level: int = Field(primary_key=True)
    number: int = Field(primary_key=True, sa_type=BigInteger)
    hashes: bytes = Field(sa_type=LargeBinary)


class LogState(SQLModel, table=True):
    """The newest checkpoint, signed, with the cosignatures of witnesses: the only row.

    The origin is fixed when the log begins: every signature over a checkpoint holds it.
    """

    __tablename__: ClassVar[Any] = "log_state"

    id: int = Field(default=1, primary_key=True, sa_column_kwargs={"autoincrement": False})
    origin: str = Field(max_length=255)
    size: int = Field(sa_type=BigInteger)
    note: str = Field(sa_type=Text)


class LogWitness(SQLModel, table=True):
    """How much of the log a witness has seen: the size of the last checkpoint that it cosigned."""

    __tablename__: ClassVar[Any] = "log_witness"

    name: str = Field(max_length=255, primary_key=True)
    size: int = Field(sa_type=BigInteger)


class LogUsage(SQLModel, table=True):
    """How many bytes the entries of a namespace take, with the statements behind them."""

    __tablename__: ClassVar[Any] = "log_usage"

    namespace: str = Field(max_length=64, primary_key=True)
    size_bytes: int = Field(sa_type=BigInteger)


class LoggedRelease(SQLModel, table=True):
    """That place `seq` of a history is taken. A history is an origin under one set of publisher keys."""

    __tablename__: ClassVar[Any] = "logged_release"

    origin: str = Field(max_length=255, primary_key=True)
    publishers: str = Field(max_length=64, primary_key=True)
    """SHA-256 in hex over the ids of the publishers' keys."""
    seq: int = Field(primary_key=True, sa_type=BigInteger)
    manifest: str = Field(max_length=160)
    number: int = Field(sa_type=BigInteger)
    """The first entry that states it."""
