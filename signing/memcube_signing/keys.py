"""Signing keys: ECDSA P-256 (the default) and Ed25519, as values over bytes.

A public key is its SubjectPublicKeyInfo (RFC 5280) in DER; its id is the SHA-256 of these bytes. A
private key is stored as PKCS#8, encrypted with PBES2, scrypt and AES-256-CBC (RFC 8018, RFC 7914).
ECDSA signs deterministically (RFC 6979): only making a key needs randomness.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import field
from enum import StrEnum
from typing import Final, Protocol, Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils
from memcube_protocol.errors import (
    InvalidStatementError,
    SignatureInvalidError,
    SigningKeyError,
)
from memcube_protocol.values import frozen

from memcube_signing import _pkcs8

_ECDSA: Final = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
_P256_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_KEY_FILE_CHARS: Final = 16 * 1024
_PEM: Final = re.compile(
    r"\s*-----BEGIN (?P<label>[A-Z0-9 ]+)-----\r?\n"
    r"(?P<body>[A-Za-z0-9+/=\r\n]+?)\r?\n-----END (?P=label)-----\s*"
)
_KEY_HINT: Final = "make one with `memcube keys generate`, or see docs/guide/keys.md"
_SMALL_ORDER: Final = frozenset(
    bytes.fromhex(point)
    for point in (
        "0100000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    )
)
"""Ed25519 points (sign bit cleared) under which one signature can fit every message."""


class Algorithm(StrEnum):
    """A signature algorithm with all its parameters: curve and hash."""

    ECDSA_P256_SHA256 = "ecdsa-p256-sha256"
    ED25519 = "ed25519"


class Signer(Protocol):
    """Signs in the name of one public key: a file, a keyring, a token or a cloud service."""

    @property
    def public_key(self) -> PublicKey:
        """The key that verifies what `sign` returns."""
        ...

    def sign(self, message: bytes, /) -> bytes:
        """Signature of `message`: DER for ECDSA, 64 bytes for Ed25519.

        Raises:
            SigningKeyError: the key cannot be used now.
        """
        ...


@frozen
class PublicKey:
    """A public key: the canonical DER of its SubjectPublicKeyInfo, and its algorithm.

    Raises:
        InvalidStatementError: another algorithm or curve, malformed, trailing bytes, not canonical.
    """

    der: bytes
    algorithm: Algorithm = field(init=False)
    _key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey = field(
        init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        key = _load_public(self.der)
        if _spki(key) != self.der:
            raise _invalid_key("its DER is not canonical")
        object.__setattr__(self, "_key", key)
        object.__setattr__(self, "algorithm", _algorithm(key))

    @classmethod
    def from_pem(cls, pem: str) -> Self:
        """The key in one `PUBLIC KEY` block.

        Raises:
            InvalidStatementError: any other text, or a key that `PublicKey` refuses.
        """
        label, der = _unarmour(pem)
        if label != "PUBLIC KEY":
            raise _invalid_key(f"a PEM block {label[:40]!r} is not a public key")
        return cls(der)

    @property
    def id(self) -> str:
        """SHA-256 of the DER in hex: names the key in bundles and pins."""
        return hashlib.sha256(self.der).hexdigest()

    @property
    def pem_id(self) -> str:
        """SHA-256 of the PEM in hex: how OpenSSF model signing names the key."""
        return hashlib.sha256(self.to_pem().encode()).hexdigest()

    def to_pem(self) -> str:
        """This key as a `PUBLIC KEY` block, as openssl and cosign read it."""
        return _armour("PUBLIC KEY", self.der)

    def verify(self, signature: bytes, message: bytes) -> None:
        """Check that the owner of this key signed `message`.

        Raises:
            SignatureInvalidError: not so.
        """
        try:
            if isinstance(self._key, ed25519.Ed25519PublicKey):
                self._key.verify(signature, message)
            else:
                self._key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            raise SignatureInvalidError(
                f"the signature is not one of key {self.id} over these bytes",
                hint="the statement was changed, or somebody else signed it: do not use it",
                reason="bad-signature",
            ) from None

    def __repr__(self) -> str:
        return f"PublicKey({self.algorithm}, {self.id})"


class PrivateKey:
    """A private key in memory: a `Signer`. Never shown, compared or pickled."""

    __slots__ = ("_key", "_public")

    def __init__(self, key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> None:
        self._key = key
        self._public = PublicKey(_spki(key.public_key()))

    @classmethod
    def generate(cls, algorithm: Algorithm = Algorithm.ECDSA_P256_SHA256) -> Self:
        """A new key, from the operating system's randomness."""
        if algorithm is Algorithm.ED25519:
            return cls(ed25519.Ed25519PrivateKey.generate())
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def from_pem(cls, pem: str, passphrase: str | None = None) -> Self:
        """The key in one PKCS#8 block; `passphrase` opens an encrypted one.

        Raises:
            WrongPassphraseError: the passphrase does not open the block.
            SigningKeyError: an encrypted block without a passphrase.
            InvalidStatementError: malformed, trailing data, another algorithm or curve.
        """
        label, der = _unarmour(pem)
        if label == "ENCRYPTED PRIVATE KEY":
            if passphrase is None:
                raise SigningKeyError("the signing key is encrypted", hint="give its passphrase")
            return cls(_load_private(_pkcs8.decrypt(der, passphrase), encrypted=True))
        if label != "PRIVATE KEY":
            raise _invalid_key(f"a PEM block {label[:40]!r} is not a PKCS#8 private key")
        return cls(_load_private(der, encrypted=False))

    @property
    def public_key(self) -> PublicKey:
        """See `Signer.public_key`."""
        return self._public

    def sign(self, message: bytes, /) -> bytes:
        """See `Signer.sign`. The same message gives the same signature; ECDSA's has a low S."""
        if isinstance(self._key, ed25519.Ed25519PrivateKey):
            return self._key.sign(message)
        return with_low_s(self._key.sign(message, _ECDSA))

    def to_encrypted_pem(self, passphrase: str, randomness: bytes) -> str:
        """This key as PKCS#8, encrypted; `randomness` are 32 fresh bytes for salt and IV.

        Raises:
            SigningKeyError: an empty passphrase.
        """
        der = _pkcs8.encrypt(self._der(), passphrase, randomness)
        return _armour("ENCRYPTED PRIVATE KEY", der)

    def to_unencrypted_pem(self) -> str:
        """This key as plain PKCS#8: whoever reads it can sign."""
        return _armour("PRIVATE KEY", self._der())

    def _der(self) -> bytes:
        return self._key.private_bytes(
            serialization.Encoding.DER,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def __repr__(self) -> str:
        return f"PrivateKey({self._public.algorithm}, {self._public.id})"

    def __reduce__(self) -> str:
        raise SigningKeyError("a private key is never pickled", hint="store it as PEM")


def with_low_s(signature: bytes) -> bytes:
    """The one of the two valid forms of an ECDSA P-256 signature whose S is at most half the order.

    Raises:
        InvalidStatementError: not a DER signature of P-256.
    """
    r, s = _decode_ecdsa(signature)
    return utils.encode_dss_signature(r, min(s, _P256_ORDER - s))


def is_canonical(signature: bytes, algorithm: Algorithm) -> bool:
    """Whether `signature` has the one form that memcube writes: ECDSA in DER with a low S."""
    if algorithm is Algorithm.ED25519:
        return len(signature) == 64
    try:
        return with_low_s(signature) == signature
    except InvalidStatementError:
        return False


def _decode_ecdsa(signature: bytes) -> tuple[int, int]:
    try:
        r, s = utils.decode_dss_signature(signature)
    except ValueError:
        raise _invalid_key("an ECDSA signature is not DER") from None
    if not (0 < r < _P256_ORDER and 0 < s < _P256_ORDER):
        raise _invalid_key("an ECDSA signature lies outside the group")
    return r, s


def _load_public(der: bytes) -> ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey:
    try:
        key = serialization.load_der_public_key(der)
    except (ValueError, UnsupportedAlgorithm):
        raise _invalid_key("it is not a SubjectPublicKeyInfo of a known algorithm") from None
    if isinstance(key, ed25519.Ed25519PublicKey):
        _refuse_small_order(key)
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    raise _invalid_key("only ECDSA on P-256 and Ed25519 are accepted", "unsupported-algorithm")


def _refuse_small_order(key: ed25519.Ed25519PublicKey) -> None:
    raw = key.public_bytes_raw()
    y = int.from_bytes(raw, "little") & ((1 << 255) - 1)
    prime = 2**255 - 19
    if y >= prime or y.to_bytes(32, "little") in _SMALL_ORDER:
        raise _invalid_key("an Ed25519 point of small order or not reduced", "weak-key")


def _load_private(
    der: bytes, *, encrypted: bool
) -> ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey:
    try:
        key = serialization.load_der_private_key(der, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        if encrypted:
            raise _pkcs8.wrong_passphrase() from None
        raise _invalid_key("it is not a PKCS#8 private key of a known algorithm") from None
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    raise _invalid_key("only ECDSA on P-256 and Ed25519 are accepted", "unsupported-algorithm")


def _algorithm(key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey) -> Algorithm:
    if isinstance(key, ed25519.Ed25519PublicKey):
        return Algorithm.ED25519
    return Algorithm.ECDSA_P256_SHA256


def _spki(key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey) -> bytes:
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _armour(label: str, der: bytes) -> str:
    text = base64.b64encode(der).decode()
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""])


def _unarmour(pem: str) -> tuple[str, bytes]:
    """Label and content of the only block of `pem` (RFC 7468, strict)."""
    block = _PEM.fullmatch(pem) if len(pem) <= _KEY_FILE_CHARS else None
    if block is None:
        raise _invalid_key("it is not exactly one PEM block")
    try:
        body = re.sub(r"[\r\n]", "", block["body"])
        der = base64.b64decode(body, validate=True)
    except binascii.Error:
        raise _invalid_key("its PEM block is not base64") from None
    if base64.b64encode(der).decode() != body:
        raise _invalid_key("its base64 is not canonical")
    return block["label"], der


def _invalid_key(why: str, reason: str = "malformed-key") -> InvalidStatementError:
    return InvalidStatementError(f"not an acceptable key: {why}", hint=_KEY_HINT, reason=reason)
