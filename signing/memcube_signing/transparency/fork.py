"""Proof that a log has shown two histories: two of its signed checkpoints that no one tree can have.

    {"format": "application/vnd.memcube.log.fork.v1+json", "key": "log.example+1f…+…",
     "larger": "<signed note>", "prefix": ["<hash>", …], "smaller": "<signed note>"}

Whoever knows the log's key can check it, without the log and without a network (docs/spec/log.md, Forks).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Final

from memcube_protocol import canonical_json
from memcube_protocol.errors import InvalidStatementError
from memcube_protocol.values import frozen

from memcube_signing.transparency import checkpoint as checkpoints
from memcube_signing.transparency import merkle
from memcube_signing.transparency.checkpoint import NoteKey, SignedCheckpoint

FORMAT: Final = "application/vnd.memcube.log.fork.v1+json"
PROOF_BYTES: Final = 256 * 1024
_FIELDS: Final = {"format", "key", "larger", "prefix", "smaller"}


@frozen
class Fork:
    """Two checkpoints signed by `key`, the tree of `larger` not beginning with that of `smaller`.

    `prefix` leads from `larger` to the root that its first entries really have: the hashes of a
    consistency proof (RFC 6962 §2.1.2), the first of them always written. None for one size.

    Raises:
        SignatureInvalidError: `key` has not signed both.
        InvalidStatementError: they can belong to one tree, or the hashes do not show that they do not.
    """

    key: NoteKey
    smaller: SignedCheckpoint
    larger: SignedCheckpoint
    prefix: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        old = checkpoints.verify(self.smaller, self.key)
        new = checkpoints.verify(self.larger, self.key)
        if old.size > new.size:
            raise _invalid("its checkpoints stand in the wrong order")
        root = new.root if old.size == new.size else _root_of_start(old.size, new, self.prefix)
        if self.prefix and old.size in (0, new.size):
            raise _invalid("it has hashes that prove nothing")
        if root == old.root:
            raise _invalid("the larger tree begins with the smaller one")

    def to_bytes(self) -> bytes:
        """The proof as canonical JSON."""
        return canonical_json.dump(
            {
                "format": FORMAT,
                "key": str(self.key),
                "larger": self.larger.text,
                "prefix": [base64.b64encode(item).decode() for item in self.prefix],
                "smaller": self.smaller.text,
            }
        )


def find(
    key: NoteKey, one: SignedCheckpoint, other: SignedCheckpoint, hash_at: merkle.HashAt
) -> Fork | None:
    """The fork between two checkpoints of the log with `key`; None where the trees are one.

    `hash_at` tells the hashes of the larger tree; of one size they are not asked for.

    Raises:
        SignatureInvalidError: `key` has not signed both.
        InvalidStatementError: the hashes are not those of the larger tree: nothing is proved.
    """
    smaller, larger = sorted((one, other), key=lambda note: note.checkpoint.size)
    old, new = checkpoints.verify(smaller, key), checkpoints.verify(larger, key)
    if old.size == new.size:
        return Fork(key, smaller, larger) if old.root != new.root else None
    prefix = _prefix(old.size, new.size, hash_at)
    if _root_of_start(old.size, new, prefix) == old.root:
        return None
    return Fork(key, smaller, larger, prefix)


def parse(content: bytes) -> Fork:
    """The proof in `content`. Its key is the file's own word: compare it with the one that you know.

    Raises:
        InvalidJsonError, InvalidStatementError, SignatureInvalidError: it proves no fork.
    """
    if len(content) > PROOF_BYTES:
        raise _invalid("it is too large")
    value = canonical_json.parse_object(content, what="proof of a fork")
    if value.keys() != _FIELDS or value["format"] != FORMAT:
        raise _invalid("it has not exactly the fields of this format")
    prefix, texts = value["prefix"], [value[name] for name in ("key", "smaller", "larger")]
    if not isinstance(prefix, list) or not all(isinstance(text, str) for text in texts):
        raise _invalid("a field has another type")
    if len(prefix) > merkle.PROOF_HASHES + 1:
        raise _invalid("it has more hashes than any proof needs")
    key, smaller, larger = texts
    fork = Fork(
        NoteKey.parse(key),
        checkpoints.parse(smaller),
        checkpoints.parse(larger),
        tuple(map(_hash, prefix)),
    )
    if fork.to_bytes() != content:
        raise _invalid("it is not canonical JSON")
    return fork


def _prefix(old: int, new: int, hash_at: merkle.HashAt) -> tuple[bytes, ...]:
    """The hashes of a consistency proof, with the first one that it leaves out where `old` is 2^n."""
    proof = merkle.consistency_proof(old, new, hash_at)
    if old and old & (old - 1) == 0:
        return (hash_at(old.bit_length() - 1, 0), *proof)
    return proof


def _root_of_start(old: int, new: checkpoints.Checkpoint, prefix: Sequence[bytes]) -> bytes:
    """The root over the first `old` entries of the tree `new`, as `prefix` shows it."""
    if not old:
        return merkle.EMPTY_ROOT
    roots = merkle.roots_of_path(old, new.size, prefix)
    if roots is None or roots[1] != new.root:
        raise _invalid("its hashes are not those of the larger tree")
    return roots[0]


def _hash(value: object) -> bytes:
    try:
        content = base64.b64decode(value, validate=True) if isinstance(value, str) else b""
    except (binascii.Error, ValueError):
        content = b""
    if len(content) != merkle.HASH_BYTES:
        raise _invalid("a hash has not 32 bytes in base64")
    return content


def _invalid(why: str) -> InvalidStatementError:
    return InvalidStatementError(
        f"not a proof of a fork: {why}", hint="see docs/spec/log.md, Forks", reason="malformed-fork"
    )
