"""The rule about countersignatures: by the registry's key from policy or first use, about this release."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from memcube.provenance.telling import what_is_said
from memcube.trust import (
    Acceptance,
    Attestation,
    Mode,
    Outcome,
    Pins,
    Question,
    Standing,
    judge_cube,
)
from memcube.trust.attested import statements_of
from memcube.trust.log_state import KnownLog, Logs, advanced
from memcube.trust.policy import LogDemand, Policy, Terms
from memcube.trust.policy_file import parse
from memcube_protocol.digest import Digest
from memcube_protocol.errors import InvalidPolicyError, PolicyRefusedError, SignatureMissingError
from memcube_protocol.reference import Reference
from memcube_signing import referrer
from memcube_signing.bundle import Bundle
from memcube_signing.keys import PrivateKey
from memcube_signing.predicates import attest
from memcube_signing.predicates.countersignature import (
    LEVEL,
    LEVEL_LOGGED,
    PREDICATE_TYPE,
    Countersignature,
    LogPlace,
)
from memcube_signing.release import CLOCK_TOLERANCE, sign_release
from memcube_signing.release import PREDICATE_TYPE as RELEASE
from support.log import Log, signer
from support.signing import ALICE, CREATED, MALLORY, NOW, ORIGIN, manifest, release

REGISTRY = PrivateKey(ec.derive_private_key(0x5E61, ec.SECP256R1()))
HOST = ORIGIN.partition("/")[0]
LOG = Log()
BUNDLE = LOG.logged(sign_release(release(), ALICE), ALICE.public_key)
SUMMARY = Countersignature(
    subject=manifest().digest,
    resource=ORIGIN,
    verifier=f"https://{HOST}",
    verified_at=CREATED,
    policy=f"https://{HOST}/rules",
    policy_digest=Digest.of(b"rules"),
    inputs=(BUNDLE.digest,),
    levels=(LEVEL, LEVEL_LOGGED),
    publishers=(ALICE.public_key.id,),
    log=LogPlace(HOST, 0),
)


def carried(bundle: Bundle, kind: str, key: PrivateKey) -> Attestation:
    about = referrer.write(bundle, kind, manifest().descriptor(), key.public_key)
    return Attestation(about, bundle.raw)


RELEASED = carried(BUNDLE, RELEASE, ALICE)


def said(
    value: Countersignature = SUMMARY,
    key: PrivateKey = REGISTRY,
    log: Log | None = LOG,
    **changes: Any,
) -> Attestation:
    bundle = attest(replace(value, **changes), key)
    if log is not None:
        bundle = log.logged(bundle, key.public_key)
    return carried(bundle, PREDICATE_TYPE, key)


def known(key: PrivateKey | None = REGISTRY) -> Logs:
    log = advanced(None, LOG.key, LOG.note(), (), NOW)
    return Logs({HOST: replace(log, registry_key=key.public_key if key else None)})


def ask(
    *found: Attestation,
    demand: LogDemand = LogDemand.REQUIRED,
    logs: Logs | None = None,
    name: str = ORIGIN,
    **more: Any,
) -> Question:
    more.setdefault("policy", Policy(default=Terms(countersignature=demand)))
    return Question(
        Reference.parse(f"{name}:latest"),
        manifest(),
        found,
        Pins(),
        NOW,
        logs=known() if logs is None else logs,
        **more,
    )


def outcome(question: Question) -> tuple[Outcome, str | None]:
    verdict = judge_cube(question)
    one = next(rule for rule in verdict.rules if rule.rule == "countersignature")
    return one.outcome, one.reason


def refused(question: Question, reason: str) -> None:
    assert outcome(question) == (Outcome.FAILED, reason)
    error = judge_cube(question).error
    assert isinstance(error, PolicyRefusedError)
    assert error.hint
    assert outcome(replace(question, mode=Mode.WARN)) == (Outcome.WARNED, reason)


def test_the_registrys_word_about_this_release_counts():
    verdict = judge_cube(ask(RELEASED, said()))
    assert verdict.error is None
    assert outcome(ask(RELEASED, said())) == (Outcome.PASSED, None)


def test_a_policy_that_demands_it_refuses_without():
    refused(ask(RELEASED), "countersignature-missing")


def test_without_such_a_policy_none_is_needed():
    assert outcome(ask(RELEASED, demand=LogDemand.OFFERED)) == (Outcome.SKIPPED, None)
    assert outcome(ask(RELEASED, said(), demand=LogDemand.OFF)) == (Outcome.SKIPPED, None)


class TestForged:
    def test_by_another_key(self):
        refused(ask(RELEASED, said(key=MALLORY)), "unknown-key")
        refused(ask(RELEASED, said(key=ALICE)), "unknown-key")

    def test_about_another_manifest(self):
        refused(ask(RELEASED, said(subject=manifest("two").digest)), "wrong-subject")

    def test_replayed_onto_another_name(self):
        for name in ("mallory/notes", "alice/a"):
            copied = said(resource=f"{HOST}/{name}")
            refused(ask(RELEASED, copied), "countersignature-of-another-name")

    def test_about_another_release_of_the_same_bytes(self):
        refused(
            ask(RELEASED, said(inputs=(Digest.of(b"other"),))),
            "countersignature-of-another-release",
        )

    def test_that_says_the_check_failed(self):
        refused(ask(RELEASED, said(passed=False)), "countersignature-failed")
        refused(ask(RELEASED, said(levels=("SLSA_BUILD_LEVEL_3",))), "countersignature-failed")

    def test_from_the_future(self):
        latest = NOW + CLOCK_TOLERANCE
        assert outcome(ask(RELEASED, said(verified_at=latest)))[0] is Outcome.PASSED
        later = said(verified_at=latest + timedelta(seconds=1))
        refused(ask(RELEASED, later), "not-yet-valid")

    def test_that_is_in_no_log_or_in_another(self):
        refused(ask(RELEASED, said(log=None)), "log-entry-missing")
        refused(ask(RELEASED, said(log=Log(signer=signer(8)))), "log-unknown")

    def test_is_in_no_log_where_none_is_known_or_asked_for(self):
        bare = said(log=None)
        named = Policy(
            default=Terms(countersignature=LogDemand.REQUIRED),
            registries={HOST: REGISTRY.public_key},
        )
        assert outcome(ask(RELEASED, bare, logs=Logs(), policy=named)) == (Outcome.PASSED, None)
        off = Policy(default=Terms(countersignature=LogDemand.REQUIRED, log=LogDemand.OFF))
        assert outcome(ask(RELEASED, bare, policy=off)) == (Outcome.PASSED, None)

    def test_of_several_the_first_is_told(self):
        forged = said(key=MALLORY), said(resource=f"{HOST}/mallory/notes")
        refused(ask(RELEASED, *forged), "unknown-key")
        refused(ask(RELEASED, *forged[::-1]), "countersignature-of-another-name")

    def test_is_told_of_where_none_is_demanded(self):
        question = ask(RELEASED, said(key=MALLORY), demand=LogDemand.OFFERED)
        assert outcome(question) == (Outcome.WARNED, "unknown-key")
        assert judge_cube(question).error is None

    def test_beside_the_right_one_takes_nothing_away(self):
        assert outcome(ask(RELEASED, said(key=MALLORY), said())) == (Outcome.PASSED, None)
        unreadable = replace(RELEASED, bundle=b"{}")
        assert outcome(ask(unreadable, RELEASED, said())) == (Outcome.PASSED, None)


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("key", [REGISTRY, MALLORY], ids=["registry", "anybody"])
def test_without_a_publishers_signature_it_is_refused_in_both_modes(mode, key):
    verdict = judge_cube(ask(said(key=key), mode=mode, demand=LogDemand.OFFERED))
    assert verdict.standing is Standing.REFUSED
    assert isinstance(verdict.error, SignatureMissingError)
    assert verdict.error.reason == "countersignature-without-release"


class TestWhichKey:
    def test_the_one_that_was_met_first(self):
        refused(ask(RELEASED, said(), logs=known(MALLORY)), "unknown-key")

    def test_none_is_known(self):
        refused(ask(RELEASED, said(), logs=known(None)), "registry-key-unknown")
        question = ask(RELEASED, said(), logs=known(None), demand=LogDemand.OFFERED)
        assert outcome(question) == (Outcome.SKIPPED, None)

    def test_the_policys_goes_before(self):
        terms = Terms(countersignature=LogDemand.REQUIRED)
        named = Policy(default=terms, registries={HOST: REGISTRY.public_key})
        assert outcome(ask(RELEASED, said(), logs=known(MALLORY), policy=named))[0] == "passed"
        other = Policy(default=terms, registries={HOST: MALLORY.public_key})
        refused(ask(RELEASED, said(), policy=other), "unknown-key")

    def test_the_organisations_goes_before_the_users(self):
        terms = Terms(countersignature=LogDemand.REQUIRED)
        above = Policy(registries={HOST: REGISTRY.public_key})
        below = Policy(default=terms, registries={HOST: MALLORY.public_key}, above=above)
        assert outcome(ask(RELEASED, said(), policy=below)) == (Outcome.PASSED, None)

    def test_a_copy_is_judged_by_the_origins_registry(self):
        question = ask(RELEASED, said(), name="mirror.example/alice/notes")
        accepted = replace(question, accept=replace(question.accept, origin=ORIGIN))
        assert outcome(accepted) == (Outcome.PASSED, None)


class TestPolicyFile:
    def test_names_registries_by_host_and_demands_by_scope(self):
        policy = parse(
            f'''format = 1
[registries]
"{HOST}" = """
{REGISTRY.public_key.to_pem()}"""
[default]
countersignature = "required"
'''.encode()
        )
        assert policy.registry_key_of(HOST) == REGISTRY.public_key
        assert policy.terms_of(ORIGIN).countersignature is LogDemand.REQUIRED

    @pytest.mark.parametrize("word", ["sometimes", 1])
    def test_refuses_other_words(self, word):
        with pytest.raises(InvalidPolicyError):
            parse(f"format = 1\n[default]\ncountersignature = {word!r}\n".encode())

    def test_of_two_scopes_the_stricter_counts(self):
        one = Terms("a/b/**", countersignature=LogDemand.REQUIRED)
        assert Terms("c/d/**").joined(one).countersignature is LogDemand.REQUIRED


class TestShown:
    def test_the_registrys_counts_and_others_do_not(self):
        found = [RELEASED, said(), said(key=ALICE), said(resource=f"{HOST}/mallory/notes")]
        claims = statements_of(manifest(), found, judge_cube(ask(*found)))
        assert [(one.name, one.why) for one in claims] == [
            ("release", None),
            ("countersignature", None),
            ("countersignature", "unknown-key"),
            ("countersignature", "countersignature-of-another-name"),
        ]
        assert "verified it at 2026-01-31 12:00 UTC, entry 0 of" in what_is_said(claims[1])

    def test_with_a_copy_the_one_about_its_origin_counts(self):
        copy = "mirror.example/copies/notes"
        found = [RELEASED, said(), said(resource=copy)]
        accepting = ask(*found, name=copy, accept=Acceptance(origin=ORIGIN))
        claims = statements_of(manifest(), found, judge_cube(accepting))
        assert [one.why for one in claims] == [None, None, "countersignature-of-another-name"]

    def test_the_registrys_key_makes_nothing_else_count(self):
        bundle = attest(SUMMARY, REGISTRY)
        by_registry = carried(sign_release(release(REGISTRY), REGISTRY), RELEASE, REGISTRY)
        found = [RELEASED, by_registry, carried(bundle, PREDICATE_TYPE, REGISTRY)]
        verdict = judge_cube(ask(RELEASED, demand=LogDemand.OFFERED))
        claims = statements_of(manifest(), found, verdict)
        assert [one.why for one in claims] == [None, "unknown-key", None]


class TestRemembered:
    def test_the_key_is_kept_with_the_log(self):
        from memcube.trust.log_state import parse as parse_logs

        logs = known()
        assert parse_logs(logs.to_bytes()) == logs
        bare = known(None)
        assert parse_logs(bare.to_bytes()) == bare

    def test_a_log_that_grows_keeps_it(self):
        before = known().of(HOST)
        assert isinstance(before, KnownLog)
        after = advanced(before, LOG.key, LOG.note(), LOG.proof(before.state.size), NOW)
        assert after.registry_key == REGISTRY.public_key
