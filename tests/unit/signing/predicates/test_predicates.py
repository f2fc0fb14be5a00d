"""Every kind of attestation says what it was made from, and refuses what breaks its rules."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memcube_protocol import canonical_json
from memcube_protocol.digest import Digest
from memcube_protocol.errors import InvalidStatementError, MemcubeError, SignatureInvalidError
from memcube_signing import bundle as bundles
from memcube_signing.predicates import attest, countersignature, provenance, scan, status, verify
from memcube_signing.predicates.countersignature import Countersignature, countersign
from memcube_signing.predicates.provenance import Dependency, Provenance
from memcube_signing.predicates.scan import Finding, Scan
from memcube_signing.predicates.status import Reason, State, Status, current
from support.signing import ALICE, CREATED, MALLORY, ORIGIN, manifest, signed_payload

SUBJECT = manifest().digest
FINDING = Finding("secrets", "aws-access-key", "high", "plaintext/a.jsonl", "record r-1")

SUMMARY = Countersignature(
    subject=SUBJECT,
    resource=ORIGIN,
    verifier="https://registry.example",
    verified_at=CREATED,
    policy="https://registry.example/policies/publish",
    policy_digest=Digest.of(b"rules"),
    inputs=(Digest.of(b"release"),),
)
BUILT = Provenance(
    subject=SUBJECT,
    name=ORIGIN,
    build_type=provenance.BUILD_TYPES["activation"],
    recipe={"memory": "intro", "dtype": "bfloat16"},
    dependencies=(
        Dependency(f"oci://{ORIGIN}", SUBJECT, "parent cube"),
        Dependency("pkg:huggingface/qwen/qwen3-0.6b"),
    ),
    builder="https://memcube.org/dumper/v1",
    builder_version={"memcube": "0.1.0"},
    started_at=CREATED,
    finished_at=CREATED,
    internal={"device": "cpu"},
)
SCANNED = Scan(
    subject=SUBJECT,
    name=ORIGIN,
    scanner="memcube",
    scanner_version="0.1.0",
    rules_version="2026.11",
    scanned_at=CREATED,
    checks=("secrets", "unsafe-files"),
    findings=(FINDING,),
    counts={"secrets": 1, "unsafe-files": 0},
)
YANKED = Status(
    subject=SUBJECT,
    origin=ORIGIN,
    version="1.0.0",
    state=State.YANKED,
    reason=Reason.WRONG,
    stated_at=CREATED,
    message="the figures of chapter two are wrong",
    replacement=f"{ORIGIN}:1.0.1",
)
CASES: list[Any] = [
    pytest.param(SUMMARY, countersignature.KIND, id="countersignature"),
    pytest.param(BUILT, provenance.KIND, id="provenance"),
    pytest.param(SCANNED, scan.KIND, id="scan"),
    pytest.param(YANKED, status.KIND, id="status"),
]
EACH = pytest.mark.parametrize(("value", "kind"), CASES)


def predicate_changed(value: Any, change: dict[str, Any]) -> bytes:
    statement = json.loads(value.to_statement().to_bytes())
    statement["predicate"] |= change
    return signed_payload(canonical_json.dump(statement))


@EACH
class TestEveryKind:
    def test_reads_back_what_was_signed(self, value, kind):
        keys = [ALICE.public_key]
        read = verify(attest(value, ALICE).raw, kind, keys=keys, subject=SUBJECT)
        assert (read.value, read.key) == (value, ALICE.public_key)

    def test_refuses_another_key(self, value, kind):
        with pytest.raises(SignatureInvalidError):
            verify(attest(value, MALLORY).raw, kind, keys=[ALICE.public_key], subject=SUBJECT)

    def test_refuses_another_subject(self, value, kind):
        other = manifest("two").digest
        with pytest.raises(SignatureInvalidError):
            verify(attest(value, ALICE).raw, kind, keys=[ALICE.public_key], subject=other)

    def test_refuses_to_be_read_as_another_kind(self, value, kind):
        others = [case.values[1] for case in CASES if case.values[1] is not kind]
        for other in others:
            with pytest.raises(SignatureInvalidError) as caught:
                verify(attest(value, ALICE).raw, other, keys=[ALICE.public_key], subject=SUBJECT)
            assert caught.value.reason == "wrong-predicate-type"

    def test_no_field_of_its_predicate_can_be_of_another_type(self, value, kind):
        for name in value.to_statement().predicate:
            raw = predicate_changed(value, {name: 7.5})
            with pytest.raises(MemcubeError):
                verify(raw, kind, keys=[ALICE.public_key], subject=SUBJECT)

    @settings(max_examples=25, deadline=None)
    @given(data=st.data())
    def test_no_json_crashes_the_reader(self, value, kind, data):
        scalars = st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=8)
        tree = st.recursive(
            scalars,
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["uri", "id", "digest", "sha256", "x"]), inner)
            ),
            max_leaves=6,
        )
        name = data.draw(st.sampled_from(sorted(value.to_statement().predicate)))
        raw = predicate_changed(value, {name: data.draw(tree)})
        with suppress(MemcubeError):
            verify(raw, kind, keys=[ALICE.public_key], subject=SUBJECT)


@pytest.mark.parametrize("value", [SCANNED, YANKED], ids=["scan", "status"])
def test_predicates_of_our_own_refuse_fields_that_they_do_not_know(value):
    kind = scan.KIND if value is SCANNED else status.KIND
    raw = predicate_changed(value, {"severityOverride": "none"})
    with pytest.raises(InvalidStatementError) as caught:
        verify(raw, kind, keys=[ALICE.public_key], subject=SUBJECT)
    assert caught.value.reason == "unknown-field"


@pytest.mark.parametrize("value", [SUMMARY, BUILT], ids=["summary", "provenance"])
def test_predicates_of_slsa_ignore_fields_that_they_do_not_know(value):
    kind = countersignature.KIND if value is SUMMARY else provenance.KIND
    raw = predicate_changed(value, {"dependencyLevels": {"SLSA_BUILD_LEVEL_1": 2}})
    assert verify(raw, kind, keys=[ALICE.public_key], subject=SUBJECT).value == value


def test_a_countersignature_can_say_that_the_check_failed():
    failed = replace(SUMMARY, passed=False)
    raw = countersign(failed, ALICE).raw
    read = verify(raw, countersignature.KIND, keys=[ALICE.public_key], subject=SUBJECT)
    assert not read.value.passed


class TestScan:
    def test_holds_no_finding_of_a_check_that_did_not_run(self):
        with pytest.raises(InvalidStatementError):
            replace(SCANNED, checks=("unsafe-files",), counts={"unsafe-files": 0})

    def test_counts_no_fewer_findings_than_it_holds(self):
        with pytest.raises(InvalidStatementError):
            replace(SCANNED, counts={"secrets": 0, "unsafe-files": 0})

    def test_tells_the_worst_finding(self):
        low = replace(FINDING, severity="low")
        found = replace(SCANNED, findings=(low, FINDING), counts={"secrets": 2, "unsafe-files": 0})
        assert found.worst == "high"
        assert replace(SCANNED, findings=()).worst is None


class TestStatus:
    def test_the_latest_counts(self):
        later = datetime(2026, 3, 1, tzinfo=UTC)
        back = replace(YANKED, state=State.ACTIVE, stated_at=later)
        assert current([back, YANKED]) == back
        assert current([]) is None

    def test_of_two_at_once_the_stricter_counts(self):
        milder = replace(YANKED, state=State.DEPRECATED)
        assert current([YANKED, milder]) == current([milder, YANKED]) == YANKED

    @pytest.mark.parametrize("message", ["", "two\nlines", "\u202eleft", "x" * 501])
    def test_its_message_is_a_line_that_shows_as_it_reads(self, message):
        with pytest.raises(InvalidStatementError):
            replace(YANKED, message=message)

    def test_its_name_is_the_origin(self):
        said = YANKED.to_statement()
        with pytest.raises(InvalidStatementError):
            status.read(replace(said, name="registry.example/mallory/notes"))


def test_a_bundle_that_names_its_key_by_pem_is_only_taken_where_that_is_asked_for():
    raw = bundles.sign(SCANNED.to_statement(), ALICE, hint=ALICE.public_key.pem_id).raw
    with pytest.raises(SignatureInvalidError) as caught:
        verify(raw, scan.KIND, keys=[ALICE.public_key], subject=SUBJECT)
    assert caught.value.reason == "unknown-key"
