"""Bundles with log entries: what is signed stays, and only the trusted log's word counts."""

from dataclasses import replace

import pytest
from memcube_protocol.errors import MemcubeError
from memcube_signing.release import verify_release
from memcube_signing.transparency import bundled
from memcube_signing.transparency.checkpoint import NoteKey
from memcube_signing.transparency.entry import LogPolicy
from support.logged import AT, BUNDLE, KEY, LOG_KEY, OTHER_LOG, logged
from support.signing import manifest, release

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
