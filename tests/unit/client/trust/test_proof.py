"""Proof files: one canonical form, whose parts belong together."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memcube.trust import Attestation
from memcube.trust.proof import Proof, parse
from memcube_protocol import canonical_json, limits, media_types, oci
from memcube_protocol.errors import (
    DigestMismatchError,
    InvalidProofError,
    LimitExceededError,
    MemcubeError,
)
from memcube_protocol.reference import Reference
from memcube_signing import referrer
from memcube_signing.release import PREDICATE_TYPE, sign_release
from support.signing import ALICE, NOW, ORIGIN, release


def manifest(text: str = "one") -> oci.Manifest:
    return oci.write_manifest(
        artifact_type=media_types.CUBE,
        config=oci.Descriptor.of(media_types.CONFIG, b"{}"),
        layers=[],
        annotations={"org.example.text": text},
    )


def evidence(text: str = "one") -> Attestation:
    cube = manifest(text)
    bundle = sign_release(release(subject=cube.digest), ALICE)
    about = referrer.write(bundle, PREDICATE_TYPE, cube.descriptor(), ALICE.public_key)
    return Attestation(about, bundle.raw)


def proof(**changes) -> Proof:
    fields = {
        "reference": Reference.parse(f"{ORIGIN}:1.0.0"),
        "manifest": manifest(),
        "config": b"{}",
        "attestations": (evidence(),),
        "checked_at": NOW,
        "key_documents": (b"document",),
    }
    return Proof(**(fields | changes))


def altered(change) -> bytes:
    value = json.loads(proof().to_bytes())
    change(value)
    return canonical_json.dump(value)


def test_what_was_written_is_read():
    assert parse(proof().to_bytes()) == proof()
    bare = proof(attestations=(), key_documents=())
    assert parse(bare.to_bytes()) == bare


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value.update(format="application/vnd.memcube.proof.v2+json"),
        lambda value: value.update(trustedKeys=[]),
        lambda value: value.pop("keyDocuments"),
        lambda value: value.update(reference="alice/notes:1.0.0"),
        lambda value: value.update(reference="REGISTRY/../x"),
        lambda value: value.update(reference=1),
        lambda value: value.update(checkedAt="2026-02-01T12:00:00+00:00"),
        lambda value: value.update(checkedAt="2026-2-1T12:00:00Z"),
        lambda value: value.update(checkedAt=1),
        lambda value: value.update(manifest="e30="),
        lambda value: value.update(manifest="not base64"),
        lambda value: value.update(attestations={}),
        lambda value: value["attestations"][0].update(key="x"),
        lambda value: value["attestations"][0].update(referrer="e30="),
        lambda value: value.update(keyDocuments=["ZG9jdW1lbnR="]),
        lambda value: value.update(config="e30"),
    ],
)
def test_another_form_is_refused(change):
    with pytest.raises(InvalidProofError) as caught:
        parse(altered(change))
    assert caught.value.hint


def test_another_form_of_the_same_json_is_refused():
    content = proof().to_bytes()
    for other in (json.dumps(json.loads(content)).encode(), content + b"\n", b"[]", b""):
        with pytest.raises(InvalidProofError):
            parse(other)
    doubled = content.replace(b'{"attestations"', b'{"config":"e30=","attestations"', 1)
    with pytest.raises(InvalidProofError, match="twice"):
        parse(doubled)


def test_parts_of_several_proofs_do_not_go_together():
    other = base64.b64encode(evidence("two").bundle).decode()
    with pytest.raises(DigestMismatchError):
        parse(altered(lambda value: value["attestations"][0].update(bundle=other)))
    with pytest.raises(DigestMismatchError):
        parse(altered(lambda value: value.update(config="e319")))


def test_a_manifest_of_something_else_is_no_cubes_proof():
    image = oci.write_manifest(artifact_type="application/x", config=oci.EMPTY, layers=[])
    with pytest.raises(MemcubeError):
        proof(manifest=image)
    with pytest.raises(InvalidProofError):
        parse(altered(lambda value: value.update(manifest=base64.b64encode(image.raw).decode())))


def test_a_referrer_with_two_bundles_is_refused():
    one = evidence()
    layer = one.referrer.layers[0]
    both = oci.write_manifest(
        artifact_type=media_types.SIGSTORE_BUNDLE, config=oci.EMPTY, layers=[layer, layer]
    )
    with pytest.raises(InvalidProofError):
        proof(attestations=(Attestation(both, one.bundle),))


def test_times_are_whole_seconds_of_utc():
    for moment in (NOW.replace(tzinfo=None), NOW.replace(microsecond=1)):
        with pytest.raises(InvalidProofError):
            proof(checked_at=moment)
    assert proof(checked_at=datetime(1999, 1, 2, tzinfo=UTC))


def test_a_proof_has_its_limits():
    with pytest.raises(LimitExceededError):
        parse(altered(lambda value: value.update(attestations=value["attestations"] * 65)))
    with pytest.raises(LimitExceededError):
        parse(altered(lambda value: value.update(keyDocuments=["eA=="] * 1025)))
    with pytest.raises(LimitExceededError):
        parse(b" " * (limits.PROOF_BYTES + 1))


@given(st.integers(min_value=0), st.integers(min_value=0, max_value=255))
def test_a_changed_byte_is_refused_or_only_in_what_the_proof_itself_says(position, byte):
    content = bytearray(proof().to_bytes())
    content[position % len(content)] = byte
    try:
        read = parse(bytes(content))
    except MemcubeError:
        return
    assert (read.config, read.attestations[0].bundle) == (b"{}", evidence().bundle)
