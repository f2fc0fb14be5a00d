"""Appending: many at once, two processes' worth of logs on one database, and the tree stays right."""

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from memcube_protocol.errors import ConflictError, InvalidSettingError, QuotaExceededError
from memcube_registry.accounts.service import create_account
from memcube_registry.database import Database
from memcube_registry.log import witnesses
from memcube_registry.log.models import LogUsage
from memcube_registry.log.room import Room
from memcube_registry.log.service import TransparencyLog
from memcube_registry.log.submission import Submission
from memcube_signing.bundle import sign
from memcube_signing.release import sign_release
from memcube_signing.statement import Statement
from memcube_signing.transparency import checkpoint, entry, merkle, tiles
from memcube_signing.transparency.entry import LogPolicy, TlogEntry
from memcube_signing.transparency.tiles import Tile
from sqlmodel import select, text
from support.postgres import migrated_url
from support.signing import ALICE, manifest, release

SEED = b"\x07" * 32
KEY = ALICE.public_key


def submission(number: int) -> Submission:
    said = Statement(
        "cube", manifest(str(number)).digest, "https://example.org/test", {"n": number}
    )
    return Submission("alice/notes", sign(said, ALICE).envelope, KEY)


def log_on(database: Database, origin: str = "log.example", **more) -> TransparencyLog:
    return TransparencyLog(database, SEED, origin, witnesses.parse(""), **more)


def verify(log: TransparencyLog, one: Submission, found: TlogEntry) -> None:
    signature = one.envelope.signatures[0].value
    policy = LogPolicy(log.key)
    entry.verify(found, signed=one.envelope.signed, signature=signature, key=KEY, policy=policy)


def leaves_of(log: TransparencyLog) -> list[bytes]:
    size = log.checkpoint().checkpoint.size
    widths = [min(256, size - first) for first in range(0, size, 256)]
    bundles = [log.tile(Tile(None, at, width, "entries")) for at, width in enumerate(widths)]
    return [merkle.leaf_hash(body) for one in bundles for body in tiles.parse_entries(one)]


def test_threads_and_processes_append_to_one_tree_without_losing_an_entry(
    database: Database,
) -> None:
    logs = [log_on(database), log_on(database)]
    wanted = [submission(number) for number in range(60)]
    with ThreadPoolExecutor(12) as pool:
        work = [pool.submit(logs[at % 2].add, one) for at, one in enumerate(wanted)]
        entries = [future.result(60) for future in work]
    for one, found in zip(wanted, entries, strict=True):
        verify(logs[0], one, found)
    assert sorted(found.index for found in entries) == list(range(60))
    leaves = leaves_of(logs[1])
    assert [leaves[found.index] for found in entries] == [one.leaf_hash for one in wanted]


def test_batches_over_the_borders_of_tiles_give_the_tree_of_all_leaves(database: Database) -> None:
    log, wanted = log_on(database), [submission(number) for number in range(600)]
    seen = []
    for start, end in ((0, 255), (255, 256), (256, 257), (257, 511), (511, 600)):
        outcomes = log.add_all(wanted[start:end])
        assert all(isinstance(found, TlogEntry) for found in outcomes)
        verify(log, wanted[end - 1], outcomes[-1])
        seen.append(log.checkpoint().checkpoint)
    hashes = [one.leaf_hash for one in wanted]
    assert leaves_of(log) == hashes
    for state in seen:
        _, hash_at = tiles.appended(0, {}, hashes[: state.size])
        assert merkle.root(state.size, hash_at) == state.root
    for number in (0, 255, 256, 300, 599):
        verify(log, wanted[number], log.entry(hashes[number]))


def test_the_same_statement_twice_in_one_batch_is_one_entry(database: Database) -> None:
    log = log_on(database)
    first, again = log.add_all([submission(1), submission(1)])
    assert first == again
    assert log.checkpoint().checkpoint.size == 1


def test_one_refused_release_leaves_the_others_of_its_batch(database: Database) -> None:
    log = log_on(database)
    rivals = [
        Submission("alice/notes", sign_release(one, ALICE).envelope, KEY)
        for one in (release(), release(subject=manifest("two").digest))
    ]
    outcomes = log.add_all([submission(1), *rivals, submission(2)])
    kinds = [type(outcome) for outcome in outcomes]
    assert kinds == [TlogEntry, TlogEntry, ConflictError, TlogEntry]
    assert log.checkpoint().checkpoint.size == 3


def test_a_namespace_fills_no_more_of_the_log_than_its_quota(database: Database) -> None:
    wanted = [submission(number) for number in range(4)]
    size = wanted[0].size_bytes
    with database.write() as session:
        create_account(session, "alice", quota_bytes=2 * size)
    logs = log_on(database), log_on(database)
    kinds = [type(outcome) for outcome in logs[0].add_all(wanted[:1])]
    kinds += [type(outcome) for outcome in logs[1].add_all([*wanted[1:3], foreign(wanted[3])])]
    assert kinds == [TlogEntry, TlogEntry, QuotaExceededError, TlogEntry]
    (again,) = logs[0].add_all(wanted[:1])
    verify(logs[0], wanted[0], again)
    (refused,) = logs[0].add_all(wanted[2:3])
    assert f"statements of alice fill {2 * size} of {2 * size} bytes" in str(refused)
    verify(logs[0], wanted[2], logs[0].add(wanted[2]))  # as the registry's own
    with database.read() as session:
        filled = {row.namespace: row.size_bytes for row in session.exec(select(LogUsage))}
    assert filled == {"alice": 3 * size, "bob": foreign(wanted[3]).size_bytes}


def test_the_registrys_own_statements_have_twice_the_room_and_no_more(database: Database) -> None:
    """Else whoever lets it countersign for ever fills the log without end."""
    wanted = [submission(number) for number in range(10, 14)]
    with database.write() as session:
        create_account(session, "alice", quota_bytes=wanted[0].size_bytes * 3 // 2)
    log = log_on(database)
    for one in wanted[:3]:
        verify(log, one, log.add(one))
    with pytest.raises(QuotaExceededError):
        log.add(wanted[3])
    verify(log, wanted[0], log.add(wanted[0]))


def test_two_replicas_count_for_the_same_namespaces_without_waiting_in_a_circle() -> None:
    """The row of the first name is held until both wait for it: else one could have the second already."""
    with migrated_url() as url, closing(Database(url)) as database:
        with database.write() as session:
            session.add_all([LogUsage(namespace=name, size_bytes=0) for name in ("alice", "bob")])

        def count_for(*names: str) -> None:
            with database.write() as session:  # which does not begin again
                Room({}, {}, Counter(dict.fromkeys(names, 1))).keep(session)

        with ThreadPoolExecutor(2) as pool:
            with database.read() as holder:
                holder.connection().execute(text("SET TRANSACTION READ WRITE"))
                holder.get(LogUsage, "alice", with_for_update=True)
                counting = []
                for names in (("alice", "bob"), ("bob", "alice")):
                    counting.append(pool.submit(count_for, *names))
                    wait_for_waiting(database, len(counting))
            refusals = [one.exception(60) for one in counting]
    assert not any("deadlock" in str(one and one.__cause__) for one in refusals), refusals


def wait_for_waiting(database: Database, number: int) -> None:
    """Until so many statements on this database wait for a lock."""
    query = text(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    deadline_s = time.monotonic() + 60
    while True:
        with database.glance() as connection:
            if connection.execute(query).scalar_one() >= number:
                return
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def foreign(one: Submission) -> Submission:
    """`one` about a cube of a namespace that has no quota."""
    return Submission("bob/notes", one.envelope, one.key)


def test_a_log_keeps_the_name_that_it_began_with(database: Database) -> None:
    log_on(database, "first.example").add(submission(1))
    moved = log_on(database, "second.example")
    assert moved.key.name == "first.example"
    moved.add(submission(2))
    assert checkpoint.verify(moved.checkpoint(), moved.key).size == 2
    with pytest.raises(InvalidSettingError):
        log_on(database, "second.example", fixed=True).checkpoint()


def test_an_empty_log_has_a_signed_checkpoint(database: Database) -> None:
    log = log_on(database)
    assert checkpoint.verify(log.checkpoint(), log.key).root == merkle.EMPTY_ROOT
