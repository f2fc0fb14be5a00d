"""A transparency log in memory, with its operator's whole power: also to fork, to shrink, to stand still."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric import ed25519
from memcube_signing.bundle import Bundle
from memcube_signing.keys import PrivateKey, PublicKey
from memcube_signing.transparency import bundled, checkpoint, entry, merkle
from memcube_signing.transparency.checkpoint import Checkpoint, NoteKey, SignedCheckpoint
from memcube_signing.transparency.entry import TlogEntry

from support.signing import NOW


def signer(seed: int) -> PrivateKey:
    """A fixed Ed25519 key."""
    return PrivateKey(ed25519.Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32))


WITNESS = signer(9)
WITNESS_KEY = NoteKey("witness.example", WITNESS.public_key, cosigns=True)


@dataclass
class Log:
    """A log over `leaves`."""

    origin: str = "registry.example"
    signer: PrivateKey = field(default_factory=lambda: signer(7))
    leaves: list[bytes] = field(default_factory=list)

    @property
    def key(self) -> NoteKey:
        return NoteKey(self.origin, self.signer.public_key)

    def hash_at(self, level: int, index: int) -> bytes:
        span = self.leaves[index << level : (index + 1) << level]
        return merkle.complete_root([merkle.leaf_hash(leaf) for leaf in span])

    def note(
        self, at: datetime = NOW, *, size: int | None = None, witnessed: bool = False
    ) -> SignedCheckpoint:
        size = len(self.leaves) if size is None else size
        state = Checkpoint(self.origin, size, merkle.root(size, self.hash_at))
        lines = [checkpoint.cosign(state, self.origin, self.signer, at)]
        if witnessed:
            lines.append(checkpoint.cosign(state, WITNESS_KEY.name, WITNESS, at))
        return checkpoint.sign(state, self.signer).with_lines(lines)

    def proof(self, old: int) -> tuple[bytes, ...]:
        return merkle.consistency_proof(old, len(self.leaves), self.hash_at)

    def logged(self, bundle: Bundle, key: PublicKey, at: datetime = NOW, **more: bool) -> Bundle:
        """`bundle` with its entry in this log."""
        body = entry.leaf(bundle.envelope.signed, bundle.signature.value, key)
        if body not in self.leaves:
            self.leaves.append(body)
        index, size = self.leaves.index(body), len(self.leaves)
        proof = merkle.inclusion_proof(index, size, self.hash_at)
        found = TlogEntry(index, self.key.id, proof, self.note(at, **more), body)
        return bundled.attach(bundle, [found])
