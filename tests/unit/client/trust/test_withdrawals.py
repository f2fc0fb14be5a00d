"""What was said of a release is remembered, whoever says much about it afterwards."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from memcube.trust.withdrawals import StatusStore
from memcube_signing.keys import PrivateKey
from memcube_signing.predicates import attest
from memcube_signing.predicates.status import Reason, State, Status
from support.authority import key as fixed_key
from support.signing import ALICE, CREATED, ORIGIN, manifest

THIEF = fixed_key(11)
SUBJECT = manifest().digest


def said(state: State, minutes: int, key: PrivateKey = ALICE) -> bytes:
    at = CREATED + timedelta(minutes=minutes)
    return attest(Status(SUBJECT, ORIGIN, "1.0.0", state, Reason.HARMFUL, at), key).raw


def test_a_withdrawal_is_not_pushed_out_by_what_another_key_says(tmp_path: Path) -> None:
    store, yank = StatusStore(tmp_path), said(State.YANKED, 0)
    store.keep(SUBJECT, [yank])
    for state in (State.YANKED, State.ACTIVE):
        store.keep(SUBJECT, [yank, *(said(state, 1 + n, THIEF) for n in range(40))])
    assert yank in store.of(SUBJECT)


def test_nor_by_what_its_own_key_says(tmp_path: Path) -> None:
    """Words that no log shows take nothing back, however many they are."""
    store, yank = StatusStore(tmp_path), said(State.YANKED, 0)
    store.keep(SUBJECT, [yank])
    store.keep(SUBJECT, [said(State.ACTIVE, 1 + n) for n in range(40)])
    kept = store.of(SUBJECT)
    assert kept == (yank, said(State.ACTIVE, 39), said(State.ACTIVE, 40))


def test_the_same_again_changes_nothing(tmp_path: Path) -> None:
    store, yank = StatusStore(tmp_path), said(State.YANKED, 0)
    store.keep(SUBJECT, [yank])
    (file,) = tmp_path.glob("statuses/*.json")
    before = file.stat().st_mtime_ns
    store.keep(SUBJECT, [yank])
    assert file.stat().st_mtime_ns == before
