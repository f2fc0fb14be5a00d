"""Signing keys: the forms they are stored in, and what is refused."""

from __future__ import annotations

import pickle
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given, settings
from hypothesis import strategies as st
from memcube_protocol.errors import (
    InvalidStatementError,
    MemcubeError,
    SignatureInvalidError,
    SigningKeyError,
    WrongPassphraseError,
)
from memcube_signing.keys import Algorithm, PrivateKey, PublicKey, is_canonical, with_low_s
from support.signing import ALICE, EDDIE, MALLORY, flipped

SALT = bytes(range(32))
ENCRYPTED = ALICE.to_encrypted_pem("correct horse", SALT)
BOTH = pytest.mark.parametrize("key", [ALICE, EDDIE], ids=["p256", "ed25519"])
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def public_pem(key) -> str:
    return (
        key.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )


@BOTH
def test_a_public_key_reads_back_from_its_pem(key):
    assert PublicKey.from_pem(key.public_key.to_pem()) == key.public_key
    assert len(key.public_key.id) == 64


@BOTH
def test_a_private_key_reads_back_from_its_encrypted_pem(key):
    pem = key.to_encrypted_pem("pässphrase", SALT)
    assert pem.startswith("-----BEGIN ENCRYPTED PRIVATE KEY-----")
    assert PrivateKey.from_pem(pem, "pässphrase").public_key == key.public_key


@BOTH
def test_a_private_key_reads_back_from_its_unencrypted_pem(key):
    assert PrivateKey.from_pem(key.to_unencrypted_pem()).public_key == key.public_key


@BOTH
@given(message=st.binary(max_size=200), other=st.binary(max_size=200))
@settings(max_examples=20)
def test_a_signature_fits_its_message_and_no_other(key, message, other):
    signature = key.sign(message)
    key.public_key.verify(signature, message)
    if other != message:
        with pytest.raises(SignatureInvalidError):
            key.public_key.verify(signature, other)


@BOTH
def test_signing_again_gives_the_same_signature(key):
    assert key.sign(b"message") == key.sign(b"message")


@BOTH
def test_a_signature_of_another_key_does_not_fit(key):
    with pytest.raises(SignatureInvalidError) as caught:
        MALLORY.public_key.verify(key.sign(b"message"), b"message")
    assert caught.value.reason == "bad-signature"


@given(message=st.binary(max_size=50))
@settings(max_examples=50)
def test_ecdsa_signatures_have_a_low_s(message):
    signature = ALICE.sign(message)
    assert with_low_s(signature) == signature
    assert is_canonical(signature, Algorithm.ECDSA_P256_SHA256)


def test_a_high_s_is_valid_but_not_canonical():
    from cryptography.hazmat.primitives.asymmetric import utils

    r, s = utils.decode_dss_signature(ALICE.sign(b"message"))
    high = utils.encode_dss_signature(r, P256_ORDER - s)
    ALICE.public_key.verify(high, b"message")
    assert not is_canonical(high, Algorithm.ECDSA_P256_SHA256)
    assert with_low_s(high) == ALICE.sign(b"message")


@pytest.mark.parametrize(("r", "s"), [(0, 1), (1, 0), (P256_ORDER, 1), (1, P256_ORDER)])
def test_an_ecdsa_signature_outside_the_group_is_refused(r, s):
    from cryptography.hazmat.primitives.asymmetric import utils

    signature = utils.encode_dss_signature(r, s)
    assert not is_canonical(signature, Algorithm.ECDSA_P256_SHA256)
    with pytest.raises(SignatureInvalidError):
        ALICE.public_key.verify(signature, b"message")


def test_an_encrypted_key_without_passphrase_is_not_opened():
    with pytest.raises(SigningKeyError):
        PrivateKey.from_pem(ENCRYPTED)


@pytest.mark.parametrize("passphrase", ["", "wrong", "correct horse ", "Correct horse"])
def test_a_wrong_passphrase_has_its_own_error(passphrase):
    with pytest.raises(WrongPassphraseError):
        PrivateKey.from_pem(ENCRYPTED, passphrase)


def test_a_damaged_encrypted_key_is_never_opened():
    position = len(ENCRYPTED) - 60
    damaged = ENCRYPTED[:position] + ("A" if ENCRYPTED[position] != "A" else "B")
    with pytest.raises((WrongPassphraseError, InvalidStatementError)):
        PrivateKey.from_pem(damaged + ENCRYPTED[position + 1 :], "correct horse")


def test_a_key_is_not_encrypted_with_nothing():
    with pytest.raises(SigningKeyError):
        ALICE.to_encrypted_pem("", SALT)
    with pytest.raises(SigningKeyError):
        ALICE.to_encrypted_pem("passphrase", b"short")


def test_two_salts_give_two_files():
    assert ALICE.to_encrypted_pem("x", SALT) != ALICE.to_encrypted_pem("x", SALT[::-1])


@pytest.mark.parametrize(
    ("pem", "reason"),
    [
        pytest.param(public_pem(ec.generate_private_key(ec.SECP384R1())), "unsupported-algorithm", id="p384"),
        pytest.param(public_pem(ec.generate_private_key(ec.SECP256K1())), "unsupported-algorithm", id="k256"),
        pytest.param(public_pem(rsa.generate_private_key(65537, 2048)), "unsupported-algorithm", id="rsa"),
        pytest.param("", "malformed-key", id="empty"),
        pytest.param("hello", "malformed-key", id="text"),
        pytest.param(ALICE.public_key.to_pem() * 2, "malformed-key", id="two keys"),
        pytest.param(ALICE.public_key.to_pem() + "more", "malformed-key", id="trailing"),
        pytest.param("x" + ALICE.public_key.to_pem(), "malformed-key", id="leading"),
        pytest.param(ALICE.to_unencrypted_pem(), "malformed-key", id="private"),
        pytest.param(ALICE.public_key.to_pem().replace("=", ""), "malformed-key", id="padding"),
        pytest.param(ALICE.public_key.to_pem().replace("MFk", "M*k"), "malformed-key", id="base64"),
        pytest.param(ALICE.public_key.to_pem().replace("PUBLIC KEY", "EC KEY"), "malformed-key", id="label"),
        pytest.param("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "malformed-key", id="der"),
        pytest.param(" " * 20_000 + ALICE.public_key.to_pem(), "malformed-key", id="long"),
    ],
)  # fmt: skip
def test_a_public_key_of_another_form_is_refused(pem, reason):
    with pytest.raises(InvalidStatementError) as caught:
        PublicKey.from_pem(pem)
    assert caught.value.reason == reason


def test_a_public_key_with_trailing_bytes_is_refused():
    with pytest.raises(InvalidStatementError):
        PublicKey(ALICE.public_key.der + b"\x00")


def test_a_compressed_point_is_refused_as_not_canonical():
    key = serialization.load_der_public_key(ALICE.public_key.der)
    point = key.public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint
    )
    prefix = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200")
    with pytest.raises(InvalidStatementError):
        PublicKey(prefix + point)


@pytest.mark.parametrize("y", [0, 1, 2**255 - 20, 2**255 - 19, 2**255 - 18, (1 << 255) | 1])
def test_an_ed25519_point_that_fits_many_messages_is_refused(y):
    spki = bytes.fromhex("302a300506032b6570032100") + y.to_bytes(32, "little")
    with pytest.raises(InvalidStatementError) as caught:
        PublicKey(spki)
    assert caught.value.reason == "weak-key"


@pytest.mark.parametrize(
    "make",
    [lambda: ec.generate_private_key(ec.SECP384R1()), lambda: rsa.generate_private_key(65537, 2048)],
    ids=["p384", "rsa"],
)  # fmt: skip
@pytest.mark.parametrize("passphrase", [None, "secret"])
def test_a_private_key_of_another_algorithm_is_refused(make, passphrase):
    encryption = (
        serialization.BestAvailableEncryption(passphrase.encode())
        if passphrase
        else serialization.NoEncryption()
    )
    pem = make().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )
    with pytest.raises(InvalidStatementError) as caught:
        PrivateKey.from_pem(pem.decode(), passphrase)
    assert caught.value.reason == "unsupported-algorithm"


@pytest.mark.parametrize("pem", ["", "x", ALICE.public_key.to_pem(), ENCRYPTED + ENCRYPTED])
def test_a_private_key_of_another_form_is_refused(pem):
    with pytest.raises(InvalidStatementError):
        PrivateKey.from_pem(pem, "correct horse")


@given(st.binary(max_size=300))
def test_random_bytes_as_a_key_raise_only_our_errors(content):
    with pytest.raises(MemcubeError):
        PublicKey(content)


@given(st.integers(0, len(ALICE.public_key.der) - 1), st.integers(1, 255))
def test_a_changed_byte_gives_another_key_or_none(position, mask):
    with suppress(InvalidStatementError):
        assert PublicKey(flipped(ALICE.public_key.der, position, mask)) != ALICE.public_key


@given(st.text(max_size=300))
def test_random_text_as_a_pem_raises_only_our_errors(text):
    with pytest.raises(MemcubeError):
        PrivateKey.from_pem(text, "passphrase")


def test_a_private_key_shows_and_pickles_nothing_secret():
    assert ALICE.public_key.id in repr(ALICE)
    with pytest.raises(SigningKeyError):
        pickle.dumps(ALICE)


def test_generated_keys_differ_and_have_the_algorithm_asked_for():
    first, second = PrivateKey.generate(), PrivateKey.generate(Algorithm.ED25519)
    assert first.public_key.algorithm is Algorithm.ECDSA_P256_SHA256
    assert second.public_key.algorithm is Algorithm.ED25519
    assert PrivateKey.generate().public_key != first.public_key


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
@BOTH
def test_openssl_opens_our_encrypted_key(key, tmp_path: Path):
    (tmp_path / "key.pem").write_text(key.to_encrypted_pem("secret", SALT))
    command = ["openssl", "pkey", "-in", "key.pem", "-passin", "pass:secret", "-pubout"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == key.public_key.to_pem()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
@pytest.mark.parametrize("kdf", [["-scrypt"], ["-v2", "aes-256-cbc"]], ids=["scrypt", "pbkdf2"])
def test_we_open_the_keys_that_openssl_encrypts(kdf, tmp_path: Path):
    (tmp_path / "plain.pem").write_text(ALICE.to_unencrypted_pem())
    command = ["openssl", "pkcs8", "-topk8", "-in", "plain.pem", "-passout", "pass:secret", *kdf]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert PrivateKey.from_pem(done.stdout, "secret").public_key == ALICE.public_key
