"""The tree of RFC 6962, section 2.1, written for the checker alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache

TILE = 256


def leaf_hash(body: bytes) -> bytes:
    return hashlib.sha256(b"\0" + body).digest()


class Tree:
    """The tree over `leaves`, and those over its beginnings."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self._leaves = leaves
        self._hash = lru_cache(maxsize=None)(self._hash_of)

    def root(self, size: int) -> bytes:
        """The root over the first `size` leaves."""
        return self._hash(0, size) if size else hashlib.sha256(b"").digest()

    def tile(self, level: int, number: int) -> bytes:
        """Hashes of the complete subtrees of 256^level leaves that the tile holds."""
        span = int(TILE**level)
        first = number * TILE
        last = min(first + TILE, len(self._leaves) // span)
        return b"".join(self._hash(at * span, (at + 1) * span) for at in range(first, last))

    def _hash_of(self, start: int, end: int) -> bytes:
        if end - start == 1:
            return self._leaves[start]
        split = 1
        while split * 2 < end - start:
            split *= 2
        left, right = self._hash(start, start + split), self._hash(start + split, end)
        return hashlib.sha256(b"\1" + left + right).digest()


def root_of_proof(leaf: bytes, index: int, size: int, proof: Sequence[bytes]) -> bytes | None:
    """The root that an inclusion proof leads to (RFC 9162, section 2.1.3.2); none if it is malformed."""
    if index >= size:
        return None
    first, last, found = index, size - 1, leaf
    for each in proof:
        if last == 0:
            return None
        if first & 1 or first == last:
            found = hashlib.sha256(b"\1" + each + found).digest()
            while not first & 1 and first:
                first, last = first >> 1, last >> 1
        else:
            found = hashlib.sha256(b"\1" + found + each).digest()
        first, last = first >> 1, last >> 1
    return found if last == 0 else None
