"""Checkpoints, cosignatures and entries: written, read, verified, and refused."""

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from memcube_protocol import canonical_json
from memcube_protocol.errors import InvalidStatementError, SignatureInvalidError
from memcube_signing.transparency import checkpoint, entry
from memcube_signing.transparency.checkpoint import NoteKey
from memcube_signing.transparency.entry import LogPolicy, TlogEntry
from support.logged import (
    AT,
    KEY,
    LOG_KEY,
    OTHER_LOG,
    SIGNATURE,
    SIGNED,
    WITNESS,
    WITNESS_KEY,
    logged,
)
from support.signing import MALLORY

POLICY = LogPolicy(LOG_KEY)


def verify(found, policy=POLICY, **changes):
    about = {"signed": SIGNED, "signature": SIGNATURE, "key": KEY} | changes
    return entry.verify(found, policy=policy, **about)


def test_an_entry_is_read_back_and_verified_with_its_time():
    found = TlogEntry.from_json(json.loads(json.dumps(logged().to_json())))
    assert found == logged()
    assert verify(found).index == 1
    assert verify(found).logged_at == AT


@pytest.mark.parametrize(
    ("found", "changes", "reason"),
    [
        (logged(key=OTHER_LOG), {}, "log-unknown"),
        (replace(logged(key=OTHER_LOG), log_id=LOG_KEY.id), {}, "log-signature-missing"),
        (logged(name="other.example"), {}, "log-unknown"),
        (replace(logged(name="other.example"), log_id=LOG_KEY.id), {}, "log-unknown"),
        (replace(logged(), index=0), {}, "log-proof-invalid"),
        (replace(logged(), proof=()), {}, "log-proof-invalid"),
        (replace(logged(), body=b"{}"), {}, "log-entry-mismatch"),
        (logged(), {"signed": SIGNED + b" "}, "log-entry-mismatch"),
        (logged(), {"signature": MALLORY.sign(SIGNED)}, "log-entry-mismatch"),
        (logged(), {"key": MALLORY.public_key}, "log-entry-mismatch"),
        (logged(), {"policy": LogPolicy(LOG_KEY, frozenset({WITNESS_KEY}), 1)}, "log-unwitnessed"),
    ],
)
def test_what_is_not_proved_is_refused(found, changes, reason):
    with pytest.raises(SignatureInvalidError) as caught:
        verify(found, **changes)
    assert caught.value.reason == reason


def test_a_leaf_is_canonical_json_of_a_hashedrekord():
    value = canonical_json.parse_object(logged().body)
    assert canonical_json.dump(value) == logged().body
    assert value["spec"]["hashedRekordV002"]["signature"]["verifier"]["publicKey"] == {
        "rawBytes": base64.b64encode(KEY.der).decode()
    }


def test_a_witness_counts_once_and_only_with_its_own_signature():
    state = logged().checkpoint.checkpoint
    line = checkpoint.cosign(state, "witness.example", WITNESS, AT)
    policy = LogPolicy(LOG_KEY, frozenset({WITNESS_KEY}), 1)
    again = checkpoint.cosign(state, "witness.example", WITNESS, datetime(2027, 1, 1, tzinfo=UTC))
    accepted = verify(logged(witnesses=(line, again)), policy)
    assert [cosigned.key for cosigned in accepted.seen] == [LOG_KEY.cosigner, WITNESS_KEY]
    forged = checkpoint.cosign(replace(state, size=3), "witness.example", WITNESS, AT)
    with pytest.raises(SignatureInvalidError):
        verify(logged(witnesses=(forged,)), policy)
    alias = replace(WITNESS_KEY, name="alias.example")
    two = LogPolicy(LOG_KEY, frozenset({WITNESS_KEY, alias}), 2)
    same = logged(witnesses=(line, checkpoint.cosign(state, alias.name, WITNESS, AT)))
    with pytest.raises(SignatureInvalidError):
        verify(same, two)


def test_a_logs_own_signature_is_no_cosignature():
    note = logged().checkpoint
    assert checkpoint.cosignatures(note, [replace(WITNESS_KEY, name="log.example")]) == ()


@pytest.mark.parametrize(
    "change",
    [
        {"integratedTime": "1780000000"},
        {"inclusionPromise": {"signedEntryTimestamp": "AA=="}},
        {"kindVersion": {"kind": "dsse", "version": "0.0.1"}},
        {"logIndex": 1},
        {"logIndex": "01"},
        {"logIndex": "0"},
        {"canonicalizedBody": "e30"},
        {"extra": 1},
        {"inclusionProof": None},
    ],
)
def test_malformed_entries_are_refused(change):
    with pytest.raises(InvalidStatementError):
        TlogEntry.from_json(logged().to_json() | change)


@pytest.mark.parametrize("field", ["rootHash", "treeSize", "logIndex"])
def test_a_proof_that_contradicts_its_checkpoint_is_refused(field):
    value = logged().to_json()
    value["inclusionProof"][field] = {"rootHash": "AAAA", "treeSize": "3", "logIndex": "0"}[field]
    with pytest.raises(InvalidStatementError):
        TlogEntry.from_json(value)


@pytest.mark.parametrize("key", [LOG_KEY, WITNESS_KEY])
def test_verifier_keys_are_read_back(key):
    assert NoteKey.parse(str(key)) == key


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "a+b+c",
        str(LOG_KEY)[:-4],
        str(LOG_KEY).replace("log.", "lag."),
        "+".join(["", *str(LOG_KEY).split("+")[1:]]),
    ],
)
def test_malformed_verifier_keys_are_refused(text):
    with pytest.raises(InvalidStatementError):
        NoteKey.parse(text)


def test_the_verifier_key_of_the_go_documentation_is_read():
    text = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
    assert str(NoteKey.parse(text)) == text
    note = (
        "If you think cryptography is the answer to your problem,\n"
        "then you don't know what your problem is.\n"
    )
    line = checkpoint.parse_lines(
        "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
    )[0]
    NoteKey.parse(text).key.verify(line.value, note.encode())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a\n",
        "a\n1\nAAAA\n",
        "a\n1\nAAAA\n\n",
        "a\n01\n" + "A" * 43 + "=\n\n— a AAAAAAA=\n",
        "a b\n1\n" + "A" * 43 + "=\n\n— a AAAAAAA=\n",
        "a\n1\n" + "A" * 43 + "=\next\n\n— a AAAAAAA=\n",
        "a\n1\n" + "A" * 43 + "=\n\n- a AAAAAAA=\n",
        "a\n1\n" + "A" * 43 + "=\n\n— a AAAA\n",
        "a\n1\n" + "A" * 43 + "=\n\n— a AAAAAAA=",
    ],
)
def test_malformed_checkpoints_are_refused(text):
    with pytest.raises(InvalidStatementError):
        checkpoint.parse(text)
