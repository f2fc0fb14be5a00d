"""What the publisher says of a release afterwards decides, and nobody else can say it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from memcube.trust import Attestation, Mode, Question, Standing, judge_cube
from memcube.trust.attested import Claim, statements_of, values_of
from memcube.trust.pins import Pins
from memcube_protocol import media_types, oci
from memcube_protocol.digest import Digest
from memcube_protocol.errors import SignatureMissingError, YankedError
from memcube_protocol.reference import Reference
from memcube_signing import bundle as bundles
from memcube_signing import referrer
from memcube_signing.bundle import Bundle
from memcube_signing.predicates import attest, countersignature, status
from memcube_signing.predicates.countersignature import Countersignature
from memcube_signing.predicates.status import Reason, State, Status
from memcube_signing.release import PREDICATE_TYPE
from memcube_signing.statement import Statement
from support.signing import ALICE, CREATED, MALLORY, NOW, ORIGIN, manifest, release, signed

YANKED = Status(
    subject=manifest().digest,
    origin=ORIGIN,
    version="1.0.0",
    state=State.YANKED,
    reason=Reason.WRONG,
    stated_at=CREATED,
    message="chapter two",
    replacement=f"{ORIGIN}:1.0.1",
)


def carried(bundle: Bundle, predicate_type: str, key: Any = ALICE) -> Attestation:
    subject = oci.Descriptor(media_types.OCI_MANIFEST, manifest().digest, 1)
    return Attestation(referrer.write(bundle, predicate_type, subject, key.public_key), bundle.raw)


RELEASE = carried(signed(), PREDICATE_TYPE)


def said(value: Status = YANKED, key: Any = ALICE, **changes: Any) -> Attestation:
    return carried(attest(replace(value, **changes), key), status.PREDICATE_TYPE, key)


def judge(*attestations: Attestation, tag: str = "latest", mode: Mode = Mode.ENFORCE):
    reference = Reference.parse(f"{ORIGIN}:{tag}" if ":" not in tag else f"{ORIGIN}@{tag}")
    question = Question(reference, manifest(), attestations, Pins(), NOW, mode=mode)
    verdict = judge_cube(question)
    return verdict, next((rule for rule in verdict.rules if rule.rule == "status"), None)


def test_a_yanked_release_is_refused_through_a_moving_tag():
    verdict, rule = judge(RELEASE, said())
    assert isinstance(verdict.error, YankedError)
    assert rule.reason == "release-yanked"
    assert "chapter two" in str(verdict.error)
    assert f"{ORIGIN}:1.0.1" in verdict.error.hint


@pytest.mark.parametrize("tag", ["1.0.0", str(manifest().digest)])
def test_who_asks_for_these_very_bytes_gets_them_with_a_warning(tag):
    verdict, rule = judge(RELEASE, said(), tag=tag)
    assert verdict.error is None
    assert rule.reason == "release-yanked"
    assert verdict.warnings


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason.is_dangerous])
def test_a_dangerous_release_is_refused_however_it_is_asked_for(reason):
    verdict, _ = judge(RELEASE, said(reason=reason), tag="1.0.0")
    assert isinstance(verdict.error, YankedError)
    verdict, _ = judge(RELEASE, said(reason=reason), tag="1.0.0", mode=Mode.WARN)
    assert verdict.error is None


def test_a_deprecated_release_warns():
    verdict, rule = judge(RELEASE, said(state=State.DEPRECATED))
    assert verdict.error is None
    assert rule.reason == "release-deprecated"


def test_a_later_statement_takes_it_back():
    later = said(state=State.ACTIVE, stated_at=CREATED + timedelta(seconds=1))
    verdict, rule = judge(RELEASE, said(), later)
    assert verdict.error is None
    assert rule.reason is None


@pytest.mark.parametrize(
    "stranger",
    [
        said(key=MALLORY),
        said(version="2.0.0"),
        said(version="0.9.0"),
        said(origin="registry.example/mallory/notes"),
        said(origin="registry.example/alice/a"),
        said(subject=manifest("two").digest),
    ],
    ids=[
        *("another key", "a later version", "an earlier version", "another origin"),
        *("another name", "another manifest"),
    ],
)
def test_nobody_withdraws_what_is_not_theirs(stranger):
    verdict, rule = judge(RELEASE, stranger)
    assert verdict.error is None
    assert rule.reason is None


def test_nobody_else_takes_a_yank_back():
    later = said(key=MALLORY, state=State.ACTIVE, stated_at=CREATED + timedelta(days=1))
    verdict, _ = judge(RELEASE, said(), later)
    assert isinstance(verdict.error, YankedError)


def test_a_countersignature_stands_in_for_no_release():
    summary = Countersignature(
        subject=manifest().digest,
        resource=ORIGIN,
        verifier="https://registry.example",
        verified_at=CREATED,
        policy="https://registry.example/policies/publish",
        policy_digest=Digest.of(b"rules"),
        inputs=(),
    )
    only = carried(attest(summary, ALICE), countersignature.PREDICATE_TYPE)
    verdict, _ = judge(only)
    assert isinstance(verdict.error, SignatureMissingError)
    claimed = carried(attest(summary, ALICE), PREDICATE_TYPE)
    assert judge(claimed)[0].standing is Standing.REFUSED


class TestStatements:
    def test_each_is_verified_or_says_why_it_does_not_count(self):
        found = [RELEASE, said(), said(key=MALLORY)]
        claims = statements_of(manifest(), found, judge(RELEASE)[0])
        assert [(claim.name, claim.why) for claim in claims] == [
            ("release", None),
            ("status", None),
            ("status", "unknown-key"),
        ]

    def test_what_cannot_be_read_is_shown_so(self):
        broken = Attestation(RELEASE.referrer, b"{}")
        (claim,) = statements_of(manifest(), [broken], judge(RELEASE)[0])
        assert (claim.predicate_type, claim.key) == ("unreadable", None)
        assert claim.why == "wrong-bundle-type"
        broken = Attestation(RELEASE.referrer, b"{")
        (claim,) = statements_of(manifest(), [broken], judge(RELEASE)[0])
        assert claim.why == "invalid-json"

    def test_each_is_called_by_the_name_that_people_know(self):
        kinds = {
            "https://memcube.org/release/v1": "release",
            "https://model_signing/signature/v1.0": "model-signature",
            "https://slsa.dev/verification_summary/v1": "countersignature",
            "https://slsa.dev/provenance/v1": "provenance",
            "https://memcube.org/scan/v1": "scan",
            "https://memcube.org/status/v1": "status",
            "https://x.y/z": "https://x.y/z",
        }
        assert {kind: Claim(kind).name for kind in kinds} == kinds

    def test_each_is_read_as_what_it_is(self):
        kinds = ("https://a.b/c", "https://x.y/z")
        others = [Statement("x", manifest().digest, kind, {"a": 1}) for kind in kinds]
        found = [carried(bundles.sign(one, ALICE), one.predicate_type) for one in others]
        claims = statements_of(manifest(), [RELEASE, said(), *found], judge(RELEASE)[0])
        assert [claim.why for claim in claims] == [None] * 4
        assert [claim.name for claim in claims] == ["release", "status", *kinds]
        assert [claim.value for claim in claims] == [release(), YANKED, *others]

    def test_values_of_another_key_are_passed_over(self):
        found = values_of(
            status.KIND, [said(key=MALLORY), said()], manifest().digest, [ALICE.public_key]
        )
        assert [one.value for one in found] == [YANKED]
