"""What each rule says of a cube: its name, outcome and reason, as scripts read them."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from itertools import permutations
from typing import Any

import pytest
from memcube.trust import (
    Acceptance,
    Attestation,
    Mode,
    Pin,
    Pins,
    Place,
    Question,
    Scope,
    Seen,
    judge_cube,
)
from memcube.trust._policy_rules import age_text
from memcube.trust.policy import LogDemand, Policy, Required, Terms
from memcube_protocol import oci
from memcube_protocol.digest import Digest
from memcube_protocol.reference import Reference
from memcube_signing import bundle as bundles
from memcube_signing import referrer
from memcube_signing.bundle import Bundle
from memcube_signing.keys import PrivateKey
from memcube_signing.predicates import attest as attest_status
from memcube_signing.predicates import status
from memcube_signing.predicates.status import Reason, State, Status
from memcube_signing.release import CLOCK_TOLERANCE, PREDICATE_TYPE, Release, sign_release
from memcube_signing.statement import Statement
from support.signing import (
    ALICE,
    CREATED,
    EDDIE,
    MALLORY,
    NOW,
    ORIGIN,
    changed,
    manifest,
    release,
    signed_payload,
)

MIRROR = "mirror.example/copies/notes"
NOT_ASKED = {
    "content": ("skipped", None),
    "threshold": ("skipped", None),
    "keys": ("skipped", None),
    "log": ("skipped", None),
    "job": ("skipped", None),
    "countersignature": ("skipped", None),
    "attestations": ("skipped", None),
    "freshness": ("passed", None),
    "status": ("passed", None),
}
PASSED = dict.fromkeys(
    ("bytes", "release", "signature", "origin", "version", "history", "validity"), ("passed", None)
)
FIRST_USE = PASSED | NOT_ASKED | {"publisher": ("first-use", "publisher-first-use")}


def attest(key=ALICE) -> Attestation:
    bundle = sign_release(release(key), key)
    about = referrer.write(bundle, PREDICATE_TYPE, manifest().descriptor(), key.public_key)
    return Attestation(about, bundle.raw)


def ask(where: str = f"{ORIGIN}:latest", pins: Pins | None = None, **more) -> Question:
    more.setdefault("attestations", [attest()])
    return Question(Reference.parse(where), manifest(), pins=pins or Pins(), now=NOW, **more)


def accepted(question: Question) -> Pins:
    verdict = judge_cube(question)
    assert verdict.observation
    return question.pins.recording(verdict.observation)


def results(question: Question) -> dict[str, tuple[str, str | None]]:
    return {one.rule: (str(one.outcome), one.reason) for one in judge_cube(question).rules}


def differing(question: Question) -> dict[str, tuple[str, str | None]]:
    """The results other than those of a plain first use."""
    return dict(sorted(results(question).items() - FIRST_USE.items()))


def test_a_first_use() -> None:
    assert results(ask()) == FIRST_USE


def test_a_verdict_is_written_by_stable_names() -> None:
    verdict = judge_cube(ask())
    written = verdict.to_json()
    rules = written.pop("rules")
    assert written == {
        "location": ORIGIN,
        "digest": str(manifest().digest),
        "standing": "first-use",
        "publisher": ALICE.public_key.id,
        "origin": ORIGIN,
        "version": "1.0.0",
        "seq": 1,
        "job": None,
    }
    for one, rule in zip(rules, verdict.rules, strict=True):
        told = {"outcome": str(rule.outcome), "detail": rule.detail, "reason": rule.reason}
        assert one == {"rule": rule.rule} | told


def test_documents_that_were_known_and_are_none_now_change_nothing() -> None:
    assert results(ask(authority_is_known=True)) == FIRST_USE


def test_a_second_use() -> None:
    assert differing(ask(pins=accepted(ask()))) == {"publisher": ("passed", None)}


def test_a_local_cube() -> None:
    found = results(ask("notes:latest", attestations=[], scope=Scope.LOCAL))
    assert found.pop("bytes") == ("passed", None)
    assert found.pop("release") == ("skipped", "local")
    assert set(found.values()) == {("skipped", None)}


def test_an_unsigned_cube() -> None:
    found = results(ask(attestations=[], mode=Mode.WARN))
    assert found["release"] == ("warned", "signature-missing")
    found = results(ask(attestations=[]))
    assert found["release"] == ("failed", "signature-missing")
    assert {found[rule] for rule in ("signature", "publisher", "status")} == {("skipped", None)}


def test_a_reference_with_a_digest_and_without_a_tag() -> None:
    found = differing(ask(f"{ORIGIN}@{manifest().digest}"))
    assert found == {"version": ("skipped", None)}
    assert differing(ask(ORIGIN)) == {"version": ("skipped", None)}
    told = {one.rule: one.detail for one in judge_cube(ask(ORIGIN)).rules}
    assert told["version"] == "no version asked for; it is 1.0.0"


def test_a_replaced_publisher() -> None:
    accept = Acceptance(publisher=MALLORY.public_key.id)
    question = ask(pins=accepted(ask()), attestations=[attest(MALLORY)], accept=accept)
    assert differing(question) == {
        "history": ("skipped", "publisher-replaced"),
        "publisher": ("warned", "publisher-replaced"),
    }


def test_a_copy_that_the_user_accepts_and_one_that_the_policy_knows() -> None:
    accepting = ask(f"{MIRROR}:latest", accept=Acceptance(origin=ORIGIN))
    assert differing(accepting) == {"origin": ("first-use", "copy-accepted")}
    known = ask(f"{MIRROR}:latest", accepted(accepting))
    assert differing(known) == {"origin": ("passed", "copy"), "publisher": ("passed", None)}
    scope = Terms("mirror.example/copies/**", origin="registry.example/alice")
    mapped = ask(f"{MIRROR}:latest", policy=Policy((scope,)))
    assert differing(mapped) == {"origin": ("passed", "copy")}
    assert judge_cube(mapped).observation.moves
    assert not judge_cube(ask()).observation.moves


def test_a_policys_publishers() -> None:
    terms = Terms(publishers=(ALICE.public_key, MALLORY.public_key), threshold=2)
    question = ask(attestations=[attest()], policy=Policy(default=terms))
    assert results(question)["threshold"] == ("failed", "threshold-not-met")
    one = ask(policy=Policy(default=Terms(publishers=(ALICE.public_key,))))
    assert differing(one) == {"publisher": ("passed", None)}


def test_what_a_policy_demands_is_refused_or_warned_of() -> None:
    demands = {
        "attestations": (Terms(attestations=(Required("https://x.y/z"),)), "attestation-missing"),
        "log": (Terms(log=LogDemand.REQUIRED), "log-unknown"),
    }
    for rule, (terms, reason) in demands.items():
        question = ask(policy=Policy(default=terms))
        assert results(question)[rule] == ("failed", reason)
        assert differing(ask(policy=Policy(default=terms), mode=Mode.WARN)) == {
            rule: ("warned", reason)
        }


@pytest.mark.parametrize("mode", Mode)
def test_an_accepted_rollback(mode) -> None:
    pins = accepted(ask())
    place = pins.at(ORIGIN)
    later = Pins(pins.origins, {ORIGIN: type(place)(place.origin, {"latest": 2})})
    assert results(ask(pins=later, mode=mode))["history"] == ("failed", "rollback")
    accepting = ask(pins=later, mode=mode, accept=Acceptance(rollback=True))
    assert differing(accepting) == {
        "history": ("warned", "rollback-accepted"),
        "publisher": ("passed", None),
    }
    older = Pins(pins.origins, {ORIGIN: type(place)(place.origin, {"latest": 0})})
    assert results(replace(accepting, pins=older))["history"] == ("passed", None)
    only_now = Pins(pins.origins, {ORIGIN: type(place)(place.origin, {"latest": 1})})
    assert results(ask(pins=only_now, mode=mode))["history"] == ("passed", None)


def test_a_signature_that_vanishes_is_noticed_by_the_pin_alone() -> None:
    pins = Pins(accepted(ask()).origins)
    question = ask(pins=pins, attestations=[], mode=Mode.WARN)
    assert results(question)["release"] == ("failed", "signature-vanished")


@pytest.mark.parametrize("where", ["a.example/a/a", "z.example/z/z"])
def test_a_copy_is_told_from_its_origin_wherever_it_lies(where) -> None:
    accept = Acceptance(origin=ORIGIN)
    assert differing(ask(f"{where}:latest", accept=accept)) == {
        "origin": ("first-use", "copy-accepted")
    }
    for other in ("a.example/a/b", "z.example/z/y"):
        moved = ask(f"{where}:latest", Pins().with_copy(where, other), accept=accept)
        assert differing(moved) == {"origin": ("first-use", "copy-accepted")}
        unmoved = ask(f"{where}:latest", Pins().with_copy(where, other))
        assert results(unmoved)["origin"] == ("failed", "origin-mismatch")


@pytest.mark.parametrize("tag", ["0.9.0", "1.0.1", "0", "2", "0.9", "1.1", "10", "1.00"])
def test_a_tag_of_another_version_be_it_lower_or_higher(tag) -> None:
    assert results(ask(f"{ORIGIN}:{tag}"))["version"] == ("failed", "version-mismatch")


@pytest.mark.parametrize(
    "tag", ["1.0.0", "1", "1.0", "1.x", "x.1", "1.0.0.0", "latest", "1.", "01.2.3"]
)
def test_a_tag_that_may_lead_there(tag) -> None:
    assert results(ask(f"{ORIGIN}:{tag}"))["version"] == ("passed", None)


def seen(seq: int, version: str, what: Digest) -> Pins:
    return Pins({ORIGIN: Pin((ALICE.public_key,), {version: Seen(seq, what)})})


def third(**changes) -> Attestation:
    said = release(seq=3, previous=HERE, version="3.0.0", **changes)
    bundle = sign_release(said, ALICE)
    about = referrer.write(bundle, PREDICATE_TYPE, manifest().descriptor(), ALICE.public_key)
    return Attestation(about, bundle.raw)


FOUND = sorted(Digest.of(bytes([number])) for number in range(9))
HERE, OTHERS = FOUND[4], [*FOUND[:4], *FOUND[5:]]


@pytest.mark.parametrize("other", OTHERS)
def test_any_contradiction_to_the_past_is_a_fork(other) -> None:
    for known in (seen(9, "3.0.0", other), seen(3, "9.0.0", other), seen(2, "2.0.0", other)):
        question = ask(pins=known, attestations=[third()])
        assert results(question)["history"] == ("failed", "history-forked")


@pytest.mark.parametrize("other", OTHERS)
def test_what_does_not_touch_a_release_contradicts_nothing(other) -> None:
    same = manifest().digest
    for known in (
        *(seen(1, "1.0.0", other), seen(4, "4.0.0", other), seen(9, "9.0.0", other)),
        *(seen(2, "2.0.0", HERE), seen(3, "3.0.0", same), seen(3, "9.0.0", same)),
    ):
        question = ask(pins=known, attestations=[third()])
        assert results(question)["history"] == ("passed", None)


def test_a_tag_that_led_to_a_later_release_before() -> None:
    for last, outcome in ((2, "passed"), (3, "passed"), (4, "failed")):
        pins = Pins({}, {ORIGIN: Place(ORIGIN, {"latest": last, "other": 9})})
        question = ask(pins=pins, attestations=[third()])
        assert results(question)["history"][0] == outcome
        by_digest = ask(f"{ORIGIN}:latest@{manifest().digest}", pins, attestations=[third()])
        assert results(by_digest)["history"] == ("passed", None)


def test_a_fork_passes_only_when_it_is_accepted() -> None:
    known = seen(3, "9.0.0", HERE)
    accept = Acceptance(rollback=True)
    found = results(ask(pins=known, attestations=[third()], accept=accept))
    assert found["history"] == ("warned", "rollback-accepted")


@pytest.mark.parametrize("mode", Mode)
def test_a_release_is_valid_from_when_to_when(mode) -> None:
    second = timedelta(seconds=1)
    late = "failed" if mode is Mode.ENFORCE else "warned"

    def at(now: datetime) -> tuple[str, str | None]:
        lasting = third(created_at=CREATED, expires_at=NOW)
        question = replace(ask(attestations=[lasting], mode=mode), now=now)
        return results(question)["validity"]

    assert at(CREATED - CLOCK_TOLERANCE) == at(NOW + CLOCK_TOLERANCE) == ("passed", None)
    assert at(CREATED - CLOCK_TOLERANCE - second) == (late, "not-yet-valid")
    assert at(NOW + CLOCK_TOLERANCE + second) == (late, "release-expired")


def test_until_when_a_release_is_valid_is_told() -> None:
    def told(found: Attestation) -> str:
        rules = judge_cube(ask(attestations=[found])).rules
        return next(one.detail for one in rules if one.rule == "validity")

    assert told(attest()) == f"valid since {CREATED}"
    later = NOW + timedelta(days=1)
    assert told(third(expires_at=later)) == f"valid since {CREATED} until {later}"


def test_a_new_key_in_a_namespace_that_is_known_is_told() -> None:
    def first_use(*known: tuple[str, PrivateKey]) -> tuple[str, str | None]:
        pins = Pins({name: Pin((key.public_key,)) for name, key in known})
        return results(ask(pins=pins))["publisher"]

    plain, told = ("first-use", "publisher-first-use"), ("first-use", "publisher-new-in-namespace")
    sister, cousin = "registry.example/alice/songs", "registry.example/alice/poems"
    assert first_use((sister, MALLORY)) == told
    assert first_use((sister, MALLORY), (cousin, EDDIE)) == told
    assert first_use((sister, MALLORY), (cousin, ALICE)) == plain
    assert first_use((sister, ALICE)) == plain
    verdict = judge_cube(ask(pins=Pins({sister: Pin((MALLORY.public_key,))})))
    assert [sister in told for told in verdict.warnings] == [True]
    assert judge_cube(ask()).warnings == ()
    for stranger in ("registry.example/alicea/songs", "other.example/alice/songs"):
        assert first_use((stranger, MALLORY)) == plain


def test_what_the_publisher_said_comes_with_a_refusal_for_that_reason_alone() -> None:
    yanked = Status(manifest().digest, ORIGIN, "1.0.0", State.YANKED, Reason.WRONG, CREATED)
    bundle = attest_status(yanked, ALICE)
    about = referrer.write(bundle, status.PREDICATE_TYPE, manifest().descriptor(), ALICE.public_key)
    both = [attest(), Attestation(about, bundle.raw)]
    refused = judge_cube(ask(attestations=both))
    assert (refused.error.code, refused.said) == ("release-yanked", (bundle.raw,))
    exact = judge_cube(ask(f"{ORIGIN}:1.0.0", attestations=both))
    assert (exact.error, exact.said) == (None, (bundle.raw,))
    elsewhere = judge_cube(ask(f"{ORIGIN}:2.0.0", attestations=both))
    assert (elsewhere.error.reason, elsewhere.said) == ("version-mismatch", ())
    later = Pins({}, {ORIGIN: Place(ORIGIN, {"latest": 2})})
    older = judge_cube(ask(pins=later, attestations=both))
    assert (older.error.code, older.said) == ("rollback", ())
    unsigned = judge_cube(ask(attestations=both[1:]))
    assert (unsigned.error.code, unsigned.said) == ("signature-missing", ())


def about(value: Release, key: PrivateKey, **changes: Any) -> Attestation:
    bundle = sign_release(value, key)
    return carried(bundle, key, **changes)


def carried(bundle: Bundle, key: PrivateKey, **changes: Any) -> Attestation:
    made = referrer.write(bundle, PREDICATE_TYPE, manifest().descriptor(), key.public_key)
    for path, value in changes.items():
        made = oci.parse_manifest(changed(made.raw, path, value))
    return Attestation(made, bundle.raw)


@pytest.mark.parametrize("name", ["registry.example/alice/a", "registry.example/alice/z"])
def test_the_expected_name_goes_before_a_higher_number(name) -> None:
    other = about(release(origin=name, seq=9, previous=HERE), ALICE)
    for order in ([other, attest()], [attest(), other]):
        assert judge_cube(ask(attestations=order)).release == release()


def test_naming_another_publisher_does_not_make_a_partner_of_them() -> None:
    both = tuple(sorted((ALICE.public_key.id, MALLORY.public_key.id)))
    claiming = about(release(publishers=both), MALLORY)
    for order in ([claiming, attest()], [attest(), claiming]):
        assert results(ask(attestations=order))["signature"] == ("failed", "ambiguous-publisher")
    partners = [claiming, about(release(publishers=both), ALICE)]
    assert judge_cube(ask(attestations=partners)).error is None


def test_of_several_releases_that_do_not_count_the_first_is_told() -> None:
    elsewhere = about(release(subject=HERE), ALICE)
    nameless = carried(sign_release(release(), ALICE), ALICE, annotations={})
    for order, reason in (
        ([elsewhere, nameless], "wrong-subject"),
        ([nameless, elsewhere], "no-key"),
    ):
        assert results(ask(attestations=order))["signature"] == ("failed", reason)
    strangers = [attest(MALLORY), attest(EDDIE)]
    for order in (strangers, strangers[::-1]):
        verdict = judge_cube(ask(pins=accepted(ask()), attestations=order))
        first = judge_cube(ask(attestations=order[:1])).publisher
        assert first.id in str(verdict.error)
    names = [about(release(MALLORY, origin=f"registry.example/m/{at}"), MALLORY) for at in "ab"]
    verdict = judge_cube(ask(pins=accepted(ask()), attestations=names))
    assert "registry.example/m/a" in str(verdict.error)


@pytest.mark.parametrize("kind", ["application/a", "application/x", "text/plain"])
def test_an_attestation_of_another_type_is_no_release(kind) -> None:
    other = carried(sign_release(release(), ALICE), ALICE, artifactType=kind)
    assert results(ask(attestations=[other]))["release"] == ("failed", "signature-missing")


@pytest.mark.parametrize("kind", [b"https://a.b/c", b"https://x.y/z"])
def test_a_statement_of_another_type_is_no_release(kind) -> None:
    payload = release().to_statement().to_bytes().replace(PREDICATE_TYPE.encode(), kind)
    other = carried(bundles.parse(signed_payload(payload)), ALICE)
    assert results(ask(attestations=[other]))["release"] == ("failed", "signature-missing")


@pytest.mark.parametrize("text", ["MIT", "CC0-1.0", "Apache-2.0", "ISC", "0BSD", "Zlib"])
def test_a_bundle_is_the_one_that_its_referrer_names(text) -> None:
    other = sign_release(release(licence=text), ALICE)
    mixed = Attestation(attest().referrer, other.raw)
    assert results(ask(attestations=[mixed]))["signature"] == ("failed", "digest-mismatch")


@pytest.mark.parametrize("signer", [ALICE, MALLORY, EDDIE])
def test_the_key_that_signed_is_the_publisher_among_several(signer) -> None:
    keys = [one.public_key for one in (ALICE, MALLORY, EDDIE)]
    for order in permutations(keys):
        terms = Terms(publishers=order)
        verdict = judge_cube(ask(attestations=[attest(signer)], policy=Policy(default=terms)))
        assert verdict.publisher == signer.public_key


def yanked(reason: Reason = Reason.WRONG, **changes: Any) -> Attestation:
    said = Status(manifest().digest, ORIGIN, "1.0.0", State.YANKED, reason, CREATED, **changes)
    bundle = attest_status(said, ALICE)
    made = referrer.write(bundle, status.PREDICATE_TYPE, manifest().descriptor(), ALICE.public_key)
    return Attestation(made, bundle.raw)


DANGEROUS = next(reason for reason in Reason if reason.is_dangerous)
MODES = [(policy, user) for policy in (None, *Mode) for user in Mode]


@pytest.mark.parametrize(("policy", "user"), MODES)
def test_a_dangerous_release_needs_two_words_of_warning(policy, user) -> None:
    lax = user is Mode.WARN and policy is not Mode.ENFORCE
    question = ask(
        f"{ORIGIN}:1.0.0",
        attestations=[attest(), yanked(DANGEROUS)],
        policy=Policy(default=Terms(mode=policy)),
        mode=user,
    )
    expected = "warned" if lax else "failed"
    assert results(question)["status"] == (expected, "release-yanked")


@pytest.mark.parametrize("tag", ["", ":latest", ":1", ":1.0"])
def test_a_yanked_release_is_not_for_whoever_asks_for_any(tag) -> None:
    found = [attest(), yanked()]
    for mode in Mode:
        question = ask(f"{ORIGIN}{tag}", attestations=found, mode=mode)
        assert results(question)["status"] == ("failed", "release-yanked")
    exact = ask(f"{ORIGIN}{tag}@{manifest().digest}", attestations=found)
    assert results(exact)["status"] == ("warned", "release-yanked")


def test_what_to_use_instead_and_why_is_said() -> None:
    plain = judge_cube(ask(attestations=[attest(), yanked()])).error
    assert plain.hint == "ask for it by its version (1.0.0) if you need these very bytes"
    assert str(plain) == f"{ORIGIN}:latest was yanked by its publisher: {Reason.WRONG}"
    told = yanked(message="chapter two", replacement=f"{ORIGIN}:1.0.1")
    error = judge_cube(ask(attestations=[attest(), told])).error
    assert error.hint == f"use {ORIGIN}:1.0.1, or {plain.hint}"
    assert str(error).endswith(f": {Reason.WRONG}, chapter two; use {ORIGIN}:1.0.1")
    danger = judge_cube(ask(f"{ORIGIN}:1.0.0", attestations=[attest(), yanked(DANGEROUS)])).error
    assert danger.hint == "do not use it"


def test_a_tag_that_is_a_whole_version_is_not_remembered_as_one_that_moves() -> None:
    for tag, moving in (("", "latest"), (":latest", "latest"), (":1", "1"), (":1.0.0", None)):
        question = ask(f"{ORIGIN}{tag}")
        assert question.moving_tag == moving
        assert judge_cube(question).observation.tag == moving
    assert ask(f"{ORIGIN}:latest@{manifest().digest}").moving_tag is None


def test_no_rule_of_an_accepted_cube_is_left_out() -> None:
    for question in (ask(), ask(pins=accepted(ask())), ask(f"{ORIGIN}@{manifest().digest}")):
        verdict = judge_cube(question)
        assert [one.rule for one in verdict.rules if one.detail == "not reached"] == []


def test_what_a_policy_demands_and_finds_has_passed() -> None:
    kinds = ask(policy=Policy(default=Terms(media_types=(("x/*",),))))
    assert differing(kinds) == {"content": ("passed", None)}
    keys = (ALICE.public_key, MALLORY.public_key)
    both = tuple(sorted(key.id for key in keys))
    found = [about(release(publishers=both), key) for key in (ALICE, MALLORY)]
    terms = Terms(publishers=keys, threshold=2)
    assert differing(ask(attestations=found, policy=Policy(default=terms))) == {
        "publisher": ("passed", None),
        "threshold": ("passed", None),
    }
    shown = Terms(attestations=(Required(status.PREDICATE_TYPE),))
    exact = ask(f"{ORIGIN}:1.0.0", attestations=[attest(), yanked()], policy=Policy(default=shown))
    assert differing(exact) == {
        "attestations": ("passed", None),
        "status": ("warned", "release-yanked"),
    }


def test_any_publisher_of_the_policy_may_attest() -> None:
    terms = Terms(
        publishers=(MALLORY.public_key, ALICE.public_key),
        attestations=(Required(PREDICATE_TYPE),),
    )
    partner = about(release(), ALICE)
    assert results(ask(attestations=[partner], policy=Policy(default=terms)))["attestations"] == (
        ("passed", None)
    )
    kind = "https://scan.example/v1"
    bundle = bundles.sign(Statement("x", manifest().digest, kind, {}), MALLORY)
    made = referrer.write(bundle, kind, manifest().descriptor(), MALLORY.public_key)
    found = [attest(), Attestation(made, bundle.raw)]
    wanted = replace(terms, attestations=(Required(kind),))
    for publishers, outcome in ((terms.publishers, "passed"), (None, "failed")):
        policy = Policy(default=replace(wanted, publishers=publishers))
        assert results(ask(attestations=found, policy=policy))["attestations"][0] == outcome


@pytest.mark.parametrize("mode", Mode)
def test_knowledge_ages_and_comes_from_the_past(mode) -> None:
    day, second = timedelta(days=1), timedelta(seconds=1)
    policy = Policy(default=Terms(max_staleness=day))
    bad = "failed" if mode is Mode.ENFORCE else "warned"
    for known_at, expected in (
        (NOW, ("passed", None)),
        (NOW - day, ("passed", None)),
        (NOW - day - second, (bad, "stale")),
        (NOW + CLOCK_TOLERANCE, ("passed", None)),
        (NOW + CLOCK_TOLERANCE + second, (bad, "clock-set-back")),
    ):
        question = ask(policy=policy, known_at=known_at, mode=mode)
        assert results(question)["freshness"] == expected


@pytest.mark.parametrize(
    ("age", "text"),
    [
        (timedelta(0), "0 minutes"),
        (timedelta(seconds=59), "0 minutes"),
        (timedelta(minutes=119, seconds=59), "119 minutes"),
        (timedelta(hours=2), "2 hours"),
        (timedelta(hours=47, minutes=59), "47 hours"),
        (timedelta(days=2), "2 days"),
        (timedelta(days=9, hours=23), "9 days"),
    ],
)
def test_an_age_is_told_in_its_largest_unit(age, text) -> None:
    assert age_text(age) == text
