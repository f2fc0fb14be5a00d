"""Bundles: what they may hold, and what a verifier demands of them."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from memcube_protocol import limits, media_types
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    InvalidStatementError,
    LimitExceededError,
    MemcubeError,
    SignatureInvalidError,
)
from memcube_signing import bundle as bundles
from memcube_signing.bundle import Policy
from memcube_signing.keys import Algorithm
from memcube_signing.release import PREDICATE_TYPE
from support.signing import ALICE, EDDIE, MALLORY, changed, release, signed, signed_payload

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
RAW = signed().raw
SUBJECT = release().subject
MATERIAL = {"publicKey": {"hint": ALICE.public_key.id}}


def policy(**changes) -> Policy:
    whole = {"keys": [ALICE.public_key], "predicate_type": PREDICATE_TYPE, "subject": SUBJECT}
    return Policy(**(whole | changes))


def refused(raw: bytes, reason: str = "malformed-bundle") -> None:
    with pytest.raises(InvalidStatementError) as caught:
        bundles.parse(raw)
    assert caught.value.reason == reason
    assert caught.value.hint


def untrusted(raw: bytes, reason: str, **changes) -> None:
    with pytest.raises(SignatureInvalidError) as caught:
        bundles.verify(bundles.parse(raw), policy(**changes))
    assert caught.value.reason == reason
    assert caught.value.hint


def test_a_bundle_is_verified_against_what_is_demanded():
    said, key = bundles.verify(bundles.parse(RAW), policy())
    assert (said.subject, said.predicate_type, key) == (SUBJECT, PREDICATE_TYPE, ALICE.public_key)


@pytest.mark.parametrize(
    "kind", [..., None, "", "a", "z", media_types.SIGSTORE_BUNDLE.replace("0.3", "0.2")]
)
def test_another_type_of_bundle_is_refused(kind):
    refused(changed(RAW, "mediaType", kind), "wrong-bundle-type")


def test_a_bundle_signs_a_statement_once():
    refused(changed(RAW, "messageSignature", {}), "not-a-statement")
    refused(changed(RAW, "else", {}), "unknown-field")
    both = [{"sig": "AA=="}, {"sig": "AA=="}]
    refused(changed(RAW, "dsseEnvelope.signatures", both), "several-signatures")
    refused(changed(RAW, "dsseEnvelope.signatures", []), "no-signature")


@pytest.mark.parametrize("field", ["certificate", "x509CertificateChain"])
def test_a_bundle_with_a_certificate_is_refused(field):
    for material in ({field: {}}, MATERIAL | {field: {}}):
        refused(changed(RAW, "verificationMaterial", material), "has-certificate")


@pytest.mark.parametrize("material", [..., None, [], "x", {}, {"publicKey": []}])
def test_a_bundle_names_its_key(material):
    refused(changed(RAW, "verificationMaterial", material), "malformed-envelope")


@pytest.mark.parametrize("entries", [None, {}, "x", ["x"], [{}, "x"], ["x", {}], [[]]])
def test_log_entries_are_objects_in_a_list(entries):
    refused(changed(RAW, "verificationMaterial.tlogEntries", entries))


@pytest.mark.parametrize("timestamps", [[], "x", 7, False])
def test_timestamps_are_an_object_or_none(timestamps):
    refused(changed(RAW, "verificationMaterial.timestampVerificationData", timestamps))
    for fine in (None, {}, {"rfc3161Timestamps": []}):
        raw = changed(RAW, "verificationMaterial.timestampVerificationData", fine)
        assert bundles.parse(raw).timestamps == fine


def test_a_bundle_has_up_to_two_mebibytes():
    entries = "verificationMaterial.tlogEntries"
    spare = limits.BUNDLE_BYTES - len(changed(RAW, entries, [{"a": ""}]))
    most = changed(RAW, entries, [{"a": "x" * spare}])
    assert len(most) == limits.BUNDLE_BYTES
    assert bundles.parse(most).log_entries
    with pytest.raises(LimitExceededError):
        bundles.parse(changed(RAW, entries, [{"a": "x" * (spare + 1)}]))


@pytest.mark.parametrize("kind", ["a", "z", media_types.IN_TOTO + "2"])
def test_another_type_of_payload_is_refused_although_it_is_signed(kind):
    payload = release().to_statement().to_bytes()
    untrusted(signed_payload(payload, payload_type=kind), "wrong-payload-type")


@pytest.mark.parametrize("kind", ["a", "z", PREDICATE_TYPE + "2", PREDICATE_TYPE[:-1]])
def test_another_predicate_is_refused(kind):
    untrusted(RAW, "wrong-predicate-type", predicate_type=kind)


@pytest.mark.parametrize("text", [b"a", b"b", b"c", b"d", b"e", b"f", b"g", b"h"])
def test_another_subject_is_refused(text):
    untrusted(RAW, "wrong-subject", subject=Digest.of(text))
    untrusted(RAW, "wrong-subject", subject=Digest.of(text, "sha512"))


def test_a_key_that_is_not_accepted_is_refused():
    untrusted(RAW, "unknown-key", keys=[MALLORY.public_key])
    untrusted(RAW, "unknown-key", keys=[])
    untrusted(RAW, "forbidden-algorithm", algorithms=frozenset({Algorithm.ED25519}))
    assert bundles.verify(bundles.parse(RAW), policy(keys=[EDDIE.public_key, ALICE.public_key]))
    assert bundles.verify(
        bundles.parse(RAW), policy(algorithms=frozenset({Algorithm.ECDSA_P256_SHA256}))
    )


def test_the_envelope_names_no_other_key_than_the_bundle():
    def named(key_id: str) -> bytes:
        return changed(RAW, "dsseEnvelope.signatures.0.keyid", key_id)

    for right in ("", ALICE.public_key.id):
        assert bundles.verify(bundles.parse(named(right)), policy())
    for wrong in ("a", "z" * 64, MALLORY.public_key.id):
        untrusted(named(wrong), "hint-mismatch")


def test_a_key_is_named_by_its_id_or_where_it_is_wanted_by_its_pem():
    by_pem = changed(RAW, "verificationMaterial.publicKey.hint", ALICE.public_key.pem_id)
    assert bundles.verify(bundles.parse(by_pem), policy(pem_hint=True))
    untrusted(by_pem, "unknown-key")
    untrusted(RAW, "unknown-key", pem_hint=True)


def test_the_other_form_of_a_signature_counts_only_where_it_is_let():
    r, s = decode_dss_signature(signed().signature.value)
    other = base64.b64encode(encode_dss_signature(r, ORDER - s)).decode()
    raw = changed(RAW, "dsseEnvelope.signatures.0.sig", other)
    untrusted(raw, "malleable-signature")
    assert bundles.verify(bundles.parse(raw), policy(canonical_only=False))


def test_a_signature_covers_the_payload_and_its_type():
    payload = base64.b64encode(release(licence="MIT").to_statement().to_bytes()).decode()
    for raw in (
        changed(RAW, "dsseEnvelope.payload", payload),
        changed(RAW, "dsseEnvelope.signatures.0.sig", "MAYCAQECAQE="),
    ):
        with pytest.raises(MemcubeError):
            bundles.verify(bundles.parse(raw), policy())
