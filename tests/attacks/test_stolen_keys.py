"""A stolen key: the log says what was signed before the theft, and a thief cannot date back."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from memcube.trust import Attestation, Mode, Pins, Question, judge_cube
from memcube.trust.log_state import Logs, advanced
from memcube.trust.policy import LogDemand, Policy, Terms
from memcube_protocol.reference import Reference
from memcube_signing import referrer
from memcube_signing.authority.document import KeyDocument, Revocation
from memcube_signing.release import PREDICATE_TYPE, sign_release
from support import authority
from support.log import Log
from support.signing import ALICE, CREATED, NOW, ORIGIN, manifest, release

STOLEN = NOW - timedelta(hours=6)
REPLACED = STOLEN + timedelta(hours=3)
MINUTE = timedelta(minutes=1)
NEXT = authority.key(2)
FIRST = authority.first(quorum=authority.quorum(ALICE))
REVOKING = authority.after(
    FIRST,
    created_at=REPLACED,
    quorum=authority.quorum(NEXT),
    revoked=(Revocation(ALICE.public_key.id, STOLEN),),
)
ROTATING = replace(REVOKING, revoked=())


def chain(log: Log, then: KeyDocument = REVOKING, at: datetime | None = REPLACED):
    """Alice's key in charge, and `then` another, logged at `at`."""
    following = (
        authority.logged(log, then, at, ALICE, NEXT) if at else authority.signed(then, ALICE, NEXT)
    )
    return authority.resolved(authority.logged(log, FIRST, FIRST.created_at, ALICE), following)


def judged(
    logged_at,
    then: KeyDocument = REVOKING,
    at: datetime | None = REPLACED,
    *,
    known: bool = True,
    by=ALICE,
    now=NOW,
    **more,
):
    """The verdict on a release that states to be old, by Alice's key, logged at `logged_at`."""
    log = Log(leaves=[b"others"])
    bundle = sign_release(release(by, created_at=CREATED), by)
    if logged_at is not None:
        bundle = log.logged(bundle, by.public_key, at=logged_at)
    about = referrer.write(bundle, PREDICATE_TYPE, manifest().descriptor(), by.public_key)
    documents = chain(log, then, at)
    logs = Logs({"registry.example": advanced(None, log.key, log.note(), (), NOW)})
    return judge_cube(
        Question(
            Reference.parse(f"{ORIGIN}:latest"),
            manifest(),
            [Attestation(about, bundle.raw)],
            Pins(),
            now,
            logs=logs if known else Logs(),
            authority=documents,
            authority_is_known=True,
            **more,
        )
    )


def failed(verdict) -> tuple[str, str]:
    """The rule that refused, and why."""
    assert verdict.standing == "refused"
    return next((one.rule, one.reason) for one in verdict.rules if one.outcome == "failed")


def test_what_was_logged_before_the_theft_stays_valid():
    assert judged(STOLEN - timedelta(hours=1)).error is None


@pytest.mark.parametrize("logged_at", [STOLEN, STOLEN + timedelta(hours=1), None])
def test_what_the_thief_dates_back_is_refused(logged_at):
    assert failed(judged(logged_at)) == ("keys", "key-revoked")


def test_a_log_that_nobody_knows_proves_no_time():
    assert judged(STOLEN - timedelta(hours=1), known=False).standing == "refused"


class TestBehindThePublishersBack:
    """A thief changes the keys where the publisher's monitor cannot see it."""

    @pytest.mark.parametrize("demand", [LogDemand.OFFERED, LogDemand.REQUIRED])
    def test_keys_that_were_changed_outside_the_log_are_refused(self, demand):
        policy = Policy(default=Terms(log=demand))
        verdict = judged(NOW - MINUTE, ROTATING, None, by=NEXT, policy=policy)
        assert failed(verdict) == ("keys", "keys-not-logged")
        assert "memcube keys publish" in verdict.error.hint

    def test_in_the_log_they_are_accepted(self):
        assert judged(NOW - MINUTE, ROTATING, by=NEXT).error is None

    def test_a_policy_that_only_warns_says_so(self):
        verdict = judged(NOW - MINUTE, ROTATING, None, by=NEXT, mode=Mode.WARN)
        assert verdict.error is None
        assert "keys-not-logged" in {rule.reason for rule in verdict.rules}

    def test_who_does_not_ask_for_the_log_is_not_told(self):
        policy = Policy(default=Terms(log=LogDemand.OFF))
        assert judged(None, ROTATING, None, by=NEXT, policy=policy).error is None

    def test_a_revocation_counts_even_where_the_log_does_not_show_it(self):
        assert failed(judged(None, REVOKING, None)) == ("keys", "key-revoked")


class TestClocks:
    """What the publisher's clock said while the keys were changed decides nothing: the log's time does."""

    back = replace(ROTATING, created_at=FIRST.created_at)
    ahead = replace(ROTATING, created_at=NOW + timedelta(days=3650))

    def test_a_clock_set_back_does_not_retire_what_was_released_before(self):
        assert judged(REPLACED - timedelta(hours=1), self.back).error is None

    @pytest.mark.parametrize("document", [back, ahead])
    def test_the_old_key_signs_nothing_after_the_log_showed_the_new_one(self, document):
        verdict = judged(REPLACED + timedelta(hours=1), document)
        assert failed(verdict) == ("keys", "key-retired")

    @pytest.mark.parametrize("created_at", [FIRST.created_at, NOW + timedelta(days=3650)])
    def test_a_revocation_holds_whatever_time_it_states(self, created_at):
        document = replace(REVOKING, created_at=created_at)
        assert failed(judged(STOLEN + MINUTE, document)) == ("keys", "key-revoked")
        assert judged(STOLEN - MINUTE, document).error is None

    @pytest.mark.parametrize("now", [STOLEN - timedelta(days=30), NOW + timedelta(days=30)])
    def test_the_readers_clock_does_not_bring_a_revoked_key_back(self, now):
        assert failed(judged(None, now=now)) == ("keys", "key-revoked")
        assert failed(judged(STOLEN + MINUTE, now=now)) == ("keys", "key-revoked")
