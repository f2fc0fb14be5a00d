"""PKCS#8 EncryptedPrivateKeyInfo (RFC 5958) under PBES2 (RFC 8018) with scrypt and AES-256-CBC.

Written here because `cryptography` only writes PBKDF2 with 2048 rounds. The cost (N=2^14, r=8, p=5:
16 MiB) is the strongest that stock OpenSSL reads within its memory limit.
"""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import padding, serialization
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from memcube_protocol.errors import InvalidStatementError, SigningKeyError, WrongPassphraseError

RANDOMNESS_BYTES: Final = 32
_N, _R, _P = 2**14, 8, 5
_SEQUENCE, _OCTETS, _INTEGER, _OID = 0x30, 0x04, 0x02, 0x06
_PBES2: Final = bytes.fromhex("2a864886f70d01050d")
_SCRYPT: Final = bytes.fromhex("2b06010401da47040b")
_AES256_CBC: Final = bytes.fromhex("60864801650304012a")


def encrypt(der: bytes, passphrase: str, randomness: bytes) -> bytes:
    """`der` (a PrivateKeyInfo) encrypted; `randomness` are 32 bytes: 16 of salt, 16 of IV.

    Raises:
        SigningKeyError: an empty passphrase, or another number of random bytes.
    """
    if not passphrase or len(randomness) != RANDOMNESS_BYTES:
        raise SigningKeyError(
            "a key is encrypted with a passphrase that is not empty, and 32 random bytes",
            hint="choose a passphrase of several words",
        )
    salt, iv = randomness[:16], randomness[16:]
    key = Scrypt(salt=salt, length=32, n=_N, r=_R, p=_P).derive(passphrase.encode())
    padder = padding.PKCS7(128).padder()
    encryptor = Cipher(algorithms.AES256(key), modes.CBC(iv)).encryptor()
    secret = encryptor.update(padder.update(der) + padder.finalize()) + encryptor.finalize()
    costs = _tlv(_OCTETS, salt) + _integer(_N) + _integer(_R) + _integer(_P)
    kdf = _tlv(_SEQUENCE, _tlv(_OID, _SCRYPT) + _tlv(_SEQUENCE, costs))
    cipher = _tlv(_SEQUENCE, _tlv(_OID, _AES256_CBC) + _tlv(_OCTETS, iv))
    scheme = _tlv(_SEQUENCE, _tlv(_OID, _PBES2) + _tlv(_SEQUENCE, kdf + cipher))
    return _tlv(_SEQUENCE, scheme + _tlv(_OCTETS, secret))


def decrypt(der: bytes, passphrase: str) -> bytes:
    """The PrivateKeyInfo in `der`, encrypted by any scheme that `cryptography` reads.

    Raises:
        WrongPassphraseError: the passphrase does not open it, or its content is damaged.
        InvalidStatementError: not one DER sequence with nothing after it.
    """
    if not _is_one_sequence(der):
        raise InvalidStatementError(
            "not an acceptable key: it is not exactly one DER sequence",
            hint="the key file is damaged: restore it from a backup",
            reason="malformed-key",
        )
    try:
        key = serialization.load_der_private_key(der, passphrase.encode())
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise wrong_passphrase() from None
    return key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def wrong_passphrase() -> WrongPassphraseError:
    """The error of a passphrase that does not fit."""
    return WrongPassphraseError(
        "the passphrase does not open the signing key, or the key file is damaged",
        hint="check MEMCUBE_KEY_PASSPHRASE or type the passphrase again",
    )


def _is_one_sequence(der: bytes) -> bool:
    """Whether the outer element is a sequence that spans all bytes, its length in DER's form."""
    if len(der) < 4 or der[0] != _SEQUENCE:
        return False
    if der[1] < 0x80:
        return len(der) == 2 + der[1]
    count = der[1] & 0x7F
    size = int.from_bytes(der[2 : 2 + count], "big")
    return 1 <= count <= 3 and _tlv(_SEQUENCE, der[2 + count :]) == der and size > 0x7F


def _integer(value: int) -> bytes:
    return _tlv(_INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _tlv(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    digits = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(digits)]) + digits + content
