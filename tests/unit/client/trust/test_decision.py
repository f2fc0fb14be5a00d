"""The one decision about a cube: every rule, when it passes, warns and stops."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from memcube.trust import (
    RULES,
    Acceptance,
    Attestation,
    Mode,
    Outcome,
    Pins,
    Question,
    RuleResult,
    Scope,
    Standing,
    Verdict,
    judge_cube,
    verify_cube,
)
from memcube.trust.policy import Policy, Terms
from memcube_protocol import media_types, oci
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    DigestMismatchError,
    InvalidReferenceError,
    MemcubeError,
    OriginMismatchError,
    PublisherChangedError,
    ReleaseExpiredError,
    RollbackError,
    SignatureInvalidError,
    SignatureMissingError,
)
from memcube_protocol.reference import Reference
from memcube_signing import bundle as bundles
from memcube_signing import referrer
from memcube_signing.release import PREDICATE_TYPE, Release, sign_release
from support.signing import (
    ALICE,
    CREATED,
    EDDIE,
    MALLORY,
    NOW,
    ORIGIN,
    OTHER,
    attached,
    changed,
    manifest,
    next_release,
    release,
    signed_payload,
)

MIRROR = "mirror.example/copies/notes"
FIRST = release()
SECOND = next_release(FIRST, "two")
THIRD = next_release(SECOND, "three")
NO_PINS = Pins()
NOT_NAMED = "publisher-not-in-policy"
TEXTS = {FIRST.subject: "one", SECOND.subject: "two", THIRD.subject: "three"}


def attest(said: Release, key=ALICE) -> Attestation:
    said = replace(said, publishers=(key.public_key.id,))
    bundle = sign_release(said, key)
    subject = oci.Descriptor(media_types.OCI_MANIFEST, said.subject, 1)
    return Attestation(referrer.write(bundle, PREDICATE_TYPE, subject, key.public_key), bundle.raw)


def ask(said: Release = FIRST, pins: Pins = NO_PINS, where=f"{ORIGIN}:latest", key=ALICE, **more):
    """The question about `said`, signed by `key`, found at `where`."""
    more.setdefault("attestations", [attest(said, key)])
    more.setdefault("now", NOW)
    if "trusted" in more:
        more["policy"] = Policy(default=Terms(publishers=more.pop("trusted")))
    cube = manifest(TEXTS.get(said.subject, "one"))
    return Question(Reference.parse(where), cube, pins=pins, **more)


def after(*questions: Question) -> Pins:
    """The pins of a user who accepted these cubes one after the other."""
    pins = Pins()
    for question in questions:
        verdict = verify_cube(replace(question, pins=pins))
        assert verdict.observation
        pins = pins.recording(verdict.observation)
    return pins


def stopped(question: Question, error: type[MemcubeError], rule: str, reason: str | None = None):
    """`question` is refused by `rule`, and everything after it was not asked."""
    verdict = judge_cube(question)
    failed = [result for result in verdict.rules if result.outcome is Outcome.FAILED]
    assert verdict.standing is Standing.REFUSED
    assert [result.rule for result in failed] == [rule]
    assert failed[0].reason == (reason or error.code)
    assert verdict.observation is None
    with pytest.raises(error) as caught:
        verify_cube(question)
    assert caught.value.hint


def rule(verdict: Verdict, name: str) -> RuleResult:
    return next(result for result in verdict.rules if result.rule == name)


def test_the_first_use_pins_the_publisher():
    verdict = verify_cube(ask())
    assert verdict.standing is Standing.FIRST_USE
    assert verdict.publisher == ALICE.public_key
    assert verdict.release == FIRST
    pins = after(ask())
    assert pins.of(ORIGIN).publishers == (ALICE.public_key,)
    assert pins.at(ORIGIN).tags == {"latest": 1}


def test_the_second_use_is_trusted():
    verdict = verify_cube(ask(pins=after(ask())))
    assert verdict.standing is Standing.TRUSTED
    assert not verdict.warnings


def test_every_rule_is_in_every_verdict_in_order():
    for question in (
        ask(),
        ask(attestations=[]),
        ask(scope=Scope.LOCAL),
        ask(attestations=[], mode=Mode.WARN),
    ):
        assert tuple(result.rule for result in judge_cube(question).rules) == RULES


def test_a_local_cube_needs_no_signature_and_says_so():
    verdict = verify_cube(ask(where="notes:latest", attestations=[], scope=Scope.LOCAL))
    assert verdict.standing is Standing.LOCAL
    assert verdict.observation is None


def test_a_remote_reference_needs_a_host():
    with pytest.raises(InvalidReferenceError):
        ask(where="alice/notes:latest")


def test_the_hosts_case_does_not_matter():
    assert verify_cube(ask(where="REGISTRY.example/alice/notes:latest")).location == ORIGIN


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("scope", Scope)
def test_the_manifest_must_have_the_digest_asked_for(algorithm, scope):
    right = Digest.of(manifest().raw, algorithm)
    assert verify_cube(ask(where=f"{ORIGIN}@{right}", scope=scope))
    wrong = Digest.of(b"x", algorithm)
    stopped(ask(where=f"{ORIGIN}@{wrong}", scope=scope), DigestMismatchError, "bytes")


def test_an_unsigned_cube_is_refused():
    stopped(ask(attestations=[]), SignatureMissingError, "release")


def test_an_unsigned_cube_passes_with_a_warning_where_the_mode_says_so():
    verdict = verify_cube(ask(attestations=[], mode=Mode.WARN))
    assert verdict.standing is Standing.UNSIGNED
    assert verdict.warnings
    assert verdict.observation is None


@pytest.mark.parametrize("mode", Mode)
def test_a_vanished_signature_stops_in_both_modes(mode):
    question = ask(pins=after(ask()), attestations=[], mode=mode)
    stopped(question, SignatureMissingError, "release", "signature-vanished")


@pytest.mark.parametrize("mode", Mode)
def test_another_publisher_stops_in_both_modes(mode):
    question = ask(pins=after(ask()), key=MALLORY, mode=mode)
    stopped(question, PublisherChangedError, "publisher")


def test_another_publisher_passes_only_when_its_key_is_named():
    pins = after(ask())
    wrong = Acceptance(publisher=EDDIE.public_key.id)
    stopped(ask(pins=pins, key=MALLORY, accept=wrong), PublisherChangedError, "publisher")
    right = Acceptance(publisher=MALLORY.public_key.id)
    verdict = verify_cube(ask(pins=pins, key=MALLORY, accept=right))
    assert verdict.warnings
    assert verdict.observation
    pins = pins.recording(verdict.observation)
    assert pins.of(ORIGIN).publishers == (MALLORY.public_key,)
    stopped(ask(pins=pins, key=ALICE), PublisherChangedError, "publisher")


def test_a_new_publisher_begins_a_new_history():
    pins = after(ask(FIRST), ask(SECOND))
    accept = Acceptance(publisher=MALLORY.public_key.id)
    own = replace(THIRD, seq=1, previous=None)
    verdict = verify_cube(ask(own, pins, key=MALLORY, accept=accept))
    assert rule(verdict, "history").reason == "publisher-replaced"
    assert verdict.observation
    pins = pins.recording(verdict.observation)
    assert pins.of(ORIGIN).newest.seq == 1
    assert pins.at(ORIGIN).tags == {"latest": 1}
    assert verify_cube(ask(own, pins, key=MALLORY)).standing is Standing.TRUSTED


def test_a_key_that_was_named_at_first_use_is_the_only_one_accepted():
    accept = Acceptance(publisher=ALICE.public_key.id)
    assert verify_cube(ask(accept=accept)).publisher == ALICE.public_key
    stopped(ask(key=MALLORY, accept=accept), PublisherChangedError, "publisher")


def test_a_signature_of_a_policys_key_goes_before_the_pins():
    trusted = (ALICE.public_key,)
    assert verify_cube(ask(trusted=trusted)).standing is Standing.TRUSTED
    stopped(ask(key=MALLORY, trusted=trusted), PublisherChangedError, "publisher", NOT_NAMED)
    verdict = verify_cube(ask(pins=after(ask(key=MALLORY)), trusted=trusted))
    assert verdict.publisher == ALICE.public_key


def test_a_policy_with_no_keys_accepts_nothing():
    stopped(ask(trusted=()), PublisherChangedError, "publisher", NOT_NAMED)


def test_another_signature_beside_the_right_one_changes_nothing():
    attestations = [attest(FIRST, MALLORY), attest(FIRST)]
    verdict = verify_cube(ask(pins=after(ask()), attestations=attestations))
    assert verdict.publisher == ALICE.public_key
    assert "1 others" in rule(verdict, "signature").detail


def test_two_publishers_at_first_use_are_ambiguous():
    attestations = [attest(FIRST, MALLORY), attest(FIRST)]
    question = ask(attestations=attestations)
    stopped(question, SignatureInvalidError, "signature", "ambiguous-publisher")
    named = replace(question, accept=Acceptance(publisher=ALICE.public_key.id))
    assert verify_cube(named).publisher == ALICE.public_key


def test_a_signature_without_an_offered_key_needs_a_pin():
    whole = attest(FIRST)
    raw = changed(whole.referrer.raw, "annotations", {})
    bare = Attestation(oci.parse_manifest(raw), whole.bundle)
    stopped(ask(attestations=[bare]), SignatureInvalidError, "signature", "no-key")
    assert verify_cube(ask(attestations=[bare], pins=after(ask()))).release == FIRST


def test_attestations_of_other_kinds_are_no_releases():
    whole = attest(FIRST)
    sbom = oci.parse_manifest(changed(whole.referrer.raw, "artifactType", "application/x"))
    document = changed(
        whole.referrer.raw,
        "annotations",
        {media_types.BUNDLE_PREDICATE: "https://slsa.dev/provenance/v1"},
    )
    others = [Attestation(sbom, b"x"), Attestation(oci.parse_manifest(document), b"x")]
    stopped(ask(attestations=others), SignatureMissingError, "release")
    assert verify_cube(ask(attestations=[*others, whole])).release == FIRST


def test_a_bundle_that_states_something_else_is_no_release_whatever_its_referrer_says():
    payload = FIRST.to_statement().to_bytes().replace(PREDICATE_TYPE.encode(), b"https://x.y/z")
    bundle = bundles.parse(signed_payload(payload))
    other = Attestation(attached(bundle, manifest()), bundle.raw)
    stopped(ask(attestations=[other]), SignatureMissingError, "release")
    assert verify_cube(ask(attestations=[other], mode=Mode.WARN)).standing is Standing.UNSIGNED


def test_a_signature_that_vanishes_from_a_copy_is_noticed():
    pins = after(ask(where=f"{MIRROR}:latest", accept=Acceptance(origin=ORIGIN)))
    forgotten = Pins({}, pins.places)
    for known in (pins, forgotten):
        question = ask(where=f"{MIRROR}:latest", pins=known, attestations=[], mode=Mode.WARN)
        stopped(question, SignatureMissingError, "release", "signature-vanished")


def test_a_place_that_was_only_recorded_has_no_signature_to_lose():
    pins = Pins().with_copy(MIRROR, ORIGIN)
    question = ask(where=f"{MIRROR}:latest", pins=pins, attestations=[], mode=Mode.WARN)
    assert verify_cube(question).standing is Standing.UNSIGNED


def test_accepting_an_origin_is_told_from_knowing_it():
    accept = Acceptance(origin=ORIGIN)
    accepted = verify_cube(ask(where=f"{MIRROR}:latest", accept=accept))
    known = after(ask(where=f"{MIRROR}:latest", accept=accept))
    again = verify_cube(ask(where=f"{MIRROR}:latest", pins=known))
    assert [rule(accepted, "origin").reason, rule(again, "origin").reason] == [
        "copy-accepted",
        "copy",
    ]


def test_accepting_a_rollback_that_is_none_leaves_no_warning():
    pins = after(ask(SECOND))
    verdict = verify_cube(ask(SECOND, pins, accept=Acceptance(rollback=True)))
    assert not verdict.warnings
    assert verdict.standing is Standing.TRUSTED


def test_only_an_explicit_word_replaces_a_publisher_or_moves_a_place():
    plain = verify_cube(ask()).observation
    named = verify_cube(ask(accept=Acceptance(publisher=ALICE.public_key.id))).observation
    moved = verify_cube(ask(accept=Acceptance(origin=ORIGIN))).observation
    by_policy = verify_cube(ask(trusted=(ALICE.public_key,))).observation
    assert [(seen.replaces, seen.moves) for seen in (plain, named, moved, by_policy)] == [
        (False, False),
        (True, False),
        (False, True),
        (True, False),
    ]


def test_a_bundle_other_than_its_referrer_names_is_refused():
    mixed = Attestation(attest(FIRST).referrer, attest(FIRST, MALLORY).bundle)
    stopped(ask(attestations=[mixed]), DigestMismatchError, "signature")


def test_a_release_of_another_manifest_is_refused():
    question = ask(attestations=[attest(SECOND)])
    stopped(question, SignatureInvalidError, "signature", "wrong-subject")


def test_a_cube_released_under_another_name_is_refused_until_it_is_known_as_a_copy():
    stopped(ask(where=f"{MIRROR}:latest"), OriginMismatchError, "origin")
    accept = Acceptance(origin=ORIGIN)
    verdict = verify_cube(ask(where=f"{MIRROR}:latest", accept=accept))
    assert verdict.standing is Standing.FIRST_USE
    assert verdict.observation
    pins = Pins().recording(verdict.observation)
    again = verify_cube(ask(where=f"{MIRROR}:latest", pins=pins))
    assert again.standing is Standing.TRUSTED


def test_a_copy_that_the_user_made_is_known():
    pins = after(ask()).with_copy(MIRROR, ORIGIN)
    verdict = verify_cube(ask(where=f"{MIRROR}:1.0.0", pins=pins))
    assert verdict.standing is Standing.TRUSTED
    assert rule(verdict, "origin").reason == "copy"


def test_a_copy_is_judged_by_the_origins_publisher():
    pins = after(ask()).with_copy(MIRROR, ORIGIN)
    stopped(ask(where=f"{MIRROR}:1.0.0", pins=pins, key=MALLORY), PublisherChangedError, "publisher")  # fmt: skip


def test_a_location_does_not_change_its_origin_silently():
    pins = after(ask(where=f"{MIRROR}:latest", accept=Acceptance(origin=ORIGIN)))
    swapped = replace(FIRST, origin="registry.example/bob/facts")
    stopped(ask(swapped, pins, f"{MIRROR}:latest"), OriginMismatchError, "origin")


@pytest.mark.parametrize("tag", ["1.0.0", "1.0", "1", "latest", "v1", "1-x"])
def test_a_tag_may_lead_to_the_version_that_it_names(tag):
    assert verify_cube(ask(where=f"{ORIGIN}:{tag}"))


@pytest.mark.parametrize("tag", ["1.0.1", "2.0.0", "1.1", "2", "1.0.0-rc.1", "1.0.0_b1"])
@pytest.mark.parametrize("mode", Mode)
def test_a_tag_of_another_version_is_a_swap(tag, mode):
    question = ask(where=f"{ORIGIN}:{tag}", mode=mode)
    stopped(question, SignatureInvalidError, "version", "version-mismatch")


@pytest.mark.parametrize("mode", Mode)
def test_a_tag_that_goes_back_is_a_rollback(mode):
    pins = after(ask(FIRST), ask(SECOND))
    stopped(ask(FIRST, pins, mode=mode), RollbackError, "history")


def test_no_tag_at_all_means_latest():
    pins = after(ask(SECOND, where=ORIGIN))
    stopped(ask(FIRST, pins), RollbackError, "history")


def test_an_older_release_asked_for_by_version_or_digest_is_fine():
    pins = after(ask(SECOND))
    assert verify_cube(ask(FIRST, pins, f"{ORIGIN}:1.0.0"))
    assert verify_cube(ask(FIRST, pins, f"{ORIGIN}:latest@{FIRST.subject}"))
    assert verify_cube(ask(FIRST, pins, f"{ORIGIN}:1.0"))


def test_a_rollback_passes_when_it_is_accepted():
    verdict = verify_cube(ask(FIRST, after(ask(SECOND)), accept=Acceptance(rollback=True)))
    assert verdict.warnings
    assert verdict.observation


def test_a_mirror_that_lags_behind_is_no_rollback():
    pins = after(ask(SECOND)).with_copy(MIRROR, ORIGIN)
    assert verify_cube(ask(FIRST, pins, f"{MIRROR}:latest"))


def test_one_version_with_two_contents_is_a_fork():
    other = replace(SECOND, version="1.0.0", seq=5, previous=OTHER)
    stopped(ask(other, after(ask(FIRST))), RollbackError, "history", "history-forked")


def test_two_releases_of_one_seq_are_a_fork():
    other = replace(SECOND, seq=1, previous=None)
    stopped(ask(other, after(ask(FIRST))), RollbackError, "history", "history-forked")


def test_a_release_that_does_not_name_the_one_seen_before_it_is_a_fork():
    other = replace(SECOND, previous=OTHER)
    stopped(ask(other, after(ask(FIRST))), RollbackError, "history", "history-forked")
    assert verify_cube(ask(THIRD, after(ask(FIRST))))


def test_the_same_release_signed_again_is_no_fork():
    again = replace(FIRST, created_at=CREATED + timedelta(hours=1))
    assert verify_cube(ask(again, after(ask(FIRST)))).standing is Standing.TRUSTED


MINUTE = timedelta(minutes=1)


def test_clocks_may_differ_by_five_minutes():
    lasting = replace(FIRST, expires_at=NOW)
    assert verify_cube(ask(FIRST, now=CREATED - 5 * MINUTE))
    assert verify_cube(ask(lasting, now=NOW + 5 * MINUTE))
    early = ask(FIRST, now=CREATED - 6 * MINUTE)
    stopped(early, ReleaseExpiredError, "validity", "not-yet-valid")
    late = ask(lasting, now=NOW + 6 * MINUTE)
    stopped(late, ReleaseExpiredError, "validity", "release-expired")


def test_an_expired_release_passes_with_a_warning_where_the_mode_says_so():
    lasting = replace(FIRST, expires_at=NOW)
    verdict = verify_cube(ask(lasting, now=NOW + 6 * MINUTE, mode=Mode.WARN))
    assert verdict.warnings
    assert rule(verdict, "validity").reason == "release-expired"


def test_of_several_releases_the_one_under_the_expected_name_is_taken():
    elsewhere = replace(SECOND, subject=FIRST.subject, origin="registry.example/alice/other")
    verdict = verify_cube(ask(attestations=[attest(elsewhere), attest(FIRST)]))
    assert verdict.release == FIRST


def test_the_verdict_as_json_holds_what_scripts_need():
    value = judge_cube(ask(key=MALLORY, pins=after(ask()))).to_json()
    assert value["standing"] == "refused"
    assert value["location"] == ORIGIN
    assert {one["rule"]: one["reason"] for one in value["rules"]}[
        "publisher"
    ] == "publisher-changed"
    value = judge_cube(ask()).to_json()
    assert (value["origin"], value["version"], value["seq"]) == (ORIGIN, "1.0.0", 1)
    assert value["publisher"] == ALICE.public_key.id
