"""A log of two entries, a second log and a witness with fixed keys: the same bytes in every run."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric import ed25519
from memcube_signing.bundle import Bundle
from memcube_signing.keys import PrivateKey
from memcube_signing.release import sign_release
from memcube_signing.transparency import checkpoint, entry, merkle
from memcube_signing.transparency.checkpoint import Checkpoint, Line, NoteKey
from memcube_signing.transparency.entry import TlogEntry

from support.signing import ALICE, release

LOG = PrivateKey(ed25519.Ed25519PrivateKey.from_private_bytes(b"\x07" * 32))
WITNESS = PrivateKey(ed25519.Ed25519PrivateKey.from_private_bytes(b"\x08" * 32))
OTHER_LOG = PrivateKey(ed25519.Ed25519PrivateKey.from_private_bytes(b"\x09" * 32))
AT = datetime(2026, 2, 1, 12, 0, 1, tzinfo=UTC)
LOG_KEY = NoteKey("log.example", LOG.public_key)
WITNESS_KEY = NoteKey("witness.example", WITNESS.public_key, cosigns=True)
BUNDLE = sign_release(release(), ALICE)
SIGNED, SIGNATURE, KEY = BUNDLE.envelope.signed, BUNDLE.signature.value, ALICE.public_key


def logged(
    *,
    witnesses: Sequence[Line] = (),
    index: int = 1,
    key: PrivateKey = LOG,
    name: str = "log.example",
    bundle: Bundle = BUNDLE,
) -> TlogEntry:
    """The entry about `bundle`, the second one of the log called `name`."""
    body = entry.leaf(bundle.envelope.signed, bundle.signature.value, KEY)
    leaves = [merkle.leaf_hash(b"other"), merkle.leaf_hash(body)]
    state = Checkpoint(name, 2, merkle.node_hash(*leaves))
    note = checkpoint.sign(state, key)
    note = note.with_lines([checkpoint.cosign(state, name, key, AT), *witnesses])
    return TlogEntry(index, NoteKey(name, key.public_key).id, (leaves[0],), note, body)
