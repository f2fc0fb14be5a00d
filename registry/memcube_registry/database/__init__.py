"""The registry's database: one `Database` on SQLite or PostgreSQL, its columns and its migrations."""

from __future__ import annotations

from memcube_registry.database.columns import PASSING, UtcDateTime, choice, table_of, utc_now
from memcube_registry.database.database import Database

__all__ = ["PASSING", "Database", "UtcDateTime", "choice", "table_of", "utc_now"]
