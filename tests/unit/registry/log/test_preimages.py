"""Statements behind leaves: the same one may stand in the log any number of times."""

import tracemalloc

from memcube_protocol import limits
from memcube_registry.database import Database, table_of, utc_now
from memcube_registry.log import witnesses
from memcube_registry.log.models import LogEntry
from memcube_registry.log.service import TransparencyLog
from sqlalchemy import insert

STATEMENT = "ab" * 32


def keep(database: Database, number: int, repository: str) -> None:
    """An entry of 1 MiB, by a key of its own."""
    entry = {
        "number": number,
        "leaf_hash": number.to_bytes(32),
        "body": b"leaf",
        "name_tag": bytes(32),
        "statement": STATEMENT,
        "envelope": b"%d" % number + bytes(limits.MIB),
        "repository": repository,
        "logged_at": utc_now(),
    }
    with database.write() as session:
        session.execute(insert(table_of(LogEntry)), [entry])


def test_of_a_statement_that_many_keys_signed_one_is_read(database: Database) -> None:
    for number in range(16):
        keep(database, number, "alice/notes" if number else "alice/diary")
    log = TransparencyLog(database, bytes(32), "log.example", witnesses.parse(""))
    tracemalloc.start()
    try:
        found = log.preimages(STATEMENT)
        content = log.content(found[-1])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [one.repository for one in found] == ["alice/diary", "alice/notes"]
    assert content.startswith(b"1\x00")
    assert peak < 6 * limits.MIB
