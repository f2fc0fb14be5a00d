"""Runs migrations on the connection that memcube_registry.migrating hands over."""

import memcube_registry.tables  # noqa: F401 - every model, so that the metadata is whole
from sqlalchemy import Connection, text
from sqlmodel import SQLModel

from alembic import context

# Any number, the same in every replica: one migrates, the others wait for it.
_ADVISORY_LOCK = 0x6D656D63


def run(connection: Connection) -> None:
    sqlite = connection.dialect.name == "sqlite"
    if sqlite:
        # Renaming a table would otherwise act on the rows that refer to it.
        connection.exec_driver_sql("PRAGMA foreign_keys = OFF")
    context.configure(
        connection=connection,
        target_metadata=SQLModel.metadata,
        render_as_batch=sqlite,
        compare_type=True,
    )
    with context.begin_transaction():
        if not sqlite:
            connection.execute(
                text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _ADVISORY_LOCK}
            )
        context.run_migrations()
    if sqlite:
        connection.exec_driver_sql("PRAGMA foreign_keys = ON")


given = context.config.attributes.get("connection")
if given is None:
    raise SystemExit("run migrations with `memcube-registry migrate`")
run(given)
