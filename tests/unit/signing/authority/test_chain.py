"""The chain of key documents: who may follow whom, who overrules whom, and what is a fork."""

from __future__ import annotations

from itertools import chain as chained

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    InvalidJsonError,
    InvalidStatementError,
    KeyNotAuthorisedError,
    LimitExceededError,
)
from memcube_signing.authority.chain import MAX_BUNDLES, about, resolve
from memcube_signing.authority.document import PREDICATE_TYPE, Revocation
from support import signing
from support.authority import (
    ALICE_AT,
    DAY,
    EVE,
    NEW,
    OLD,
    SAFE,
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

FIRST = first()
ROTATED = after(FIRST, quorum=quorum(NEW))


def test_the_old_and_the_new_key_together_rotate() -> None:
    assert resolved(signed(FIRST, OLD), signed(ROTATED, OLD, NEW)).current == ROTATED


@pytest.mark.parametrize("signers", [(OLD,), (NEW,), (THIEF,), (THIEF, NEW)])
def test_a_rotation_that_one_side_did_not_sign_does_not_count(signers) -> None:
    assert resolved(signed(FIRST, OLD), signed(ROTATED, *signers)).current == FIRST


def test_a_first_document_that_its_own_keys_did_not_sign_says_nothing() -> None:
    assert resolve(ALICE_AT, signed(FIRST, THIEF)) is None


@given(st.randoms())
@settings(max_examples=15, deadline=None)
def test_the_order_in_which_bundles_are_found_does_not_matter(random) -> None:
    third = after(ROTATED, quorum=quorum(SPARE))
    found = [*signed(FIRST, OLD), *signed(ROTATED, OLD, NEW), *signed(third, NEW, SPARE)]
    random.shuffle(found)
    assert resolve(ALICE_AT, found).current == third


def test_two_documents_of_one_number_are_a_fork() -> None:
    other = after(FIRST, quorum=quorum(THIEF))
    with pytest.raises(KeyNotAuthorisedError) as stopped:
        resolved(signed(FIRST, OLD), signed(ROTATED, OLD, NEW), signed(other, OLD, THIEF))
    assert stopped.value.reason == "keys-forked"


def test_two_first_documents_are_a_fork() -> None:
    with pytest.raises(KeyNotAuthorisedError):
        resolved(signed(FIRST, OLD), signed(first(quorum=quorum(THIEF)), THIEF))


def test_a_document_may_be_as_old_as_the_one_before() -> None:
    same = after(FIRST, quorum=quorum(NEW), created_at=FIRST.created_at)
    assert resolved(signed(FIRST, OLD), signed(same, OLD, NEW)).current == same


@pytest.mark.parametrize("seq", [3, 4])
def test_a_number_that_is_left_out_does_not_count(seq) -> None:
    skipping = after(FIRST, seq=seq)
    assert resolved(signed(FIRST, OLD), signed(skipping, OLD)).current == FIRST


def test_a_document_that_names_another_one_before_it_does_not_count() -> None:
    for seq, previous in ((2, Digest.of(b"other")), (2, ROTATED.digest), (3, FIRST.digest)):
        astray = after(ROTATED, seq=seq, previous=previous)
        found = resolved(signed(FIRST, OLD), signed(ROTATED, OLD, NEW), signed(astray, NEW))
        assert found.current == ROTATED


def test_the_bundles_about_a_namespace_are_told_from_others() -> None:
    found = (*signed(FIRST, OLD), *signed(ROTATED, OLD, NEW))
    assert about(ALICE_AT, found) == found
    for other in ("registry.example/aa", "registry.example/bob"):
        assert about(other, found) == ()
    with pytest.raises(InvalidJsonError):
        about(ALICE_AT, (*found, b"{"))


def test_later_documents_can_be_left_out() -> None:
    third = after(ROTATED, quorum=quorum(SPARE))
    found = [*signed(FIRST, OLD), *signed(ROTATED, OLD, NEW), *signed(third, NEW, SPARE)]
    assert resolve(ALICE_AT, found, stop_at=1) is None
    assert resolve(ALICE_AT, found, stop_at=2).documents == (FIRST,)
    assert resolve(ALICE_AT, found, stop_at=3).documents == (FIRST, ROTATED)
    assert resolve(ALICE_AT, found, stop_at=4).documents == (FIRST, ROTATED, third)


def test_as_many_bundles_are_read_as_the_limit_says() -> None:
    assert MAX_BUNDLES == 1024
    found = signed(FIRST, OLD) * MAX_BUNDLES
    assert resolve(ALICE_AT, found).current == FIRST
    with pytest.raises(LimitExceededError):
        resolve(ALICE_AT, (*found, *signed(FIRST, OLD)))


def test_how_many_more_have_to_sign_is_counted_for_the_nearest_quorum() -> None:
    two = first(
        quorum=quorum(OLD, NEW, SPARE, of=3), delegations=(role("team", "notes", TEAM, EVE, of=2),)
    )
    authority = resolved(signed(two, OLD, NEW, SPARE))
    notes, other = f"{ALICE_AT}/notes", f"{ALICE_AT}/other"

    def lacking(origin: str, *keys) -> int:
        return authority.lacking(origin, [key.public_key.id for key in keys])

    assert [lacking(other, *(OLD, NEW, SPARE, TEAM)[:count]) for count in range(5)] == [
        3,
        2,
        1,
        0,
        0,
    ]
    assert [lacking(notes), lacking(notes, TEAM), lacking(notes, OLD, NEW)] == [2, 1, 1]
    assert lacking(notes, TEAM, EVE) == 0


def test_the_keys_for_a_name_are_those_of_its_quorums_by_id() -> None:
    team = first(delegations=(role("team", "notes", TEAM, EVE),))
    authority = resolved(signed(team, OLD))
    everybody = sorted((OLD, TEAM, EVE), key=lambda key: key.public_key.id)
    assert authority.keys_for(f"{ALICE_AT}/notes") == tuple(key.public_key for key in everybody)
    assert authority.keys_for(f"{ALICE_AT}/other") == (OLD.public_key,)


class TestRecovery:
    """A quorum that is kept apart, and overrules stolen keys."""

    safe = first(recovery=quorum(SAFE, SPARE, EVE, of=2))

    def test_it_overrules_a_thief_who_rotated_twice(self) -> None:
        stolen = after(self.safe, quorum=quorum(THIEF))
        again = after(stolen, quorum=quorum(TEAM))
        saved = after(
            self.safe, quorum=quorum(NEW), revoked=(Revocation(OLD.public_key.id, START + DAY),)
        )
        found = resolved(
            signed(self.safe, OLD),
            signed(stolen, OLD, THIEF),
            signed(again, THIEF, TEAM),
            signed(saved, SAFE, SPARE, NEW),
        )
        assert found.current == saved

    def test_it_needs_its_threshold(self) -> None:
        saved = after(self.safe, quorum=quorum(NEW))
        assert resolved(signed(self.safe, OLD), signed(saved, SAFE, NEW)).current == self.safe

    def test_the_authority_cannot_take_it_away(self) -> None:
        for changed in (None, quorum(THIEF)):
            robbed = after(self.safe, recovery=changed)
            assert resolved(signed(self.safe, OLD), signed(robbed, OLD)).current == self.safe

    def test_it_can_replace_itself(self) -> None:
        moved = after(self.safe, recovery=quorum(TEAM))
        found = resolved(signed(self.safe, OLD), signed(moved, SAFE, EVE))
        assert found.current == moved

    def test_the_authority_may_add_a_first_one(self) -> None:
        added = after(FIRST, recovery=quorum(SAFE))
        assert resolved(signed(FIRST, OLD), signed(added, OLD)).current == added


class TestRevocations:
    """They stay."""

    revoking = after(FIRST, quorum=quorum(NEW), revoked=(Revocation(OLD.public_key.id, START),))

    def test_no_later_document_takes_one_back(self) -> None:
        forgetting = after(self.revoking, revoked=())
        later = after(self.revoking, revoked=(Revocation(OLD.public_key.id, START + DAY),))
        base = (signed(FIRST, OLD), signed(self.revoking, OLD, NEW))
        for document in (forgetting, later):
            assert resolved(*base, signed(document, NEW)).current == self.revoking

    def test_a_later_document_may_move_one_back_and_add_others(self) -> None:
        earlier = Revocation(OLD.public_key.id, START - DAY)
        kept = self.revoking.revoked[0]
        other = Revocation(TEAM.public_key.id, START)
        base = (signed(FIRST, OLD), signed(self.revoking, OLD, NEW))
        for revoked in ((earlier,), (kept,), tuple(sorted((kept, other), key=lambda r: r.key_id))):
            document = after(self.revoking, revoked=revoked)
            assert resolved(*base, signed(document, NEW)).current == document
        forgotten = after(self.revoking, revoked=(other,))
        assert resolved(*base, signed(forgotten, NEW)).current == self.revoking

    def test_a_revoked_key_is_never_in_charge(self) -> None:
        with pytest.raises(InvalidStatementError) as refused:
            first(revoked=(Revocation(OLD.public_key.id, START),))
        assert refused.value.reason == "revoked-key-in-charge"

    def test_a_document_that_goes_back_in_time_does_not_count(self) -> None:
        back = after(FIRST, created_at=START - DAY)
        assert resolved(signed(FIRST, OLD), signed(back, OLD)).current == FIRST


class TestThresholds:
    """Two of three."""

    three = first(quorum=quorum(OLD, NEW, SPARE, of=2))

    def test_one_of_three_decides_nothing(self) -> None:
        lowered = after(self.three, quorum=quorum(OLD))
        base = signed(self.three, OLD, SPARE)
        assert resolved(base, signed(lowered, OLD)).current == self.three
        assert resolved(base, signed(lowered, OLD, NEW)).current == lowered

    def test_one_key_twice_counts_once(self) -> None:
        assert resolve(ALICE_AT, chained(signed(self.three, OLD), signed(self.three, OLD))) is None


class TestRoles:
    """Organisation, team, member: each changes only what is below it."""

    team = first(delegations=(role("research", "research-*", TEAM),))
    base = signed(team, OLD)

    def test_a_team_adds_a_member(self) -> None:
        member = role("research/eve", "research-birds", EVE)
        grown = after(self.team, delegations=(*self.team.delegations, member))
        assert resolved(self.base, signed(grown, TEAM)).current == grown
        assert resolved(self.base, signed(grown, EVE)).current == self.team

    def test_a_member_who_reaches_further_than_the_team_is_refused(self) -> None:
        member = role("research/eve", "finance", EVE)
        with pytest.raises(InvalidStatementError) as refused:
            after(self.team, delegations=(*self.team.delegations, member))
        assert refused.value.reason == "escalation"

    def test_the_authority_overrules_a_team_and_recovery_both(self) -> None:
        whole = first(recovery=quorum(SAFE), delegations=self.team.delegations)
        member = role("research/eve", "research-birds", EVE)
        by_team = after(whole, delegations=(*whole.delegations, member))
        by_authority = after(whole, delegations=())
        by_recovery = after(whole, quorum=quorum(NEW))
        base = (signed(whole, OLD), signed(by_team, TEAM))
        assert resolved(*base).current == by_team
        both = (*base, signed(by_authority, OLD))
        assert resolved(*both).current == by_authority
        assert resolved(*both, signed(by_recovery, SAFE, NEW)).current == by_recovery

    def test_one_of_several_teams_is_enough_for_what_is_below_it(self) -> None:
        other = role("sales", "sales-*", SPARE)
        two = first(delegations=(*self.team.delegations, other))
        member = role("sales/eve", "sales-birds", EVE)
        grown = after(two, delegations=(*two.delegations, member))
        assert resolved(signed(two, OLD), signed(grown, SPARE)).current == grown
        assert resolved(signed(two, OLD), signed(grown, TEAM)).current == two

    def test_a_team_changes_nothing_beside_its_members(self) -> None:
        sister = role("sales", "*", TEAM)
        wider = role("research", "*", TEAM)
        for changes in (
            {"delegations": (*self.team.delegations, sister)},
            {"delegations": (wider,)},
            {"delegations": ()},
            {"revoked": (Revocation(NEW.public_key.id, START),)},
            {"recovery": quorum(TEAM)},
            {"quorum": quorum(TEAM)},
        ):
            document = after(self.team, **changes)
            assert resolved(self.base, signed(document, TEAM)).current == self.team

    def test_a_role_without_the_one_above_it_is_refused(self) -> None:
        with pytest.raises(InvalidStatementError):
            first(delegations=(role("research/eve", "research-birds", EVE),))

    @pytest.mark.parametrize("pattern", ["a*b", "", "../bob/*", "Notes"])
    def test_patterns_stay_below_the_namespace(self, pattern) -> None:
        with pytest.raises(InvalidStatementError):
            first(delegations=(role("team", pattern, TEAM),))

    def test_another_namespace_is_no_pattern(self) -> None:
        for pattern in ("registry.example/alicea/*", "registry.example/*", "other.example/alice/x"):
            delegation = role("team", "x", TEAM)
            with pytest.raises(InvalidStatementError):
                first(delegations=(type(delegation)("team", (pattern,), delegation.quorum),))


class TestHostileBundles:
    """What cannot be read is never passed over."""

    def test_a_document_of_another_namespace_is_refused(self) -> None:
        for other in ("registry.example/aa", "registry.example/bob"):
            with pytest.raises(InvalidStatementError) as refused:
                resolve(other, signed(FIRST, OLD))
            assert refused.value.reason == "wrong-authority"

    def test_a_release_is_no_key_document(self) -> None:
        with pytest.raises(InvalidStatementError) as refused:
            resolve(ALICE_AT, [signing.signed().raw])
        assert refused.value.reason == "wrong-predicate-type"
        for kind in (b"https://a.b/c", b"https://x.y/z"):
            payload = FIRST.to_statement().to_bytes().replace(PREDICATE_TYPE.encode(), kind)
            with pytest.raises(InvalidStatementError) as refused:
                resolve(ALICE_AT, [signing.signed_payload(payload, OLD)])
            assert refused.value.reason == "wrong-predicate-type"

    def test_an_unknown_field_is_refused(self) -> None:
        payload = FIRST.to_statement().to_bytes().replace(b'"seq":', b'"new":1,"seq":')
        with pytest.raises(InvalidStatementError):
            resolve(ALICE_AT, [signing.signed_payload(payload, OLD)])

    def test_bytes_that_are_not_canonical_are_refused(self) -> None:
        for canonical, other in ((b'"seq":1', b'"seq": 1'), (b"https://", b"https:\\/\\/")):
            payload = FIRST.to_statement().to_bytes().replace(canonical, other)
            with pytest.raises(InvalidStatementError) as refused:
                resolve(ALICE_AT, [signing.signed_payload(payload, OLD)])
            assert refused.value.reason == "not-canonical"


def test_a_chain_is_rooted_in_a_key_that_signed_it_not_in_one_that_it_names() -> None:
    named = first(quorum=quorum(THIEF, OLD))
    assert not resolved(signed(named, THIEF)).is_rooted_in([OLD.public_key])
    assert resolved(signed(FIRST, OLD, SPARE)).is_rooted_in([SPARE.public_key])
