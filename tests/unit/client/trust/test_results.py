"""What each rule says of a cube: its name, outcome and reason, as scripts read them."""

from __future__ import annotations

import pytest
from memcube.trust import Acceptance, Attestation, Mode, Pins, Question, Scope, judge_cube
from memcube.trust.policy import LogDemand, Policy, Required, Terms
from memcube_protocol.reference import Reference
from memcube_signing import referrer
from memcube_signing.release import PREDICATE_TYPE, sign_release
from support.signing import ALICE, MALLORY, NOW, ORIGIN, manifest, release

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
    only_now = Pins(pins.origins, {ORIGIN: type(place)(place.origin, {"latest": 1})})
    assert results(ask(pins=only_now, mode=mode))["history"] == ("passed", None)
