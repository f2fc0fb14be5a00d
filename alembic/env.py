"""Runs migrations on the connection that memcube_registry.database.migrating hands over."""

from typing import Any, Literal

import memcube_registry.tables  # noqa: F401 - every model, so that the metadata is whole
from memcube_registry.database import UtcDateTime
from sqlalchemy import Connection, text
from sqlmodel import SQLModel
from sqlmodel.sql.sqltypes import AutoString

from alembic import context

# Any number, the same in every replica: one migrates, the others wait for it.
ONE_AT_A_TIME = 0x6D656D63


def plain(kind: str, item: Any, _context: Any) -> str | Literal[False]:
    """Column types as SQLAlchemy's own: a migration must not change when the models' types do."""
    if kind == "type" and isinstance(item, AutoString):
        return f"sa.String({item.length})"
    if kind == "type" and isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    return False


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=SQLModel.metadata,
        render_as_batch=connection.dialect.name == "sqlite",
        # The registry begins SQLite's transactions itself, so its schema changes are whole as well.
        transactional_ddl=True,
        compare_type=True,
        render_item=plain,
    )
    with context.begin_transaction():
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": ONE_AT_A_TIME})
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is None:
    raise SystemExit("run migrations with `memcube-registry migrate`")
run(given)
