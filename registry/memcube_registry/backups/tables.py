"""Tables as lines of JSON, the same for every database: first the columns' names, then each row.

Instants are ISO 8601 in UTC, bytes Base64. All tables are read in one transaction and written in one.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime
from enum import Enum
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeAlias

import sqlalchemy as sql
from memcube_protocol.errors import ConflictError, IntegrityError
from sqlalchemy import Column, Table, select
from sqlmodel import Session, SQLModel

import memcube_registry.tables  # noqa: F401 - every model, so that the metadata is whole
from memcube_registry.database import Database

_ROWS: Final = 500

Change: TypeAlias = Callable[[dict[str, Any]], dict[str, Any]]
"""What a row becomes as it is loaded."""


def kept_tables() -> tuple[Table, ...]:
    """The tables that a backup holds, each after those that it refers to."""
    return tuple(
        table for table in SQLModel.metadata.sorted_tables if not table.info.get("passing")
    )


def dump(database: Database, folder: Path) -> dict[str, int]:
    """Write every kept table as it is at one moment; how many rows each has."""
    folder.mkdir()
    with database.read() as session:
        return {table.name: _dump_table(session, table, folder) for table in kept_tables()}


def _dump_table(session: Session, table: Table, folder: Path) -> int:
    count = 0
    query = select(table).order_by(*table.primary_key.columns)
    with (folder / f"{table.name}.jsonl").open("x", encoding="utf-8") as file:
        file.write(json.dumps([column.name for column in table.columns]) + "\n")
        for row in session.execute(query, execution_options={"yield_per": _ROWS}):
            file.write(json.dumps([_encoded(value) for value in row], ensure_ascii=False) + "\n")
            count += 1
    return count


def load(
    database: Database,
    folder: Path,
    change: Mapping[str, Change],
    *,
    but: Collection[str] = (),
) -> None:
    """Write the rows in `folder` into the empty tables of `database`: all of them or none.

    `change` alters rows by the name of their table; the tables called `but` stay empty.

    Raises:
        ConflictError: the tables are not empty.
        IntegrityError: a file is not what `dump` wrote.
    """
    with database.write() as session:
        require_empty(session)
        for table in (table for table in kept_tables() if table.name not in but):
            rows = _rows(folder / f"{table.name}.jsonl", table)
            while portion := list(islice(rows, _ROWS)):
                altered = (
                    [change[table.name](row) for row in portion]
                    if table.name in change
                    else portion
                )
                session.execute(sql.insert(table), altered)
            if not database.is_sqlite:
                _continue_numbers(session, table)


def require_empty(session: Session) -> None:
    """Refuse tables that hold anything.

    Raises:
        ConflictError: they do.
    """
    for table in kept_tables():
        if session.execute(select(sql.literal(1)).select_from(table).limit(1)).first():
            raise ConflictError(
                f"the database is not empty: the table {table.name} has rows",
                hint="restore into a new database and a new data folder",
            )


def rows_of(folder: Path, name: str) -> Iterator[dict[str, Any]]:
    """The rows of one table of a dump.

    Raises:
        IntegrityError: the file is not what `dump` wrote.
    """
    return _rows(folder / f"{name}.jsonl", SQLModel.metadata.tables[name])


def _rows(path: Path, table: Table) -> Iterator[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8") as file:
            names = json.loads(next(file))
            columns = [table.columns[name] for name in names]
            for line in file:
                values = zip(columns, json.loads(line), strict=True)
                yield {column.name: _decoded(column, value) for column, value in values}
    except (OSError, ValueError, KeyError, TypeError, StopIteration) as error:
        raise IntegrityError(
            f"{path.name} of the backup cannot be read: {error}", hint="use another snapshot"
        ) from error


def _encoded(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    return value.value if isinstance(value, Enum) else value


def _decoded(column: Column[Any], value: Any) -> Any:
    kind = column.type
    if value is None:
        return None
    if isinstance(kind, sql.Enum) and kind.enum_class is not None:
        return kind.enum_class(value)
    if isinstance(kind, sql.LargeBinary):
        return base64.b64decode(value, validate=True)
    if _holds_instants(kind):
        return datetime.fromisoformat(value)
    return value


def _holds_instants(kind: Any) -> bool:
    return isinstance(getattr(kind, "impl", kind), sql.DateTime)


def _continue_numbers(session: Session, table: Table) -> None:
    """Let PostgreSQL number new rows after those that came with their numbers."""
    for column in table.primary_key.columns:
        if column is table.autoincrement_column:
            last = session.execute(select(sql.func.max(column))).scalar_one()
            name = sql.func.pg_get_serial_sequence(f'"{table.name}"', column.name)
            if last is not None:
                session.execute(select(sql.func.setval(name, last)))
