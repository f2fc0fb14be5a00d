"""Keys and algorithms that a registry offers: the verifier takes them from what it knows, not from there."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from memcube_protocol import canonical_json, media_types, oci
from memcube_protocol.digest import Digest
from memcube_signing import bundle as bundles
from memcube_signing.dsse import Envelope, Signature, pae
from memcube_signing.release import verify_release
from support.signing import EDDIE, signed_payload
from support.story import Story

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
Sign = Callable[[bytes], bytes]


def payload_of(story: Story) -> bytes:
    """The statement that the publisher signed about 1.0.0."""
    return bundles.parse(story.attached("1.0.0")[1]).envelope.payload


def serve(story: Story, signature: bytes, key_der: bytes, hint: str, payload: bytes) -> None:
    """Let the registry show one bundle with 1.0.0, and offer the key `key_der` with it."""
    envelope = Envelope(media_types.IN_TOTO, payload, (Signature(signature),))
    raw = bundles.write(envelope, hint).raw
    manifest, _ = story.carried(raw, story.raw("1.0.0"), EDDIE)
    offered = json.loads(manifest.raw)
    offered["annotations"][media_types.PUBLISHER_KEY] = base64.b64encode(key_der).decode()
    manifest = oci.parse_manifest(canonical_json.dump(offered))
    story.hostile.attach(story.name, story.digest("1.0.0"), (manifest, raw))


def spki(key: object) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.DER, form)  # type: ignore[attr-defined]


RSA = rsa.generate_private_key(65537, 2048)
P384 = ec.generate_private_key(ec.SECP384R1())
K256 = ec.generate_private_key(ec.SECP256K1())
FOREIGN: dict[str, tuple[object, Sign]] = {
    "rsa": (RSA, lambda message: RSA.sign(message, padding.PKCS1v15(), hashes.SHA256())),
    "p384": (P384, lambda message: P384.sign(message, ec.ECDSA(hashes.SHA384()))),
    "secp256k1": (K256, lambda message: K256.sign(message, ec.ECDSA(hashes.SHA256()))),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_key_of_another_algorithm_is_never_pinned(story: Story, kind: str) -> None:
    """At first use the registry offers the key: one that memcube does not take is no key."""
    key, sign = FOREIGN[kind]
    payload = payload_of(story)
    hint = Digest.of(spki(key)).hex
    serve(story, sign(pae(media_types.IN_TOTO, payload)), spki(key), hint, payload)
    story.refused("unsupported-algorithm", "1.0.0")


def test_an_ed25519_signature_under_the_name_of_a_p256_key_is_refused(story: Story) -> None:
    """The hint names the pinned key, the signature and the offered key are of another kind."""
    story.pull("1.0.0")
    payload, message = payload_of(story), pae(media_types.IN_TOTO, payload_of(story))
    known = story.key().public_key
    serve(story, EDDIE.sign(message), EDDIE.public_key.der, known.id, payload)
    story.refused("bad-signature", "1.0.0")


def test_a_weak_key_that_fits_every_statement_is_refused(story: Story) -> None:
    """An Ed25519 point of small order verifies forged signatures over anything."""
    prefix = spki(ed25519.Ed25519PrivateKey.from_private_bytes(b"\x01" * 32))[:-32]
    weak = prefix + b"\x01" + b"\x00" * 31
    payload = payload_of(story)
    serve(story, b"\x01" + b"\x00" * 63, weak, Digest.of(weak).hex, payload)
    story.refused("weak-key", "1.0.0")


@pytest.mark.parametrize("name", ["SHA1", "SHA384", "SHA512"])
def test_the_right_key_with_another_hash_is_refused(story: Story, name: str) -> None:
    """Only the publisher could have signed so: but the algorithm is not the signature's to choose."""
    payload, key = payload_of(story), story.key()
    value = key._key.sign(pae(media_types.IN_TOTO, payload), ec.ECDSA(getattr(hashes, name)()))
    serve(story, value, key.public_key.der, key.public_key.id, payload)
    story.refused("bad-signature", "1.0.0")


def test_a_second_form_of_a_signature_is_refused(story: Story) -> None:
    """Whoever holds a signature can compute its mirror image: another bundle, not logged as it is."""
    parsed, key = bundles.parse(story.attached("1.0.0")[1]), story.key().public_key
    r, s = utils.decode_dss_signature(parsed.signature.value)
    mirrored = utils.encode_dss_signature(r, P256_ORDER - s)
    serve(story, mirrored, key.der, key.id, parsed.envelope.payload)
    story.refused("malleable-signature", "1.0.0")


@pytest.mark.parametrize("digests", ["another algorithm", "two"])
def test_a_statement_about_the_same_manifest_by_another_digest_is_refused(
    story: Story, digests: str
) -> None:
    """SHA-512 beside or instead of SHA-256: two readers would look at two digests."""
    value = json.loads(payload_of(story))
    named = {"sha512": Digest.of(story.raw("1.0.0"), "sha512").hex}
    if digests == "two":
        named["sha256"] = story.digest("1.0.0").hex
    value["subject"][0]["digest"] = named
    bundle = signed_payload(canonical_json.dump(value), story.key())
    attached = story.carried(bundle, story.raw("1.0.0"), story.key())
    story.hostile.attach(story.name, story.digest("1.0.0"), attached)
    story.refused("wrong-subject", "1.0.0")


def test_a_release_of_the_publishers_other_cube_is_none_of_this_one(story: Story) -> None:
    """The same key, the same manifest bytes, the name of another cube of this publisher."""
    key = story.key()
    honest = verify_release(
        story.attached("1.0.0")[1], keys=[key.public_key], subject=story.digest("1.0.0")
    )
    other = replace(honest, origin=f"{honest.origin}-private")
    bundle = signed_payload(other.to_statement().to_bytes(), key)
    story.hostile.attach(
        story.name, story.digest("1.0.0"), story.carried(bundle, story.raw("1.0.0"), key)
    )
    story.refused("origin-mismatch", "1.0.0")
