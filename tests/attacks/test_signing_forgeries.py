"""Forged, swapped, replayed and confused signatures: each is stopped, and by its own reason."""

from __future__ import annotations

import base64
import json
import time
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from memcube.trust import Attestation, Mode, Pins, Question, Standing, judge_cube, verify_cube
from memcube_protocol import canonical_json, media_types, oci
from memcube_protocol.errors import (
    InvalidJsonError,
    InvalidStatementError,
    LimitExceededError,
    MemcubeError,
    OriginMismatchError,
    PublisherChangedError,
    RollbackError,
    SignatureInvalidError,
    SignatureMissingError,
)
from memcube_protocol.reference import Reference
from memcube_signing import bundle as bundles
from memcube_signing.dsse import Envelope, Signature, pae
from memcube_signing.keys import PrivateKey
from memcube_signing.release import PREDICATE_TYPE, verify_release
from support.signing import (
    ALICE,
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
    signed,
    signed_payload,
)

SUBJECT = manifest().digest
KEYS = [ALICE.public_key]
FIRST = release()
SECOND = next_release(FIRST, "two")


def attest(said=FIRST, key=ALICE, text="one") -> Attestation:
    raw = signed_payload(said.to_statement().to_bytes(), key)
    return Attestation(attached(bundles.parse(raw), manifest(text), key), raw)


def ask(attestations, pins=Pins(), where=f"{ORIGIN}:latest", text="one", **more) -> Question:  # noqa: B008
    return Question(Reference.parse(where), manifest(text), attestations, pins, NOW, **more)


def used(*attestations: Attestation, where=f"{ORIGIN}:latest", text="one") -> Pins:
    verdict = verify_cube(ask(attestations, where=where, text=text))
    assert verdict.observation
    return Pins().recording(verdict.observation)


def refused(question: Question, error: type[MemcubeError], reason: str) -> None:
    """Stopped in both modes: `warn` is no way around an alarm."""
    for mode in Mode:
        verdict = judge_cube(replace(question, mode=mode))
        assert verdict.standing is Standing.REFUSED
        assert isinstance(verdict.error, error)
        assert getattr(verdict.error, "reason", verdict.error.code) == reason


def test_a_swapped_manifest_does_not_fit_the_signature():
    refused(ask([attest()], used(attest()), text="evil"), SignatureInvalidError, "wrong-subject")


def test_the_attackers_own_key_does_not_replace_the_pinned_one():
    forged = attest(release(MALLORY), MALLORY)
    refused(ask([forged], used(attest())), PublisherChangedError, "publisher-changed")


def test_the_attackers_key_in_the_annotation_does_not_verify_the_publishers_bundle():
    bundle = signed()
    offered = Attestation(attached(bundle, manifest(), MALLORY), bundle.raw)
    refused(ask([offered]), SignatureInvalidError, "unknown-key")
    assert verify_cube(ask([offered], used(attest()))).standing is Standing.TRUSTED


def test_the_attackers_key_under_the_publishers_id_does_not_verify():
    said = FIRST.to_statement().to_bytes()
    signature = Signature(MALLORY.sign(pae(media_types.IN_TOTO, said)))
    forged = bundles.write(Envelope(media_types.IN_TOTO, said, (signature,)), ALICE.public_key.id)
    attestation = Attestation(attached(forged, manifest()), forged.raw)
    refused(ask([attestation], used(attest())), SignatureInvalidError, "bad-signature")


def test_a_statement_claimed_by_another_key_is_refused_at_first_use():
    """Somebody re-signs the publisher's statement and offers an own key for it."""
    claimed = attest(FIRST, MALLORY)
    refused(ask([claimed]), SignatureInvalidError, "not-a-publisher")


def test_a_removed_signature_is_noticed():
    refused(ask([], used(attest())), SignatureMissingError, "signature-vanished")


def test_a_signature_hidden_behind_a_false_annotation_is_a_removed_one():
    whole = attest()
    raw = changed(whole.referrer.raw, "annotations", {media_types.BUNDLE_PREDICATE: "x"})
    hidden = Attestation(oci.parse_manifest(raw), whole.bundle)
    refused(ask([hidden], used(attest())), SignatureMissingError, "signature-vanished")


def test_an_older_release_behind_the_same_tag_is_a_replay():
    pins = used(attest(SECOND, text="two"), text="two")
    refused(ask([attest()], pins), RollbackError, "rollback")


def test_a_release_served_under_another_versions_tag_is_refused():
    question = ask([attest()], where=f"{ORIGIN}:2.0.0")
    refused(question, SignatureInvalidError, "version-mismatch")


def test_a_cube_of_another_name_is_refused_although_its_publisher_is_trusted():
    other = release(origin="registry.example/alice/other")
    refused(ask([attest(other)], used(attest())), OriginMismatchError, "origin-mismatch")
    refused(ask([attest(other)]), OriginMismatchError, "origin-mismatch")


@pytest.mark.parametrize("host", ["registry.example:5000", "registry.example.evil.example"])
def test_a_cube_of_another_registrys_name_is_refused(host):
    other = release(origin=f"{host}/alice/notes")
    refused(ask([attest(other)]), OriginMismatchError, "origin-mismatch")


def test_a_stolen_key_that_rewrites_a_version_is_noticed():
    rewritten = release(subject=manifest("evil").digest)
    question = ask([attest(rewritten, text="evil")], used(attest()), text="evil")
    refused(question, RollbackError, "history-forked")


def test_a_stolen_key_that_forks_the_history_is_noticed():
    forked = replace(SECOND, previous=OTHER)
    question = ask([attest(forked, text="two")], used(attest()), text="two")
    refused(question, RollbackError, "history-forked")


def test_flooding_with_foreign_signatures_hides_nothing():
    flood = [
        attest(release(key), key) for key in (MALLORY, EDDIE, *(PrivateKey.generate() for _ in range(20)))
    ]  # fmt: skip
    verdict = verify_cube(ask([*flood, attest(), *flood], used(attest())))
    assert verdict.publisher == ALICE.public_key


def test_another_predicate_over_the_same_manifest_is_no_release():
    payload = FIRST.to_statement().to_bytes().replace(PREDICATE_TYPE.encode(), b"https://x.y/z")
    with pytest.raises(SignatureInvalidError) as caught:
        verify_release(signed_payload(payload), keys=KEYS, subject=SUBJECT)
    assert caught.value.reason == "wrong-predicate-type"


def test_a_signature_over_another_payload_type_is_no_statement():
    payload = FIRST.to_statement().to_bytes()
    raw = signed_payload(payload, payload_type="application/vnd.memcube.licence")
    with pytest.raises(SignatureInvalidError):
        verify_release(raw, keys=KEYS, subject=SUBJECT)
    relabelled = changed(raw, "dsseEnvelope.payloadType", media_types.IN_TOTO)
    with pytest.raises(SignatureInvalidError) as caught:
        verify_release(relabelled, keys=KEYS, subject=SUBJECT)
    assert caught.value.reason == "bad-signature"


def test_a_signature_over_the_bare_payload_does_not_count():
    payload = FIRST.to_statement().to_bytes()
    envelope = Envelope(media_types.IN_TOTO, payload, (Signature(ALICE.sign(payload)),))
    raw = bundles.write(envelope, ALICE.public_key.id).raw
    with pytest.raises(SignatureInvalidError):
        verify_release(raw, keys=KEYS, subject=SUBJECT)


def test_an_rsa_key_offered_by_a_bundle_is_never_used():
    key = rsa.generate_private_key(65537, 2048)
    payload = FIRST.to_statement().to_bytes()
    value = key.sign(pae(media_types.IN_TOTO, payload), padding.PKCS1v15(), hashes.SHA256())
    spki = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    envelope = Envelope(media_types.IN_TOTO, payload, (Signature(value),))
    bundle = bundles.write(envelope, ALICE.public_key.id)
    document = json.loads(attached(bundle, manifest()).raw)
    document["annotations"][media_types.PUBLISHER_KEY] = base64.b64encode(spki).decode()
    offered = Attestation(oci.parse_manifest(canonical_json.dump(document)), bundle.raw)
    refused(ask([offered]), InvalidStatementError, "unsupported-algorithm")


@pytest.mark.parametrize("digest", [hashes.SHA1(), hashes.SHA384()], ids=["sha1", "sha384"])
def test_another_hash_under_the_right_key_does_not_count(digest):
    payload = FIRST.to_statement().to_bytes()
    private = ec.derive_private_key(0xA11CE, ec.SECP256R1())
    value = private.sign(pae(media_types.IN_TOTO, payload), ec.ECDSA(digest))
    envelope = Envelope(media_types.IN_TOTO, payload, (Signature(value),))
    with pytest.raises(SignatureInvalidError):
        verify_release(bundles.write(envelope, ALICE.public_key.id).raw, keys=KEYS, subject=SUBJECT)


def test_an_ed25519_signature_is_not_taken_for_an_ecdsa_one():
    raw = changed(signed(EDDIE).raw, "verificationMaterial.publicKey.hint", ALICE.public_key.id)
    with pytest.raises(SignatureInvalidError):
        verify_release(raw, keys=[ALICE.public_key, EDDIE.public_key], subject=SUBJECT)


def test_a_payload_is_verified_as_received_and_never_written_anew():
    spaced = json.dumps(json.loads(FIRST.to_statement().to_bytes()), indent=1).encode()
    raw = changed(signed().raw, "dsseEnvelope.payload", base64.b64encode(spaced).decode())
    with pytest.raises(SignatureInvalidError) as caught:
        verify_release(raw, keys=KEYS, subject=SUBJECT)
    assert caught.value.reason == "bad-signature"


@pytest.mark.parametrize("field", [b'"seq":1', b'"origin":"registry.example/alice/notes"'])
def test_a_field_that_stands_twice_is_refused_although_it_is_signed(field):
    payload = FIRST.to_statement().to_bytes().replace(field, field + b"," + field)
    with pytest.raises(InvalidJsonError):
        verify_release(signed_payload(payload), keys=KEYS, subject=SUBJECT)


def test_a_second_envelope_in_one_bundle_is_refused():
    evil = signed(MALLORY).raw
    raw = signed().raw[:-1] + b"," + evil[1:]
    with pytest.raises(InvalidJsonError):
        bundles.parse(raw)


def test_deep_and_large_bundles_are_refused_quickly():
    started = time.perf_counter()
    deep = b'{"mediaType":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    with pytest.raises(InvalidJsonError):
        bundles.parse(deep)
    with pytest.raises(LimitExceededError):
        bundles.parse(b'{"a":"' + b"x" * 3_000_000 + b'"}')
    many = {"sig": "AAAA", "keyid": ""}
    raw = changed(signed().raw, "dsseEnvelope.signatures", [many] * 20_000)
    with pytest.raises(InvalidStatementError):
        bundles.parse(raw)
    assert time.perf_counter() - started < 10


def test_a_look_alike_origin_is_no_origin():
    for name in ("registry.example/аlice/notes", "registry.example/alice/notes\u200b"):
        with pytest.raises(InvalidStatementError):
            release(origin=name)


def test_a_stranger_who_names_the_publisher_as_a_partner_is_a_rival_at_first_use():
    """Both keys signed: only a statement of each that names the other makes them partners."""
    both = tuple(sorted((ALICE.public_key.id, MALLORY.public_key.id)))
    newer = release(MALLORY, seq=2, previous=OTHER, publishers=both)
    for attestations in ([attest(), attest(newer, MALLORY)], [attest(newer, MALLORY), attest()]):
        refused(ask(attestations), SignatureInvalidError, "ambiguous-publisher")


def test_partners_who_name_each_other_are_no_rivals():
    both = tuple(sorted((ALICE.public_key.id, MALLORY.public_key.id)))
    said = release(publishers=both)
    assert verify_cube(ask([attest(said), attest(said, MALLORY)])).standing is Standing.FIRST_USE
