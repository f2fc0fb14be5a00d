"""What a client keeps of a log: it may grow, and nothing else."""

from __future__ import annotations

import base64
import json
import os
from dataclasses import replace
from datetime import timedelta
from itertools import count
from types import SimpleNamespace

import pytest
from memcube.store.locks import hold_lock
from memcube.trust.log_state import KnownLog, Logs, LogStore, advanced, parse
from memcube_protocol.errors import ConflictError, LogError, SignatureInvalidError, StorageError
from memcube_signing.transparency import checkpoint
from support.log import Log, signer
from support.signing import ALICE, MALLORY, NOW

HOST = "registry.example"
NOISY = "!" + base64.b64encode(ALICE.public_key.der).decode()


def grown(count: int, seed: int = 7) -> Log:
    return Log(signer=signer(seed), leaves=[b"%d" % number for number in range(count)])


def met(log: Log) -> KnownLog:
    return advanced(None, log.key, log.note(), (), NOW)


def refused(error, reason, known, log, proof=(), now=NOW, note=None):
    with pytest.raises(error) as caught:
        advanced(known, log.key, note or log.note(), proof, now)
    assert caught.value.reason == reason
    assert caught.value.hint


@pytest.mark.parametrize("old", [0, 1, 2, 3, 7])
def test_a_log_that_grows_is_followed(old):
    known, log = met(grown(old)), grown(7)
    assert advanced(known, log.key, log.note(), log.proof(old), NOW).state.size == 7


def test_a_log_that_shrinks_is_refused():
    refused(SignatureInvalidError, "log-shrank", met(grown(7)), grown(6))


def test_a_log_that_forks_is_refused():
    other = grown(5)
    other.leaves[2] = b"other"
    refused(SignatureInvalidError, "log-forked", met(grown(5)), other)
    other.leaves += [b"more"]
    refused(SignatureInvalidError, "log-forked", met(grown(5)), other, other.proof(5))


def test_a_proof_is_not_to_be_left_out():
    refused(SignatureInvalidError, "log-forked", met(grown(5)), grown(7))


def test_another_key_or_another_name_is_another_log():
    refused(LogError, "log-key-changed", met(grown(5)), grown(5, seed=8))
    renamed = replace(grown(5), origin="other.example")
    refused(LogError, "log-key-changed", met(grown(5)), renamed)


def test_an_unsigned_checkpoint_is_refused():
    log, forger = grown(5), grown(5, seed=8)
    refused(SignatureInvalidError, "log-signature-missing", None, log, note=forger.note())


def test_a_log_that_stands_still_is_refused():
    log = grown(5)
    day = timedelta(days=1)
    assert advanced(met(log), log.key, log.note(NOW - day), (), NOW)
    refused(LogError, "log-stale", met(log), log, note=log.note(NOW - day - timedelta(seconds=1)))
    bare = checkpoint.sign(log.note().checkpoint, log.signer)
    refused(LogError, "log-stale", met(log), log, note=bare)


def test_a_clock_that_was_set_back_is_noticed():
    log = grown(5)
    refused(LogError, "clock-set-back", met(log), log, now=NOW - timedelta(minutes=5, seconds=1))
    assert advanced(met(log), log.key, log.note(), (), NOW - timedelta(minutes=5))


def test_what_was_seen_is_kept(tmp_path):
    store = LogStore(tmp_path / "trust")
    assert store.load() == Logs()
    store.keep(HOST, met(grown(5)))
    store.keep("other.example", met(grown(3, seed=8)))
    store.keep(HOST, met(grown(4)))
    assert store.load().of(HOST).state.size == 5
    assert parse(store.load().to_bytes()) == store.load()


def test_two_processes_that_are_shown_two_logs_notice(tmp_path):
    store = LogStore(tmp_path)
    store.keep(HOST, met(grown(5)))
    forked = grown(5)
    forked.leaves[0] = b"other"
    for log, reason in ((forked, "log-forked"), (grown(5, seed=8), "log-key-changed")):
        with pytest.raises(LogError) as caught:
            store.keep(HOST, met(log))
        assert caught.value.reason == reason


def test_a_damaged_file_is_never_no_logs(tmp_path):
    store = LogStore(tmp_path)
    store.keep(HOST, met(grown(5)))
    path = tmp_path / "logs.json"
    good = path.read_bytes()
    forged = good.replace(b"\\n5\\n", b"\\n4\\n")
    assert forged != good
    for content in (b"", b"{}", good[:-1], good.replace(b'"format":1', b'"format":2'), forged):
        path.write_bytes(content)
        with pytest.raises(StorageError) as caught:
            store.load()
        assert caught.value.hint


def test_what_another_process_saw_of_the_same_log_is_kept(tmp_path):
    store = LogStore(tmp_path)
    earlier, later = (
        advanced(None, grown(5).key, grown(5).note(at), (), NOW)
        for at in (NOW - timedelta(minutes=1), NOW)
    )
    for log in (earlier, later, earlier):
        store.keep(HOST, log)
        assert store.load().of(HOST) == log
    store.keep(HOST, met(grown(4)))
    assert store.load().of(HOST) == earlier
    store.keep(HOST, met(grown(6)))
    assert store.load().of(HOST).state.size == 6


@pytest.mark.parametrize("size", range(6))
def test_a_fork_of_one_size_is_noticed_whichever_root_is_greater(tmp_path, size):
    for number in range(4):
        store = LogStore(tmp_path / str(number))
        store.keep(HOST, met(grown(5)))
        forked = grown(5)
        forked.leaves[min(size, 4)] = b"other %d" % number
        with pytest.raises(LogError) as caught:
            store.keep(HOST, met(forked))
        assert caught.value.reason == "log-forked"
        assert store.load().of(HOST) == met(grown(5))


def test_of_several_times_the_latest_tells_whether_a_log_stands_still():
    log = grown(5)
    old = checkpoint.cosign(log.note().checkpoint, log.origin, log.signer, NOW - timedelta(days=9))
    bare = checkpoint.sign(log.note().checkpoint, log.signer)
    for lines in ([old, *log.note().lines], [*log.note().lines, old]):
        assert advanced(None, log.key, bare.with_lines(lines), (), NOW)


def test_a_file_of_another_shape_is_damaged(tmp_path):
    store = LogStore(tmp_path)
    store.keep(HOST, met(grown(5)))
    path = tmp_path / "logs.json"
    whole = json.loads(path.read_bytes())
    log = whole["logs"][HOST]
    for other in (
        *(whole | {"more": 1}, {"format": 1}, {"logs": {}}, whole | {"format": 0}, []),
        *(whole | {"logs": value} for value in ([], None, "x", {HOST: None}, {HOST: []})),
        *(whole | {"logs": {HOST: {"key": log["key"]}}}, whole | {"logs": {HOST: {"note": "x"}}}),
        *(whole | {"logs": {HOST: log | {"key": value}}} for value in (None, "x", 7, "a+b+c")),
        *(whole | {"logs": {HOST: log | {"note": value}}} for value in (None, "x", 7)),
        *(whole | {"logs": {HOST: log | {"registryKey": value}}} for value in ("", "x", 7, NOISY)),
    ):
        path.write_text(json.dumps(other))
        with pytest.raises(StorageError):
            store.load()
    path.write_text(json.dumps(whole | {"logs": {}}))
    assert store.load() == Logs()


def test_a_file_larger_than_any_is_not_read(tmp_path):
    path = tmp_path / "logs.json"
    path.touch(mode=0o600)
    os.truncate(path, 16 * 1024 * 1024 + 1)
    with pytest.raises(StorageError, match="larger than 16777216 bytes"):
        LogStore(tmp_path).load()


def test_for_another_process_half_a_minute_is_waited(tmp_path, monkeypatch):
    ticks = SimpleNamespace(monotonic=count(step=10).__next__, sleep=lambda _: None)
    monkeypatch.setattr("memcube.store.locks.time", ticks)
    with (
        hold_lock(tmp_path / ".logs.json.lock", exclusive=False, wait_s=1),
        pytest.raises(ConflictError, match="for 30 s"),
    ):
        LogStore(tmp_path).keep(HOST, met(grown(5)))


def test_nothing_is_kept_while_another_process_reads_and_writes(tmp_path, monkeypatch):
    monkeypatch.setattr("memcube.trust.log_state._LOCK_WAIT_S", 0.1)
    store = LogStore(tmp_path)
    with (
        hold_lock(tmp_path / ".logs.json.lock", exclusive=False, wait_s=1),
        pytest.raises(ConflictError),
    ):
        store.keep(HOST, met(grown(5)))
    assert store.load() == Logs()


def test_the_key_of_a_registry_stays_as_it_was_met_first(tmp_path):
    def keyed(size: int, key=None) -> KnownLog:
        return replace(met(grown(size)), registry_key=key and key.public_key)

    store = LogStore(tmp_path)
    for log, expected in (
        (keyed(3), None),
        (keyed(4, ALICE), ALICE.public_key),
        (keyed(5), ALICE.public_key),
        (keyed(6, MALLORY), ALICE.public_key),
    ):
        store.keep(HOST, log)
        assert store.load().of(HOST).registry_key == expected
