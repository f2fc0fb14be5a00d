"""The registry's own key, ECDSA P-256: derived from 32 secret bytes that are kept like the log's."""

from __future__ import annotations

import hashlib
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from memcube_protocol.errors import InvalidSettingError
from memcube_signing.keys import PrivateKey

SEED_BYTES: Final = 32
_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def signer_of(seed: bytes) -> PrivateKey:
    """The key that `seed` stands for: a scalar from 512 bits, so that none is likelier than another.

    Raises:
        InvalidSettingError: not 32 bytes.
    """
    if len(seed) != SEED_BYTES:
        raise InvalidSettingError(
            f"the registry key has {len(seed)} bytes, expected {SEED_BYTES}",
            hint="restore the file named by the setting countersigning_key_file from a backup",
        )
    wide = int.from_bytes(hashlib.sha512(b"memcube-registry-key\n" + seed).digest())
    return PrivateKey(ec.derive_private_key(wide % (_ORDER - 1) + 1, ec.SECP256R1()))
