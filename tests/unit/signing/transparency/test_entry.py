"""Checkpoints, cosignatures and entries: written, read, verified, and refused."""

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from memcube_protocol import canonical_json
from memcube_protocol.errors import InvalidStatementError, SignatureInvalidError
from memcube_signing.transparency import checkpoint, entry
from memcube_signing.transparency.checkpoint import NoteKey
from memcube_signing.transparency.entry import LogPolicy, TlogEntry, Witnesses
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
from support.signing import EDDIE, MALLORY, changed

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
        (
            logged(),
            {"policy": LogPolicy(LOG_KEY, (Witnesses(frozenset({WITNESS_KEY}), 1),))},
            "log-unwitnessed",
        ),
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
    policy = LogPolicy(LOG_KEY, (Witnesses(frozenset({WITNESS_KEY}), 1),))
    again = checkpoint.cosign(state, "witness.example", WITNESS, datetime(2027, 1, 1, tzinfo=UTC))
    accepted = verify(logged(witnesses=(line, again)), policy)
    assert [cosigned.key for cosigned in accepted.seen] == [LOG_KEY.cosigner, WITNESS_KEY]
    forged = checkpoint.cosign(replace(state, size=3), "witness.example", WITNESS, AT)
    with pytest.raises(SignatureInvalidError):
        verify(logged(witnesses=(forged,)), policy)
    alias = replace(WITNESS_KEY, name="alias.example")
    two = LogPolicy(LOG_KEY, (Witnesses(frozenset({WITNESS_KEY, alias}), 2),))
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


@pytest.mark.parametrize(
    ("change", "why"),
    [
        *(({"logIndex": text}, "not a number in digits") for text in ("²", "٣", "1" * 17)),
        ({"logIndex": "00"}, "not canonical"),
        ({"canonicalizedBody": "é"}, "holds base64 does not"),
        ({"canonicalizedBody": "A0=="}, "not canonical"),
    ],
)
def test_what_is_wrong_with_a_field_is_told(change, why):
    with pytest.raises(InvalidStatementError, match=why):
        TlogEntry.from_json(logged().to_json() | change)


def test_more_witnesses_than_are_demanded_are_no_fewer():
    line = checkpoint.cosign(logged().checkpoint.checkpoint, WITNESS_KEY.name, WITNESS, AT)
    policy = LogPolicy(LOG_KEY, (Witnesses(frozenset({WITNESS_KEY}), 0),))
    assert len(verify(logged(witnesses=(line,)), policy).seen) == 2


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


def read(path: str, value) -> TlogEntry:
    """The entry with the field at a dotted path replaced, or left out where `value` is `...`."""
    return TlogEntry.from_json(
        json.loads(changed(canonical_json.dump(logged().to_json()), path, value))
    )


def refused_entry(path: str, value, reason: str = "malformed-log-entry") -> None:
    with pytest.raises(InvalidStatementError) as caught:
        read(path, value)
    assert caught.value.reason == reason
    assert caught.value.hint


@pytest.mark.parametrize("text", ["", "01", "-1", "+1", " 1", "1_0", "١", "1" * 17, 1, None, True])
@pytest.mark.parametrize(
    "field", ["logIndex", "inclusionProof.logIndex", "inclusionProof.treeSize"]
)
def test_a_number_is_written_in_digits(field, text):
    refused_entry(field, text)


def test_a_number_that_is_left_out_is_zero_and_long_ones_are_read():
    found = json.loads(canonical_json.dump(replace(logged(), index=0).to_json()))
    del found["logIndex"], found["inclusionProof"]["logIndex"]
    assert TlogEntry.from_json(found).index == 0
    long = replace(logged(), index=10**16 - 1)
    assert TlogEntry.from_json(long.to_json()) == long


@pytest.mark.parametrize("field", ["logIndex", "treeSize", "rootHash"])
def test_what_stands_twice_is_the_same(field):
    other = {"logIndex": "0", "treeSize": "3", "rootHash": base64.b64encode(bytes(32)).decode()}
    refused_entry(f"inclusionProof.{field}", other[field])


@pytest.mark.parametrize("text", ["", "A", "AA=", "AB==", "_w==", "AA==\n", None, 7])
@pytest.mark.parametrize("field", ["canonicalizedBody", "logId.keyId", "inclusionProof.rootHash"])
def test_bytes_are_written_in_one_form(field, text):
    refused_entry(field, text)


def test_a_proof_has_up_to_63_hashes_of_32_bytes():
    def hashes(*lengths: int) -> list[str]:
        return [base64.b64encode(b"h" * length).decode() for length in lengths]

    assert len(read("inclusionProof.hashes", hashes(*[32] * 63)).proof) == 63
    assert read("inclusionProof.hashes", ...).proof == ()
    for wrong in (hashes(*[32] * 64), hashes(31), hashes(33), hashes(32, 31), hashes(31, 32), {}):
        refused_entry("inclusionProof.hashes", wrong)


@pytest.mark.parametrize(
    "value", [{"kind": "dsse", "version": "0.0.2"}, {"kind": "hashedrekord"}, {}]
)
def test_another_kind_of_entry_is_refused(value):
    refused_entry("kindVersion", value, "unsupported-log-entry")


@pytest.mark.parametrize("time", ["0", 0])
def test_an_entry_needs_no_time(time):
    assert read("integratedTime", time) == logged()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("integratedTime", "1"),
        ("integratedTime", 1),
        ("integratedTime", None),
        ("inclusionPromise", {"a": ""}),
    ],
)
def test_an_entry_with_a_promise_or_a_time_instead_of_a_proof_is_refused(field, value):
    refused_entry(field, value, "unsupported-log-entry")


@pytest.mark.parametrize("value", [None, 7, []])
def test_an_entry_has_a_checkpoint(value):
    refused_entry("inclusionProof.checkpoint.envelope", value)
    refused_entry("inclusionProof.checkpoint", {})


def test_only_what_signs_a_hash_is_logged():
    with pytest.raises(InvalidStatementError) as caught:
        entry.leaf(SIGNED, SIGNATURE, EDDIE.public_key)
    assert caught.value.reason == "unsupported-algorithm"


def test_one_witness_under_two_names_counts_once():
    again = NoteKey("other.example", WITNESS_KEY.key, cosigns=True)
    found = logged()
    state = found.checkpoint.checkpoint
    lines = [checkpoint.cosign(state, key.name, WITNESS, AT) for key in (WITNESS_KEY, again)]
    seen = replace(found, checkpoint=found.checkpoint.with_lines(lines))
    both = frozenset({WITNESS_KEY, again})
    assert len(verify(seen, LogPolicy(LOG_KEY, (Witnesses(both, 1),))).seen) == 3
    with pytest.raises(SignatureInvalidError) as caught:
        verify(seen, LogPolicy(LOG_KEY, (Witnesses(both, 2),)))
    assert caught.value.reason == "log-unwitnessed"


def test_the_earliest_of_several_times_is_when_it_was_logged():
    found = logged()
    state = found.checkpoint.checkpoint
    for minutes in (-1, 1):
        line = checkpoint.cosign(state, WITNESS_KEY.name, WITNESS, AT + timedelta(minutes=minutes))
        seen = replace(found, checkpoint=found.checkpoint.with_lines([line]))
        logged_at = verify(
            seen, LogPolicy(LOG_KEY, (Witnesses(frozenset({WITNESS_KEY}), 1),))
        ).logged_at
        assert logged_at == AT + timedelta(minutes=min(minutes, 0))
