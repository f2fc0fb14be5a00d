"""A stolen key: the log says what was signed before the theft, and a thief cannot date back."""

from __future__ import annotations

from datetime import timedelta

import pytest
from memcube.trust import Attestation, Pins, Question, judge_cube
from memcube.trust.log_state import Logs, advanced
from memcube_protocol.reference import Reference
from memcube_signing import referrer
from memcube_signing.authority.document import Revocation
from memcube_signing.release import PREDICATE_TYPE, sign_release
from support import authority
from support.log import Log
from support.signing import ALICE, CREATED, NOW, ORIGIN, manifest, release

STOLEN = NOW - timedelta(hours=6)


def chain():
    """Alice's key in charge, then revoked since `STOLEN`, another one in its place."""
    new = authority.key(2)
    before = authority.first(quorum=authority.quorum(ALICE))
    after = authority.after(
        before,
        created_at=STOLEN + timedelta(hours=3),
        quorum=authority.quorum(new),
        revoked=(Revocation(ALICE.public_key.id, STOLEN),),
    )
    return authority.resolved(authority.signed(before, ALICE), authority.signed(after, ALICE, new))


def judged(logged_at, *, known: bool = True):
    """The verdict on a release by Alice's key that states to be old, logged at `logged_at`."""
    log = Log(leaves=[b"others"])
    bundle = sign_release(release(created_at=CREATED), ALICE)
    if logged_at is not None:
        bundle = log.logged(bundle, ALICE.public_key, at=logged_at)
    about = referrer.write(bundle, PREDICATE_TYPE, manifest().descriptor(), ALICE.public_key)
    logs = Logs({"registry.example": advanced(None, log.key, log.note(), (), NOW)})
    return judge_cube(
        Question(
            Reference.parse(f"{ORIGIN}:latest"),
            manifest(),
            [Attestation(about, bundle.raw)],
            Pins(),
            NOW,
            logs=logs if known else Logs(),
            authority=chain(),
            authority_is_known=True,
        )
    )


def test_what_was_logged_before_the_theft_stays_valid():
    assert judged(STOLEN - timedelta(hours=1)).error is None


@pytest.mark.parametrize("logged_at", [STOLEN, STOLEN + timedelta(hours=1), None])
def test_what_the_thief_dates_back_is_refused(logged_at):
    verdict = judged(logged_at)
    assert verdict.standing == "refused"
    assert next(rule.rule for rule in verdict.rules if rule.outcome == "failed") == "keys"


def test_a_log_that_nobody_knows_proves_no_time():
    assert judged(STOLEN - timedelta(hours=1), known=False).standing == "refused"
