"""What the models of every domain share: kinds of columns, names of constraints, and this instant."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from sqlalchemy import DateTime, Dialect, Enum, Table
from sqlalchemy.types import TypeDecorator
from sqlmodel import SQLModel

PASSING: Final = {"info": {"passing": True}}
"""Table arguments of what is worth nothing after a restart elsewhere: backups leave it out."""

SQLModel.metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class UtcDateTime(TypeDecorator[datetime]):
    """An instant. Naive values are refused; what comes back is always in UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """`value` in UTC; without its zone on SQLite, which stores none."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise TypeError(f"{value!r} names no time zone")
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - the signature is SQLAlchemy's
        """`value` with its zone, UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def choice(kind: type[StrEnum]) -> Enum:
    """A text column that holds the values of `kind` and nothing else."""
    return Enum(
        kind,
        name=kind.__name__.lower(),
        native_enum=False,
        create_constraint=True,
        length=32,
        values_callable=lambda members: [member.value for member in members],
    )


def table_of(model: type[SQLModel]) -> Table:
    """The table of `model`: queries of its columns avoid what rows as objects cost."""
    table: Table = model.__table__  # type: ignore[attr-defined]
    return table


def utc_now() -> datetime:
    """This instant, in UTC."""
    return datetime.now(UTC)
