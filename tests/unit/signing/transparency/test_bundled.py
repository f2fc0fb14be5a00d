"""Bundles with log entries: what is signed stays, and only the trusted log's word counts."""

import json
from dataclasses import replace

import pytest
from memcube_protocol.errors import MemcubeError, SignatureInvalidError
from memcube_signing import bundle as bundles
from memcube_signing.release import verify_release
from memcube_signing.transparency import bundled
from memcube_signing.transparency.checkpoint import NoteKey
from memcube_signing.transparency.entry import LogPolicy, Witnesses
from support.logged import AT, BUNDLE, KEY, LOG_KEY, OTHER_LOG, WITNESS_KEY, logged
from support.signing import changed, manifest, release

POLICY = LogPolicy(LOG_KEY)


def test_a_logged_bundle_is_still_the_publishers_and_in_the_log():
    bundle = bundled.attach(BUNDLE, [logged(key=OTHER_LOG), logged()])
    assert verify_release(bundle.raw, keys=[KEY], subject=manifest().digest) == release()
    assert bundled.verify_logged(bundle, KEY, POLICY).logged_at == AT
    assert bundled.attach(bundle, []).log_entries == ()


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ([], "log-entry-missing"),
        ([logged(key=OTHER_LOG)], "log-unknown"),
        ([logged(key=OTHER_LOG), replace(logged(), proof=())], "log-proof-invalid"),
    ],
)
def test_a_bundle_without_a_good_entry_is_refused(entries, reason):
    with pytest.raises(MemcubeError) as caught:
        bundled.verify_logged(bundled.attach(BUNDLE, entries), KEY, POLICY)
    assert caught.value.reason == reason


def test_a_name_alone_makes_no_log():
    policy = LogPolicy(NoteKey("log.example", OTHER_LOG.public_key))
    with pytest.raises(MemcubeError):
        bundled.verify_logged(bundled.attach(BUNDLE, [logged()]), KEY, policy)


def test_the_first_good_entry_of_several_counts():
    assert bundled.ENTRIES == 32
    others = [logged(key=OTHER_LOG)] * (bundled.ENTRIES - 1)
    assert bundled.verify_logged(bundled.attach(BUNDLE, [*others, logged()]), KEY, POLICY)
    too_many = bundled.attach(BUNDLE, [*others, logged(key=OTHER_LOG), logged()])
    with pytest.raises(SignatureInvalidError) as caught:
        bundled.verify_logged(too_many, KEY, POLICY)
    assert caught.value.reason == "log-unknown"


def test_what_is_wrong_with_the_entry_of_the_trusted_log_is_told():
    whole = bundled.attach(BUNDLE, [logged(key=OTHER_LOG), replace(logged(), body=b"{}")])
    malformed = changed(whole.raw, "verificationMaterial.tlogEntries.1.logIndex", "01")
    other, ours = logged(key=OTHER_LOG).to_json(), json.loads(malformed)["verificationMaterial"]
    for entries, reason in (
        ([other, ours["tlogEntries"][1]], "malformed-log-entry"),
        ([ours["tlogEntries"][1], other], "malformed-log-entry"),
        ([other, replace(logged(), body=b"{}").to_json()], "log-entry-mismatch"),
        ([other, other], "log-unknown"),
    ):
        raw = changed(BUNDLE.raw, "verificationMaterial.tlogEntries", entries)
        with pytest.raises(MemcubeError) as caught:
            bundled.verify_logged(bundles.parse(raw), KEY, POLICY)
        assert caught.value.reason == reason


def test_of_entries_in_other_logs_the_first_is_told_and_too_few_witnesses_go_before():
    other, named = logged(key=OTHER_LOG), logged(name="other.example")
    named = replace(named, log_id=LOG_KEY.id)
    for entries, told in (([other, named], "in another log"), ([named, other], "it is one of")):
        with pytest.raises(SignatureInvalidError, match=told):
            bundled.verify_logged(bundled.attach(BUNDLE, entries), KEY, POLICY)
    witnessed = LogPolicy(LOG_KEY, (Witnesses(frozenset({WITNESS_KEY}), 1),))
    with pytest.raises(SignatureInvalidError) as caught:
        bundled.verify_logged(bundled.attach(BUNDLE, [other, logged()]), KEY, witnessed)
    assert caught.value.reason == "log-unwitnessed"
