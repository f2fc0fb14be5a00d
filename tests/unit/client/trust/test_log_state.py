"""What a client keeps of a log: it may grow, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from memcube.trust.log_state import KnownLog, Logs, LogStore, advanced, parse
from memcube_protocol.errors import LogError, SignatureInvalidError, StorageError
from memcube_signing.transparency import checkpoint
from support.log import Log, signer
from support.signing import NOW

HOST = "registry.example"


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
