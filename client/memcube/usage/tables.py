"""The tables of the sidecar, and every statement that reads or changes them."""

from __future__ import annotations

from typing import Final, NamedTuple

FORMAT: Final = 1
SET_FORMAT: Final = f"PRAGMA user_version = {FORMAT}"
RECORDS: Final = 100_000
ANSWERS: Final = 2_000
CUBES: Final = 10_000
VERSIONS: Final = 10_000

SCHEMA: Final = """
    CREATE TABLE cube (
        name TEXT PRIMARY KEY, mounts INTEGER NOT NULL, accesses INTEGER NOT NULL,
        answers INTEGER NOT NULL, last_used_at INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE version (
        cube TEXT, digest TEXT, mounts INTEGER NOT NULL, first_mounted_at INTEGER NOT NULL,
        last_mounted_at INTEGER NOT NULL, PRIMARY KEY (cube, digest)
    ) WITHOUT ROWID;
    CREATE TABLE record (
        cube TEXT, id TEXT, accesses INTEGER NOT NULL, answers INTEGER NOT NULL,
        score REAL NOT NULL, last_used_at INTEGER NOT NULL, PRIMARY KEY (cube, id)
    ) WITHOUT ROWID;
    CREATE TABLE answer (number INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL);
    CREATE TABLE used (
        answer INTEGER, cube TEXT, record TEXT, score REAL NOT NULL,
        PRIMARY KEY (answer, cube, record)
    ) WITHOUT ROWID
"""
"""Makes the tables, statement by statement. Seconds since 1970 are whole numbers; a cube is named by host and repository."""

ADD_CUBE: Final = """
    INSERT INTO cube VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
        mounts = mounts + excluded.mounts, accesses = accesses + excluded.accesses,
        answers = answers + excluded.answers,
        last_used_at = max(last_used_at, excluded.last_used_at)
"""
ADD_VERSION: Final = """
    INSERT INTO version VALUES (?1, ?2, 1, ?3, ?3) ON CONFLICT DO UPDATE SET
        mounts = mounts + 1, last_mounted_at = max(last_mounted_at, excluded.last_mounted_at)
"""
ADD_RECORD: Final = """
    INSERT INTO record VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
        accesses = accesses + excluded.accesses, answers = answers + excluded.answers,
        score = score + (excluded.score - score) / min(accesses + answers + 1, 20),
        last_used_at = max(last_used_at, excluded.last_used_at)
"""
ADD_ANSWER: Final = "INSERT INTO answer (at) VALUES (?)"
ADD_USED: Final = "INSERT OR REPLACE INTO used VALUES (?, ?, ?, ?)"

ALL_CUBES: Final = """
    SELECT name, mounts, accesses, answers,
        (SELECT count(*) FROM record WHERE record.cube = cube.name), last_used_at
    FROM cube ORDER BY last_used_at DESC, name
"""
ONE_CUBE: Final = """
    SELECT name, mounts, accesses, answers,
        (SELECT count(*) FROM record WHERE record.cube = cube.name), last_used_at
    FROM cube WHERE name = ?
"""
VERSIONS_OF: Final = """
    SELECT digest, mounts, first_mounted_at, last_mounted_at FROM version
    WHERE cube = ? ORDER BY first_mounted_at, digest
"""
RECORDS_OF: Final = """
    SELECT id, accesses, answers, score, last_used_at FROM record
    WHERE cube = ? ORDER BY accesses + answers DESC, last_used_at DESC, id LIMIT ?
"""
ONE_RECORD: Final = """
    SELECT id, accesses, answers, score, last_used_at FROM record WHERE cube = ? AND id = ?
"""
ANSWERS_OF: Final = """
    SELECT answer.number, answer.at, used.cube, used.record, used.score
    FROM (SELECT DISTINCT answer FROM used WHERE cube = ? ORDER BY answer DESC LIMIT ?) AS one
        JOIN answer ON answer.number = one.answer JOIN used ON used.answer = one.answer
    ORDER BY answer.number DESC, used.score DESC, used.record
"""

FORGET_CUBE: Final = (
    "DELETE FROM cube WHERE name = ?",
    "DELETE FROM version WHERE cube = ?",
    "DELETE FROM record WHERE cube = ?",
    "DELETE FROM used WHERE cube = ?",
)
FORGET_EMPTY_ANSWERS: Final = "DELETE FROM answer WHERE number NOT IN (SELECT answer FROM used)"
FORGET_OLD_USES: Final = """
    DELETE FROM used WHERE answer < (SELECT ifnull(min(number), 0) FROM answer)
"""


class Bound(NamedTuple):
    """How much one table may hold: what counts it, and what lets the longest unused go."""

    most: int
    counting: str
    dropping: str


BOUNDS: Final = (
    Bound(
        RECORDS,
        "SELECT count(*) FROM record",
        "DELETE FROM record WHERE (cube, id) IN"
        " (SELECT cube, id FROM record ORDER BY last_used_at LIMIT ?)",
    ),
    Bound(
        ANSWERS,
        "SELECT count(*) FROM answer",
        "DELETE FROM answer WHERE number IN (SELECT number FROM answer ORDER BY number LIMIT ?)",
    ),
    Bound(
        VERSIONS,
        "SELECT count(*) FROM version",
        "DELETE FROM version WHERE (cube, digest) IN"
        " (SELECT cube, digest FROM version ORDER BY last_mounted_at LIMIT ?)",
    ),
    Bound(
        CUBES,
        "SELECT count(*) FROM cube",
        "DELETE FROM cube WHERE name IN (SELECT name FROM cube ORDER BY last_used_at LIMIT ?)",
    ),
)
