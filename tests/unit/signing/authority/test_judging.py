"""The judgement on a release: current, retired and revoked keys, thresholds and roles."""

from __future__ import annotations

from datetime import timedelta

import pytest
from memcube_protocol.errors import KeyNotAuthorisedError
from memcube_signing.authority.document import Revocation
from memcube_signing.release import CLOCK_TOLERANCE
from support.authority import (
    ALICE_AT,
    DAY,
    EVE,
    NEW,
    OLD,
    SPARE,
    START,
    TEAM,
    THIEF,
    after,
    first,
    quorum,
    resolved,
    role,
    signed,
)

NOTES = f"{ALICE_AT}/notes"
FIRST = first()
ROTATED = resolved(signed(FIRST, OLD), signed(after(FIRST, quorum=quorum(NEW)), OLD, NEW))
REVOKING = after(
    FIRST, quorum=quorum(NEW), revoked=(Revocation(OLD.public_key.id, START + DAY / 2),)
)
REVOKED = resolved(signed(FIRST, OLD), signed(REVOKING, OLD, NEW))


def by(*keys, logged_at=None):
    return {key.public_key.id: logged_at for key in keys}


def reason(authority, signers, created_at, origin=NOTES) -> str:
    with pytest.raises(KeyNotAuthorisedError) as refused:
        authority.judge(origin, signers, created_at)
    assert refused.value.hint
    return refused.value.reason


class TestRotation:
    """A retired key keeps what it signed in its time."""

    def test_the_new_key_signs(self) -> None:
        judgement = ROTATED.judge(NOTES, by(NEW), START + 2 * DAY)
        assert (judgement.seq, judgement.retired) == (2, False)

    def test_what_the_old_key_signed_stays_valid(self) -> None:
        judgement = ROTATED.judge(NOTES, by(OLD), START + DAY / 2)
        assert (judgement.seq, judgement.retired) == (1, True)

    def test_the_old_key_signs_nothing_new(self) -> None:
        assert reason(ROTATED, by(OLD), START + 2 * DAY) == "key-retired"

    def test_the_logs_time_goes_before_that_of_the_release(self) -> None:
        late = by(OLD, logged_at=START + 2 * DAY)
        assert reason(ROTATED, late, START + DAY / 2) == "key-retired"


class TestTime:
    """Each key in its own time, give or take five minutes."""

    second = after(FIRST, quorum=quorum(NEW))
    third = after(second, quorum=quorum(SPARE))
    chain = resolved(signed(FIRST, OLD), signed(second, OLD, NEW), signed(third, NEW, SPARE))

    @pytest.mark.parametrize(
        ("key", "days", "seq"),
        [(OLD, 0.5, 1), (OLD, 1, 1), (NEW, 0.5, 2), (NEW, 1.5, 2), (NEW, 2, 2), (SPARE, 9, 3)],
    )
    def test_what_a_key_signed_before_it_was_replaced_stays(self, key, days, seq) -> None:
        judgement = self.chain.judge(NOTES, by(key), START + DAY * days)
        assert (judgement.seq, judgement.retired) == (seq, seq < 3)
        assert self.chain.may_speak(NOTES, by(key), START + DAY * days)

    @pytest.mark.parametrize(("key", "days"), [(OLD, 1.5), (OLD, 2), (OLD, 9), (NEW, 2.5)])
    def test_what_it_signed_afterwards_does_not(self, key, days) -> None:
        assert reason(self.chain, by(key), START + DAY * days) == "key-retired"
        assert not self.chain.may_speak(NOTES, by(key), START + DAY * days)

    @pytest.mark.parametrize(("key", "replaced"), [(OLD, START + DAY), (NEW, START + 2 * DAY)])
    def test_clocks_may_differ_by_five_minutes(self, key, replaced) -> None:
        assert self.chain.judge(NOTES, by(key), replaced + CLOCK_TOLERANCE).retired
        late = replaced + CLOCK_TOLERANCE + timedelta(seconds=1)
        assert reason(self.chain, by(key), late) == "key-retired"

    def test_when_a_document_began_goes_before_what_it_says(self) -> None:
        began = {1: START + 3 * DAY, 2: START + 4 * DAY}.__getitem__
        for key, days in ((OLD, 3), (NEW, 4)):
            at = START + DAY * days
            assert self.chain.judge(NOTES, by(key), at, began).retired
            assert self.chain.may_speak(NOTES, by(key), at, began)
            with pytest.raises(KeyNotAuthorisedError):
                self.chain.judge(NOTES, by(key), at + DAY / 2, began)
            assert not self.chain.may_speak(NOTES, by(key), at + DAY / 2, began)

    def test_nobody_is_asked_when_a_current_key_signed(self) -> None:
        assert not self.chain.judge(NOTES, by(SPARE), START, {}.__getitem__).retired


class TestRevocation:
    """Only what was logged before the compromise stays valid."""

    def test_what_was_not_logged_is_lost(self) -> None:
        assert reason(REVOKED, by(OLD), START) == "key-revoked"

    def test_what_was_logged_before_the_compromise_stays(self) -> None:
        assert REVOKED.judge(NOTES, by(OLD, logged_at=START), START).retired

    @pytest.mark.parametrize("hours", [12, 13, 48])
    def test_what_was_logged_from_then_on_is_lost(self, hours) -> None:
        logged = by(OLD, logged_at=START + DAY * hours / 24)
        assert reason(REVOKED, logged, START) == "key-revoked"


class TestThresholds:
    """Enough of the keys in charge at one time, each counted once."""

    two = resolved(signed(first(quorum=quorum(OLD, NEW, SPARE, of=2)), OLD, NEW))

    def test_one_of_two_is_not_enough(self) -> None:
        assert reason(self.two, by(SPARE), START) == "threshold-not-met"

    def test_strangers_do_not_count(self) -> None:
        assert reason(self.two, by(SPARE, THIEF), START) == "threshold-not-met"

    def test_two_are(self) -> None:
        judgement = self.two.judge(NOTES, by(SPARE, NEW, THIEF), START)
        assert judgement.key_ids == tuple(sorted((SPARE.public_key.id, NEW.public_key.id)))

    def test_keys_of_two_times_do_not_add_up(self) -> None:
        before = first(quorum=quorum(OLD, SPARE, of=2))
        now = after(before, quorum=quorum(NEW, EVE, of=2))
        authority = resolved(signed(before, OLD, SPARE), signed(now, OLD, SPARE, NEW, EVE))
        assert reason(authority, by(OLD, NEW), START) == "threshold-not-met"

    def test_a_revoked_key_is_not_counted(self) -> None:
        before = first(quorum=quorum(OLD, SPARE, NEW, of=2))
        now = after(
            before,
            quorum=quorum(SPARE, NEW, of=2),
            revoked=(Revocation(OLD.public_key.id, START),),
        )
        authority = resolved(signed(before, OLD, SPARE), signed(now, SPARE, NEW))
        assert reason(authority, by(OLD, SPARE), START) == "key-revoked"

    def test_a_part_of_a_roles_quorum_is_told_how_many_must_sign(self) -> None:
        authority = resolved(
            signed(
                first(
                    quorum=quorum(OLD, NEW, SPARE, of=3),
                    delegations=(role("team", "notes", TEAM, EVE, of=2),),
                ),
                *(OLD, NEW, SPARE),
            )
        )
        for key in (TEAM, OLD):
            with pytest.raises(
                KeyNotAuthorisedError, match="and 2 keys have to sign it"
            ) as refused:
                authority.judge(NOTES, by(key), START)
            assert refused.value.reason == "threshold-not-met"
        assert authority.judge(NOTES, by(TEAM, EVE), START).quorum.threshold == 2
        assert authority.may_speak(NOTES, by(TEAM), START)
        assert not authority.may_speak(NOTES, by(THIEF), START)
        assert not authority.may_speak(f"{ALICE_AT}/other", by(TEAM), START)


class TestRoles:
    """A role speaks for what it was given, and for nothing else."""

    authority = resolved(
        signed(
            first(
                delegations=(
                    role("research", "research-*", TEAM),
                    role("research/eve", "research-birds", EVE),
                )
            ),
            OLD,
        )
    )

    @pytest.mark.parametrize("key", [OLD, TEAM, EVE])
    def test_a_member_her_team_and_the_organisation_release_her_cube(self, key) -> None:
        origin = f"{ALICE_AT}/research-birds"
        assert self.authority.judge(origin, by(key), START).key_ids == (key.public_key.id,)

    def test_a_member_releases_nothing_else(self) -> None:
        for name in ("research-bees", "research-birds2", "notes"):
            assert reason(self.authority, by(EVE), START, f"{ALICE_AT}/{name}") in (
                "key-not-authorised"
            )

    def test_a_team_does_not_release_outside(self) -> None:
        assert reason(self.authority, by(TEAM), START) == "key-not-authorised"


def test_a_stranger_is_not_authorised() -> None:
    assert reason(ROTATED, by(THIEF), START) == "key-not-authorised"


def test_all_keys_that_ever_could_are_offered_to_the_verifier() -> None:
    assert set(REVOKED.keys_for(NOTES)) == {OLD.public_key, NEW.public_key}
