"""Entries of the log: hashedrekord 0.0.2 leaves, and `tlogEntries` of a Sigstore bundle.

A leaf holds the hash of what was signed, the signature and the key: no names. What a bundle carries is
the leaf, its inclusion proof and the checkpoint that the proof leads to.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from memcube_protocol.errors import InvalidStatementError, SignatureInvalidError
from memcube_protocol.values import frozen

from memcube_signing.dsse import known_fields
from memcube_signing.keys import Algorithm, PublicKey
from memcube_signing.transparency import checkpoint as checkpoints
from memcube_signing.transparency import merkle
from memcube_signing.transparency.checkpoint import Cosigned, NoteKey, SignedCheckpoint

KIND: Final = "hashedrekord"
VERSION: Final = "0.0.2"
_LEAF: Final = (
    b'{"apiVersion":"0.0.2","kind":"hashedrekord","spec":{"hashedRekordV002":{'
    b'"data":{"algorithm":"SHA2_256","digest":"%b"},"signature":{"content":"%b",'
    b'"verifier":{"keyDetails":"PKIX_ECDSA_P256_SHA_256","publicKey":{"rawBytes":"%b"}}}}}}'
)
"""A leaf in canonical JSON; what is put in is base64."""
LOGGED: Final = frozenset({Algorithm.ECDSA_P256_SHA256})
"""What signs a hash, so that the hash can stand for the statement."""
_FIELDS: Final = {
    *("logIndex", "logId", "kindVersion", "inclusionProof", "canonicalizedBody"),
    *("integratedTime", "inclusionPromise"),
}
_PROOF_FIELDS: Final = {"logIndex", "rootHash", "treeSize", "hashes", "checkpoint"}


@frozen
class TlogEntry:
    """An entry with the proof that a log includes it, as a bundle carries it; nothing is verified yet.

    `log_id` is the SHA-256 that names the log's key; `body` is the leaf's content.
    """

    index: int
    log_id: bytes
    proof: tuple[bytes, ...]
    checkpoint: SignedCheckpoint
    body: bytes

    @property
    def leaf_hash(self) -> bytes:
        """Names the entry in the tree."""
        return merkle.leaf_hash(self.body)

    def to_json(self) -> dict[str, Any]:
        """The entry as protobuf's JSON of `dev.sigstore.rekor.v1.TransparencyLogEntry`."""
        state = self.checkpoint.checkpoint
        return {
            "logIndex": str(self.index),
            "logId": {"keyId": _encode(self.log_id)},
            "kindVersion": {"kind": KIND, "version": VERSION},
            "inclusionProof": {
                "logIndex": str(self.index),
                "rootHash": _encode(state.root),
                "treeSize": str(state.size),
                "hashes": [_encode(item) for item in self.proof],
                "checkpoint": {"envelope": self.checkpoint.text},
            },
            "canonicalizedBody": _encode(self.body),
        }

    @classmethod
    def from_json(cls, value: object) -> TlogEntry:
        """The entry that parsed JSON holds.

        Raises:
            InvalidStatementError: a field is missing, unknown or malformed, or two contradict each other.
        """
        fields = known_fields(value, "log entry", _FIELDS)
        kind = known_fields(fields.get("kindVersion"), "kindVersion", {"kind", "version"})
        if (kind.get("kind"), kind.get("version")) != (KIND, VERSION):
            raise _invalid(f"it is not a {KIND} {VERSION}", "unsupported-log-entry")
        if fields.get("inclusionPromise") or fields.get("integratedTime", "0") not in ("0", 0):
            raise _invalid(
                "it brings a promise or a time instead of a proof", "unsupported-log-entry"
            )
        proof = known_fields(fields.get("inclusionProof"), "inclusionProof", _PROOF_FIELDS)
        log_id = known_fields(fields.get("logId"), "logId", {"keyId"})
        entry = cls(
            _number(fields, "logIndex"),
            _bytes(log_id.get("keyId")),
            _hashes(proof.get("hashes", [])),
            _checkpoint(proof.get("checkpoint")),
            _bytes(fields.get("canonicalizedBody")),
        )
        _require_agreement(entry, proof)
        return entry


class Witnesses(NamedTuple):
    """Witnesses of whom `threshold` must have seen an entry in its log."""

    keys: frozenset[NoteKey]
    threshold: int


@frozen
class LogPolicy:
    """Which log must include a statement, and which witnesses must have seen it there: enough of each group.

    `log` is its own witness of time: `logged_at` of an accepted entry is the earliest time by anyone
    who is accepted.
    """

    log: NoteKey
    witnesses: tuple[Witnesses, ...] = ()


@frozen
class Logged:
    """That a log includes a statement: entry `index`, seen in `checkpoint`.

    `seen` says who cosigned the checkpoint and when, the log itself included.
    """

    index: int
    checkpoint: checkpoints.Checkpoint
    seen: tuple[Cosigned, ...]

    @property
    def logged_at(self) -> datetime | None:
        """No later than this it was in the log; None: nobody says when."""
        return min((cosigned.at for cosigned in self.seen), default=None)


def leaf(signed: bytes, signature: bytes, key: PublicKey) -> bytes:
    """The content of the leaf about `signature` by `key` over the bytes `signed`.

    Raises:
        InvalidStatementError: not an ECDSA P-256 key: only what signs a hash can be logged by its hash.
    """
    if key.algorithm not in LOGGED:
        raise _invalid(f"it is signed with {key.algorithm}", "unsupported-algorithm")
    digest = base64.b64encode(hashlib.sha256(signed).digest())
    return _LEAF % (digest, base64.b64encode(signature), base64.b64encode(key.der))


def verify(
    entry: TlogEntry, *, signed: bytes, signature: bytes, key: PublicKey, policy: LogPolicy
) -> Logged:
    """That the log of `policy` includes `signature` by `key` over `signed`, seen by enough witnesses.

    The leaf is made anew from what the caller has verified, and compared: nothing is read out of it.

    Raises:
        SignatureInvalidError: another statement, another log, no proof, or too few witnesses.
    """
    if entry.log_id != policy.log.id:
        raise _untrusted("it is in another log than the one that you trust", "log-unknown")
    if entry.body != leaf(signed, signature, key):
        raise _untrusted("the entry is about another signature", "log-entry-mismatch")
    state = checkpoints.verify(entry.checkpoint, policy.log)
    merkle.verify_inclusion(entry.leaf_hash, entry.index, state.size, entry.proof, state.root)
    seen = dict.fromkeys(checkpoints.cosignatures(entry.checkpoint, (policy.log.cosigner,)))
    for keys, threshold in policy.witnesses:
        witnessed = checkpoints.cosignatures(entry.checkpoint, keys)
        if len({cosigned.key.key.id for cosigned in witnessed}) < threshold:
            raise _untrusted(
                f"{len(witnessed)} witnesses saw it, {threshold} are demanded", "log-unwitnessed"
            )
        seen |= dict.fromkeys(witnessed)
    return Logged(entry.index, state, tuple(seen))


def _require_agreement(entry: TlogEntry, proof: Mapping[str, Any]) -> None:
    """What stands twice must be the same: readers of one place must not be told another thing."""
    state = entry.checkpoint.checkpoint
    said = (_number(proof, "logIndex"), _number(proof, "treeSize"), _bytes(proof.get("rootHash")))
    if said != (entry.index, state.size, state.root):
        raise _invalid("its proof and its checkpoint contradict each other")


def _checkpoint(value: object) -> SignedCheckpoint:
    text = known_fields(value, "checkpoint", {"envelope"}).get("envelope")
    if not isinstance(text, str):
        raise _invalid("it has no checkpoint")
    return checkpoints.parse(text)


def _hashes(value: object) -> tuple[bytes, ...]:
    if not isinstance(value, list) or len(value) > merkle.PROOF_HASHES:
        raise _invalid("its hashes are not a list of a proof's length")
    hashes = tuple(_bytes(item) for item in value)
    if any(len(item) != merkle.HASH_BYTES for item in hashes):
        raise _invalid("a hash of its proof has not 32 bytes")
    return hashes


def _number(fields: Mapping[str, Any], name: str) -> int:
    """A 64-bit number, which protobuf writes as text; an absent one is 0."""
    text = fields.get(name, "0")
    if not isinstance(text, str) or not text.isascii() or not text.isdigit() or len(text) > 16:
        raise _invalid(f"its {name} is not a number in digits")
    if str(int(text)) != text:
        raise _invalid(f"its {name} is not canonical")
    return int(text)


def _encode(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _bytes(value: object) -> bytes:
    if not isinstance(value, str) or not value:
        raise _invalid("a field that holds base64 does not")
    try:
        content = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise _invalid("a field that holds base64 does not") from None
    if _encode(content) != value:
        raise _invalid("the base64 of a field is not canonical")
    return content


def _invalid(why: str, reason: str = "malformed-log-entry") -> InvalidStatementError:
    return InvalidStatementError(
        f"not an acceptable log entry: {why}", hint="see docs/spec/log.md, Entry", reason=reason
    )


def _untrusted(why: str, reason: str) -> SignatureInvalidError:
    return SignatureInvalidError(
        f"the transparency log's word is not accepted: {why}",
        hint="ask the publisher to push again with the log, or change the policy's log",
        reason=reason,
    )
