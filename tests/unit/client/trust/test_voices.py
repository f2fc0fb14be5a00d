"""What is said of a release afterwards: who may say it, and what it takes to say it is not so bad."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from memcube.trust import Attestation, Pins, Question, judge_cube
from memcube.trust.attested import statements_of
from memcube.trust.log_state import Logs, advanced
from memcube.trust.policy import LogDemand, Policy, Terms
from memcube_protocol.errors import YankedError
from memcube_protocol.reference import Reference
from memcube_signing import referrer
from memcube_signing.authority.document import Revocation
from memcube_signing.predicates import attest
from memcube_signing.predicates.status import PREDICATE_TYPE, Reason, State, Status
from memcube_signing.release import CLOCK_TOLERANCE, sign_release
from memcube_signing.release import PREDICATE_TYPE as RELEASE
from support import authority
from support.authority import THIEF
from support.authority import key as fixed_key
from support.log import Log
from support.signing import ALICE, CREATED, NOW, ORIGIN, manifest, release

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
BEN, CLEO = fixed_key(11), fixed_key(12)
STOLEN = CREATED + 3 * HOUR
ONE = authority.first(quorum=authority.quorum(ALICE), created_at=CREATED - HOUR)
ANY = authority.first(quorum=authority.quorum(ALICE, BEN), created_at=CREATED - HOUR)
TWO = authority.first(quorum=authority.quorum(ALICE, BEN, CLEO, of=2), created_at=CREATED - HOUR)


class Story:
    """One release by Alice's key, and what is said of it, all in the log unless told otherwise."""

    def __init__(self, first=ONE, by=(ALICE,)) -> None:
        self.log = Log(leaves=[b"others"])
        self.documents = authority.logged(self.log, first, first.created_at, *first_keys(first))
        self.first = first
        publishers = tuple(sorted(one.public_key.id for one in by))
        released = release(ALICE, publishers=publishers)
        self.attestations = [
            self.attached(sign_release(released, one), one, CREATED, RELEASE) for one in by
        ]

    def attached(self, bundle, key, at, predicate_type=PREDICATE_TYPE):
        if at is not None:
            bundle = self.log.logged(bundle, key.public_key, at=at)
        about = referrer.write(bundle, predicate_type, manifest().descriptor(), key.public_key)
        return Attestation(about, bundle.raw)

    def say(self, state, at, *, key=ALICE, logged=True, reason=Reason.WRONG) -> Story:
        said = Status(manifest().digest, ORIGIN, "1.0.0", state, reason, at)
        self.attestations.append(self.attached(attest(said, key), key, at if logged else None))
        return self

    def replace_by(self, *keys, at=STOLEN, **changes) -> None:
        following = authority.after(
            self.first, created_at=at, quorum=authority.quorum(*keys), **changes
        )
        signers = {one.public_key.id: one for one in (*first_keys(self.first), *keys)}
        self.documents += authority.logged(self.log, following, at, *signers.values())

    def verdict(self, *, known=True, log=None, documents=True, tag="latest", policy=None):
        logs = Logs({"registry.example": advanced(None, self.log.key, self.log.note(), (), NOW)})
        question = Question(
            Reference.parse(f"{ORIGIN}:{tag}"),
            manifest(),
            self.attestations,
            Pins(),
            NOW,
            logs=logs if known else Logs(),
            policy=policy or (Policy(default=Terms(log=log)) if log else Policy()),
            authority=authority.resolved(self.documents) if documents else None,
            authority_is_known=documents,
        )
        return judge_cube(question)

    def state(self, **more) -> str:
        verdict = self.verdict(**more)
        if isinstance(verdict.error, YankedError):
            return "yanked"
        assert verdict.error is None, verdict.error
        rule = next(one for one in verdict.rules if one.rule == "status")
        return {None: "active", "release-deprecated": "deprecated"}[rule.reason]


def first_keys(document):
    known = {one.public_key.id: one for one in (ALICE, BEN, CLEO)}
    return [known[key.id] for key in document.quorum.keys]


class TestLog:
    """Who is lenient has to be so in public."""

    def test_in_the_log_a_yank_is_taken_back(self):
        story = Story().say(State.YANKED, CREATED + HOUR).say(State.ACTIVE, CREATED + 2 * HOUR)
        assert story.state() == "active"

    @pytest.mark.parametrize("demand", [LogDemand.OFFERED, LogDemand.REQUIRED])
    @pytest.mark.parametrize("milder", [State.ACTIVE, State.DEPRECATED])
    @pytest.mark.parametrize("documents", [True, False])
    def test_outside_the_log_nothing_is_taken_back(self, demand, milder, documents):
        story = Story().say(State.YANKED, CREATED + HOUR)
        story.say(milder, CREATED + 2 * HOUR, logged=False)
        assert story.state(log=demand, documents=documents) == "yanked"
        assert story.state(log=LogDemand.OFF, documents=documents) == str(milder)

    def test_a_yank_is_obeyed_that_no_log_shows_and_this_is_said(self):
        story = Story().say(State.YANKED, CREATED + HOUR, logged=False)
        assert story.state() == "yanked"

    def test_what_is_withdrawn_again_outside_the_log_is_withdrawn(self):
        story = Story(ANY).say(State.ACTIVE, CREATED + HOUR)
        assert story.say(State.YANKED, CREATED + 2 * HOUR, logged=False).state() == "yanked"
        story = Story(ANY).say(State.YANKED, CREATED + HOUR)
        story.say(State.ACTIVE, CREATED + 2 * HOUR, key=BEN)
        assert story.state() == "active"
        assert story.say(State.YANKED, CREATED + 3 * HOUR, logged=False).state() == "yanked"

    def test_what_is_said_outside_the_log_is_obeyed_only_where_it_is_stricter(self):
        story = Story(ANY).say(State.YANKED, CREATED + HOUR, key=BEN)
        story.say(State.ACTIVE, CREATED + 2 * HOUR)
        story.say(State.ACTIVE, CREATED + 3 * HOUR, logged=False)
        assert story.state() == "active"
        story.say(State.DEPRECATED, CREATED + 4 * HOUR, logged=False)
        assert story.state() == "yanked"

    def test_another_key_takes_nothing_back_outside_the_log_either(self):
        story = Story(ANY).say(State.YANKED, CREATED + HOUR)
        story.say(State.ACTIVE, CREATED + 2 * HOUR, key=BEN, logged=False)
        assert story.state() == "yanked"

    def test_where_no_log_is_known_none_is_asked_for(self):
        story = Story().say(State.YANKED, CREATED + HOUR)
        assert story.say(State.ACTIVE, CREATED + 2 * HOUR, logged=False).state(known=False) == (
            "active"
        )


class TestStolenKeys:
    """A thief takes no yank back, and yanks nothing, once the key is revoked."""

    def revoke(self, story: Story) -> None:
        story.replace_by(BEN, revoked=(Revocation(ALICE.public_key.id, STOLEN),))

    @pytest.mark.parametrize("logged", [True, False])
    @pytest.mark.parametrize("stated_at", [CREATED + 2 * HOUR, STOLEN + HOUR])
    def test_a_revoked_key_takes_nothing_back(self, stated_at, logged):
        story = Story().say(State.YANKED, CREATED + HOUR)
        self.revoke(story)
        said = Status(manifest().digest, ORIGIN, "1.0.0", State.ACTIVE, Reason.WRONG, stated_at)
        when = STOLEN + HOUR if logged else None
        story.attestations.append(story.attached(attest(said, ALICE), ALICE, when))
        assert story.state() == "yanked"

    def test_a_revoked_key_withdraws_nothing(self):
        story = Story().say(State.YANKED, STOLEN + HOUR)
        assert story.state() == "yanked"
        self.revoke(story)
        assert story.state() == "active"

    def test_what_it_withdrew_before_the_theft_stays_withdrawn(self):
        story = Story().say(State.YANKED, CREATED + HOUR)
        self.revoke(story)
        assert story.state() == "yanked"


class TestSuccessors:
    """Who is in charge now speaks for what others released before."""

    def test_the_new_key_withdraws_what_the_old_one_released(self):
        story = Story()
        story.replace_by(BEN)
        assert story.say(State.YANKED, STOLEN + HOUR, key=BEN).state() == "yanked"

    def test_and_takes_back_what_the_old_one_withdrew(self):
        story = Story().say(State.YANKED, CREATED + HOUR)
        story.replace_by(BEN)
        assert story.say(State.ACTIVE, STOLEN + HOUR, key=BEN).state() == "active"

    def test_and_its_statement_is_shown_as_one_that_counts(self):
        story = Story()
        story.replace_by(BEN)
        story.say(State.YANKED, STOLEN + HOUR, key=BEN).say(State.YANKED, STOLEN, key=THIEF)
        claims = statements_of(manifest(), story.attestations, story.verdict(tag="1.0.0"))
        assert [(claim.name, claim.why) for claim in claims] == [
            ("release", None),
            ("status", None),
            ("status", "unknown-key"),
        ]

    def test_a_retired_key_says_nothing_new(self):
        story = Story().say(State.YANKED, CREATED + HOUR)
        story.replace_by(BEN)
        assert story.say(State.ACTIVE, STOLEN + HOUR).state() == "yanked"

    def test_a_stranger_says_nothing(self):
        story = Story().say(State.YANKED, CREATED + HOUR, key=THIEF)
        assert story.state() == "active"
        story.say(State.YANKED, CREATED + HOUR).say(State.ACTIVE, CREATED + 2 * HOUR, key=THIEF)
        assert story.state() == "yanked"


class TestQuorums:
    """One key of several is enough to warn, and not enough to call it off."""

    def test_of_two_equal_keys_the_later_one_counts(self):
        story = Story(ANY).say(State.YANKED, CREATED + HOUR)
        assert story.say(State.ACTIVE, CREATED + 2 * HOUR, key=BEN).state() == "active"

    @pytest.mark.parametrize("hours", [1, 2])
    def test_an_earlier_word_of_another_takes_nothing_back_nor_does_one_at_the_same_time(
        self, hours
    ):
        story = Story(ANY).say(State.ACTIVE, CREATED + hours * HOUR, key=BEN)
        assert story.say(State.YANKED, CREATED + 2 * HOUR).state() == "yanked"

    @pytest.mark.parametrize(
        ("wanted", "by", "state"),
        [(1, (BEN,), "active"), (2, (BEN,), "yanked"), (2, (BEN, CLEO), "active")],
    )
    def test_without_documents_as_many_take_it_back_as_the_policy_wants_to_release(
        self, wanted, by, state
    ):
        keys = tuple(one.public_key for one in (ALICE, BEN, CLEO))
        policy = Policy(default=Terms(publishers=keys, threshold=wanted))
        story = Story(ANY, by=(ALICE, BEN)).say(State.YANKED, CREATED + HOUR)
        for key in by:
            story.say(State.ACTIVE, CREATED + 2 * HOUR, key=key)
        assert story.state(documents=False, policy=policy) == state
        if len(by) == 1:
            story.say(State.ACTIVE, CREATED + 2 * HOUR, key=CLEO)
            assert story.state(documents=False, policy=policy) == "active"

    def test_who_is_a_quorum_is_told_by_the_time_of_the_last_word(self):
        story = Story(TWO, by=(ALICE, BEN)).say(State.YANKED, CREATED + HOUR)
        quorum = authority.quorum(ALICE, BEN, CLEO, of=3)
        following = authority.after(TWO, created_at=STOLEN, quorum=quorum)
        story.documents += authority.logged(story.log, following, STOLEN, ALICE, BEN, CLEO)
        story.say(State.ACTIVE, CREATED + 2 * HOUR, key=BEN)
        story.say(State.ACTIVE, STOLEN + HOUR, key=CLEO)
        assert [story.state(known=known) for known in (True, False)] == ["yanked", "yanked"]

    def test_one_of_three_withdraws(self):
        story = Story(TWO, by=(ALICE, BEN))
        assert story.say(State.YANKED, CREATED + HOUR, key=CLEO).state() == "yanked"

    def test_one_of_three_takes_nothing_back_that_another_withdrew_and_two_do(self):
        story = Story(TWO, by=(ALICE, BEN)).say(State.YANKED, CREATED + HOUR)
        story.say(State.ACTIVE, CREATED + 2 * HOUR, key=BEN)
        assert story.state() == "yanked"
        assert story.say(State.ACTIVE, CREATED + 3 * HOUR, key=CLEO).state() == "active"

    def test_nobody_counts_twice(self):
        story = Story(TWO, by=(ALICE, BEN)).say(State.YANKED, CREATED + HOUR)
        for hours in (2, 3):
            story.say(State.ACTIVE, CREATED + hours * HOUR, key=BEN)
        assert story.state() == "yanked"


@pytest.mark.parametrize(
    ("state", "at", "expected"),
    [
        (State.DEPRECATED, NOW + CLOCK_TOLERANCE, "deprecated"),
        (State.DEPRECATED, NOW + CLOCK_TOLERANCE + timedelta(seconds=1), "active"),
        (State.YANKED, NOW + timedelta(days=9), "yanked"),
    ],
)
def test_a_word_from_the_future_counts_when_it_withdraws(state, at, expected):
    story = Story()
    said = Status(manifest().digest, ORIGIN, "1.0.0", state, Reason.WRONG, at)
    story.attestations.append(story.attached(attest(said, ALICE), ALICE, NOW - MINUTE))
    assert story.state() == expected


def test_a_lenient_word_from_the_future_counts_for_nothing():
    story = Story().say(State.YANKED, CREATED + HOUR)
    said = Status(
        manifest().digest, ORIGIN, "1.0.0", State.ACTIVE, Reason.WRONG, NOW + timedelta(days=9)
    )
    story.attestations.append(story.attached(attest(said, ALICE), ALICE, NOW - MINUTE))
    assert story.state() == "yanked"
    other = replace(said, state=State.DEPRECATED)
    story.attestations.append(story.attached(attest(other, ALICE), ALICE, NOW - MINUTE))
    assert story.state() == "yanked"
