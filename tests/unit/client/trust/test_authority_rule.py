"""The decision where a namespace has key documents: who may sign, who stays pinned, who is a stranger."""

from __future__ import annotations

from dataclasses import replace

import pytest
from memcube.trust import Acceptance, Attestation, Mode, Pin, Pins, Question, Standing, judge_cube
from memcube.trust.pins import Seen
from memcube.trust.policy import LogDemand, Policy, Terms
from memcube_protocol.reference import Reference
from memcube_signing import referrer
from memcube_signing.authority.chain import Authority
from memcube_signing.release import PREDICATE_TYPE, sign_release
from support import authority
from support.authority import NEW, OLD, SPARE, TEAM, THIEF, after, first, quorum, resolved, signed
from support.log import Log
from support.signing import CREATED, NOW, ORIGIN, OTHER, manifest, release

FIRST = first()
ALONE = resolved(signed(FIRST, OLD))
ROTATED = resolved(signed(FIRST, OLD), signed(after(FIRST, quorum=quorum(NEW)), OLD, NEW))
BOTH = resolved(signed(first(quorum=quorum(OLD, NEW, of=2)), OLD, NEW))


def attest(*keys, by) -> Attestation:
    ids = tuple(sorted(key.public_key.id for key in keys))
    bundle = sign_release(release(publishers=ids, created_at=CREATED), by)
    about = referrer.write(bundle, PREDICATE_TYPE, manifest().descriptor(), by.public_key)
    return Attestation(about, bundle.raw)


def pinned(*keys) -> Pins:
    return Pins({ORIGIN: Pin(tuple(key.public_key for key in keys))})


def ask(documents: Authority | None, *attestations: Attestation, pins: Pins | None = None, **more):
    return judge_cube(
        Question(
            Reference.parse(f"{ORIGIN}:latest"),
            manifest(),
            attestations,
            pins or Pins(),
            NOW,
            authority=documents,
            **more,
        )
    )


def result(verdict, rule: str) -> tuple[str, str | None]:
    found = next(one for one in verdict.rules if one.rule == rule)
    return str(found.outcome), found.reason


def test_a_key_of_the_documents_is_accepted_at_first_use_and_pinned() -> None:
    verdict = ask(ALONE, attest(OLD, by=OLD))
    assert verdict.standing is Standing.FIRST_USE
    assert result(verdict, "keys") == ("passed", "key-authorised")
    assert verdict.observation.publishers == (OLD.public_key,)


def test_where_documents_lead_to_another_key_the_first_stays_pinned() -> None:
    verdict = ask(ROTATED, attest(NEW, by=NEW), pins=pinned(OLD))
    assert verdict.standing is Standing.TRUSTED
    assert verdict.publisher == NEW.public_key
    assert verdict.observation.publishers == (OLD.public_key,)
    both = ask(ROTATED, attest(NEW, by=NEW), pins=pinned(OLD, NEW))
    assert both.observation.publishers == (NEW.public_key,)


def test_without_documents_the_pinned_key_that_signed_is_remembered() -> None:
    assert ask(None, attest(NEW, by=NEW), pins=pinned(OLD, NEW)).observation.publishers == (
        NEW.public_key,
    )


def test_a_stranger_is_refused_and_the_documents_say_so() -> None:
    for pins in (None, pinned(OLD)):
        verdict = ask(ALONE, attest(THIEF, by=THIEF), pins=pins)
        assert verdict.standing is Standing.REFUSED
        assert verdict.error.reason == "key-not-authorised"


def test_documents_that_the_pinned_publisher_did_not_sign_are_refused() -> None:
    theirs = resolved(signed(first(quorum=quorum(THIEF)), THIEF))
    found = attest(THIEF, by=THIEF)
    for mode in Mode:
        verdict = ask(theirs, found, pins=pinned(OLD), mode=mode)
        assert result(verdict, "publisher") == ("failed", "keys-not-rooted")
    own = ask(theirs, attest(OLD, by=OLD), pins=pinned(OLD))
    assert result(own, "publisher") == ("failed", "keys-not-rooted")
    known = ask(theirs, found, pins=pinned(OLD), authority_is_known=True)
    assert known.standing is Standing.TRUSTED
    named = Acceptance(publisher=THIEF.public_key.id)
    assert ask(theirs, found, pins=pinned(OLD), accept=named).standing is not Standing.REFUSED
    wrong = Acceptance(publisher=TEAM.public_key.id)
    assert ask(theirs, found, pins=pinned(OLD), accept=wrong).standing is Standing.REFUSED


def test_an_accepted_key_does_not_excuse_documents_of_a_third_party() -> None:
    theirs = resolved(signed(first(quorum=quorum(THIEF)), THIEF))
    named = Acceptance(publisher=SPARE.public_key.id)
    verdict = ask(theirs, attest(SPARE, by=SPARE), pins=pinned(OLD), accept=named)
    assert verdict.error.reason == "keys-not-rooted"


def test_all_signers_of_the_very_same_release_count_together() -> None:
    one, other = (attest(OLD, NEW, by=key) for key in (OLD, NEW))
    assert ask(BOTH, one, other).standing is Standing.FIRST_USE
    assert ask(BOTH, one).error.reason == "threshold-not-met"
    assert ask(BOTH, one, attest(NEW, by=NEW)).error.reason == "threshold-not-met"


def test_of_two_releases_the_one_that_the_documents_allow_is_taken() -> None:
    later = release(NEW, seq=2, previous=OTHER, version="2.0.0", created_at=CREATED, licence="MIT")
    bundle = sign_release(later, NEW)
    about = referrer.write(bundle, PREDICATE_TYPE, manifest().descriptor(), NEW.public_key)
    by_one = Attestation(about, bundle.raw)
    together = [attest(OLD, NEW, by=key) for key in (OLD, NEW)]
    for order in ((by_one, *together), (*together, by_one)):
        verdict = ask(BOTH, *order)
        assert verdict.release.seq == 1
        assert verdict.standing is Standing.FIRST_USE


@pytest.mark.parametrize("known", [False, True])
def test_where_the_trust_comes_from_is_said(known) -> None:
    pins = pinned(OLD)
    verdict = ask(ROTATED, attest(NEW, by=NEW), pins=pins, authority_is_known=known)
    assert result(verdict, "publisher") == ("passed", None)
    detail = next(one.detail for one in verdict.rules if one.rule == "publisher")
    assert ("speak for" in detail) is known
    assert ("lets key" in detail) is not known


def test_a_history_goes_on_under_another_key_of_the_namespace() -> None:
    pins = Pins({ORIGIN: Pin((OLD.public_key,), {"1.0.0": Seen(1, OTHER)})})
    verdict = ask(ROTATED, attest(NEW, by=NEW), pins=pins)
    assert verdict.error.reason == "history-forked"
    alone = ask(
        None, attest(NEW, by=NEW), pins=pins, accept=Acceptance(publisher=NEW.public_key.id)
    )
    assert result(alone, "history") == ("skipped", "publisher-replaced")


def test_a_policys_keys_go_before_the_documents() -> None:
    policy = Policy(default=Terms(publishers=(THIEF.public_key,)))
    verdict = ask(ALONE, attest(OLD, by=OLD), policy=policy)
    assert verdict.error.reason == "publisher-not-in-policy"
    verdict = ask(ALONE, attest(THIEF, by=THIEF), policy=policy)
    assert verdict.error.reason == "key-not-authorised"


def test_the_time_of_the_release_decides_between_old_and_new_keys() -> None:
    said = replace(release(OLD), created_at=NOW)
    bundle = sign_release(said, OLD)
    about = referrer.write(bundle, PREDICATE_TYPE, manifest().descriptor(), OLD.public_key)
    assert ask(ROTATED, Attestation(about, bundle.raw)).error.reason == "key-retired"
    early = sign_release(replace(said, created_at=authority.START), OLD)
    about = referrer.write(early, PREDICATE_TYPE, manifest().descriptor(), OLD.public_key)
    assert ask(ROTATED, Attestation(about, early.raw)).standing is Standing.FIRST_USE


def test_the_keys_in_charge_of_a_name_are_told_with_the_verdict() -> None:
    assert ask(None, attest(OLD, by=OLD)).partners == ()
    assert ask(ROTATED, attest(NEW, by=NEW)).partners == (NEW.public_key,)
    assert set(ask(BOTH, *(attest(OLD, NEW, by=key) for key in (OLD, NEW))).partners) == {
        OLD.public_key,
        NEW.public_key,
    }


LOG_RULES = [
    (LogDemand.OFF, "passed", "key-authorised"),
    (LogDemand.OFFERED, "failed", "keys-not-logged"),
    (LogDemand.REQUIRED, "failed", "keys-not-logged"),
]


@pytest.mark.parametrize(("demand", "outcome", "reason"), LOG_RULES)
def test_documents_have_to_be_in_a_log_that_is_known(demand, outcome, reason) -> None:
    log = Log(leaves=[b"others"])
    policy = Policy(default=Terms(log=demand), logs={ORIGIN.partition("/")[0]: log.key})
    found = attest(OLD, by=OLD)
    assert result(ask(ALONE, found, policy=policy), "keys") == (outcome, reason)
    public = resolved(authority.logged(log, FIRST, FIRST.created_at, OLD))
    assert result(ask(public, found, policy=policy), "keys") == ("passed", "key-authorised")
    if outcome == "failed":
        warned = ask(ALONE, found, policy=policy, mode=Mode.WARN)
        assert result(warned, "keys") == ("warned", "keys-not-logged")
        error = ask(ALONE, found, policy=policy).error
        assert "memcube keys publish alice" in error.hint


def test_without_a_log_documents_need_not_be_in_one() -> None:
    policy = Policy(default=Terms(log=LogDemand.OFFERED))
    verdict = ask(ALONE, attest(OLD, by=OLD), policy=policy)
    assert result(verdict, "keys") == ("passed", "key-authorised")


def test_which_document_let_the_keys_sign_is_told() -> None:
    def told(documents: Authority | None, *found: Attestation) -> str:
        return next(one.detail for one in ask(documents, *found).rules if one.rule == "keys")

    early = sign_release(release(OLD, created_at=authority.START), OLD)
    about = referrer.write(early, PREDICATE_TYPE, manifest().descriptor(), OLD.public_key)
    at = authority.ALICE_AT
    assert told(None, attest(OLD, by=OLD)) == "no key documents are known of its namespace"
    assert told(ALONE, attest(OLD, by=OLD)) == f"key document 1 of {at}: 1 signed, 1 must"
    assert told(ROTATED, Attestation(about, early.raw)) == (
        f"key document 1 of {at}, which was in force then: 1 signed, 1 must"
    )
