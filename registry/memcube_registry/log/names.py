"""Tags of namespaces: who holds a namespace's key finds its entries, and nobody else learns whose they are."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Names:
    """The secret from which the keys of all namespaces derive."""

    secret: bytes

    def key(self, namespace: str) -> bytes:
        """The key of `namespace`: given to its own people only."""
        return self._mac(self.secret, b"memcube-log-namespace\n" + namespace.encode())

    def tag(self, namespace: str, leaf_hash: bytes) -> bytes:
        """What marks the entry with this leaf as one of `namespace`."""
        return self._mac(self.key(namespace), leaf_hash)

    @staticmethod
    def _mac(key: bytes, message: bytes) -> bytes:
        return hmac.new(key, message, hashlib.sha256).digest()
