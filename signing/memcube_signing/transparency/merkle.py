"""Merkle trees of RFC 6962 §2.1: hashes, inclusion and consistency proofs, made and verified.

A tree over `size` leaves is known through `hash_at(level, index)`: the hash of the complete subtree
over the leaves from `index * 2^level` up to `(index + 1) * 2^level`. Nothing else is needed to prove.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from memcube_protocol.errors import SignatureInvalidError

HashAt: TypeAlias = Callable[[int, int], bytes]
HASH_BYTES: Final = 32
EMPTY_ROOT: Final = hashlib.sha256(b"").digest()
PROOF_HASHES: Final = 63
"""More than any tree needs whose size is a 63-bit number."""


def leaf_hash(content: bytes) -> bytes:
    """Hash of a leaf: domain-separated from that of a node."""
    return hashlib.sha256(b"\x00" + content).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of the node above two others."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def complete_root(hashes: Sequence[bytes]) -> bytes:
    """Root above a power of two of `hashes`."""
    level = list(hashes)
    while len(level) > 1:
        level = [node_hash(level[at], level[at + 1]) for at in range(0, len(level), 2)]
    return level[0]


def root(size: int, hash_at: HashAt) -> bytes:
    """Root of the tree over the first `size` leaves."""
    return _range_hash(0, size, hash_at) if size else EMPTY_ROOT


def inclusion_proof(index: int, size: int, hash_at: HashAt) -> tuple[bytes, ...]:
    """Hashes from leaf `index` up to the root of the tree over `size` leaves (RFC 6962 §2.1.1)."""
    if not 0 <= index < size:
        raise ValueError(f"leaf {index} is not in a tree of {size}")
    proof: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            proof.append(_range_hash(middle, end, hash_at))
            end = middle
        else:
            proof.append(_range_hash(start, middle, hash_at))
            start = middle
    return tuple(reversed(proof))


def consistency_proof(old: int, new: int, hash_at: HashAt) -> tuple[bytes, ...]:
    """Hashes that show the tree over `old` leaves to be the start of that over `new` (RFC 6962 §2.1.2)."""
    if not 0 <= old <= new:
        raise ValueError(f"a tree of {old} is not the start of one of {new}")
    if old in (0, new):
        return ()
    proof: list[bytes] = []
    start, end = 0, new
    while old != end:
        middle = start + _split(end - start)
        if old <= middle:
            proof.append(_range_hash(middle, end, hash_at))
            end = middle
        else:
            proof.append(_range_hash(start, middle, hash_at))
            start = middle
    if start:
        proof.append(_range_hash(start, end, hash_at))
    return tuple(reversed(proof))


def verify_inclusion(
    leaf: bytes, index: int, size: int, proof: Sequence[bytes], expected: bytes
) -> None:
    """Check that the leaf with hash `leaf` is number `index` of the tree with root `expected`.

    Raises:
        SignatureInvalidError: the proof does not show it.
    """
    if not 0 <= index < size:
        raise _refused("the entry's index lies outside of the tree", "log-proof-invalid")
    current, node, last, used = leaf, index, size - 1, 0
    while last > 0:
        if node & 1 or node < last:
            if used == len(proof):
                raise _refused("the inclusion proof is too short", "log-proof-invalid")
            sibling = proof[used]
            used += 1
            current = node_hash(sibling, current) if node & 1 else node_hash(current, sibling)
        node, last = node >> 1, last >> 1
    if used != len(proof) or current != expected:
        raise _refused("the entry is not in the tree of the checkpoint", "log-proof-invalid")


def verify_consistency(
    old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """Check that the tree `new_root` over `new` leaves begins with the tree `old_root` over `old`.

    Raises:
        SignatureInvalidError: it shrank, it is another tree, or the proof does not show it.
    """
    if old > new:
        raise _refused(f"the log shrank from {old} to {new} entries", "log-shrank")
    if old in (0, new):
        expected = new_root if old else EMPTY_ROOT
        if proof or old_root != expected:
            raise _refused("two trees of one size differ", "log-forked")
        return
    path = (old_root, *proof) if old & (old - 1) == 0 else tuple(proof)
    roots = roots_of_path(old, new, path)
    if roots != (old_root, new_root):
        raise _refused("the new tree does not begin with the old one", "log-forked")


def roots_of_path(old: int, new: int, path: Sequence[bytes]) -> tuple[bytes, bytes] | None:
    """The roots over the first `old` and over all `new` leaves as `path` gives them (RFC 9162 §2.1.4.2).

    `path` is a consistency proof with its first hash, which it leaves out where `old` is a power of two.
    None: it has another length. Needs 0 < old < new.
    """
    if not path:
        return None
    node, last = old - 1, new - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    before = after = path[0]
    for sibling in path[1:]:
        if last == 0:
            return None
        if node & 1 or node == last:
            before, after = node_hash(sibling, before), node_hash(sibling, after)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            after = node_hash(after, sibling)
        node, last = node >> 1, last >> 1
    return (before, after) if last == 0 else None


def _range_hash(start: int, end: int, hash_at: HashAt) -> bytes:
    """Root over the leaves `start` to `end`, where `start` is a multiple of the power of two at or above `end - start`."""
    size = end - start
    if size & (size - 1) == 0:
        level = size.bit_length() - 1
        return hash_at(level, start >> level)
    middle = start + _split(size)
    return node_hash(_range_hash(start, middle, hash_at), _range_hash(middle, end, hash_at))


def _split(size: int) -> int:
    """The largest power of two smaller than `size`."""
    return 1 << (size - 1).bit_length() - 1


def _refused(why: str, reason: str) -> SignatureInvalidError:
    return SignatureInvalidError(
        f"the transparency log is not accepted: {why}",
        hint="the log is damaged or shows you another history: do not use it; tell its operator",
        reason=reason,
    )
