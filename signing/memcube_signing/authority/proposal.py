"""A key document on its way from one holder of a key to the next, until enough have signed it.

    {"format": …, "document": <payload in base64>, "signatures": [{"bundle": …, "publicKey": …}]}

It is no authority: what it proposes counts once the chain accepts it (docs/spec/keys.md, Proposals).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Final

from memcube_protocol import canonical_json, limits, media_types
from memcube_protocol.values import frozen

from memcube_signing import bundle as bundles
from memcube_signing import statement
from memcube_signing.authority import _fields
from memcube_signing.authority._fields import invalid, typed
from memcube_signing.authority.chain import signer_of
from memcube_signing.authority.document import (
    PREDICATE_TYPE,
    KeyDocument,
    from_statement,
    sign_document,
)
from memcube_signing.bundle import Bundle
from memcube_signing.dsse import known_fields
from memcube_signing.keys import PublicKey, Signer

FORMAT: Final = media_types.KEYS_PROPOSAL
_SIGNATURES: Final = 256


@frozen
class Signature:
    """A bundle over the proposed document, and the key that well signed it."""

    bundle: Bundle
    key: PublicKey


@frozen
class Proposal:
    """A key document and the signatures that it has so far: sorted by key id, one a key.

    Raises:
        InvalidStatementError: a signature is not over this document, not by its key, or not in order.
        LimitExceededError: more than 256 signatures.
    """

    document: KeyDocument
    signatures: tuple[Signature, ...] = ()

    def __post_init__(self) -> None:
        limits.require_at_most(
            "signatures of a proposal", len(self.signatures), _SIGNATURES, unit="signatures"
        )
        ids = [one.key.id for one in self.signatures]
        if sorted(set(ids)) != ids:
            raise invalid("the signatures of a proposal are not sorted by key id, each key once")
        payload = self.document.to_statement().to_bytes()
        for one in self.signatures:
            well_signed = signer_of(one.bundle, (one.key,), self.document.authority)
            if one.bundle.envelope.payload != payload or well_signed is None:
                raise invalid(f"key {one.key.id} did not sign the proposed document")

    @property
    def key_ids(self) -> frozenset[str]:
        """The ids of the keys that have signed."""
        return frozenset(one.key.id for one in self.signatures)

    def signed(self, signers: Collection[Signer]) -> Proposal:
        """The same with signatures by those of `signers` that have not signed yet.

        Raises:
            SigningKeyError: a key cannot be used.
        """
        new = [one for one in signers if one.public_key.id not in self.key_ids]
        made = zip(sign_document(self.document, new), new, strict=True)
        return self.merged(Signature(bundle, signer.public_key) for bundle, signer in made)

    def merged(self, more: Iterable[Signature]) -> Proposal:
        """The same with the signatures `more` of the very same document."""
        found = {one.key.id: one for one in (*more, *self.signatures)}
        return replace(self, signatures=tuple(found[key_id] for key_id in sorted(found)))

    def to_bytes(self) -> bytes:
        """What `parse` reads: canonical JSON."""
        signatures = [
            {"bundle": _encode(one.bundle.raw), "publicKey": _fields.key_text(one.key)}
            for one in self.signatures
        ]
        return canonical_json.dump(
            {
                "format": FORMAT,
                "document": _encode(self.document.to_statement().to_bytes()),
                "signatures": signatures,
            }
        )


def parse(content: bytes) -> Proposal:
    """The proposal that `content` holds, in its one canonical form.

    Raises:
        InvalidStatementError, InvalidJsonError, LimitExceededError: it breaks a rule.
    """
    limits.require_at_most("proposal", len(content), limits.PROOF_BYTES)
    value = canonical_json.parse_object(content, what="proposal")
    fields = known_fields(value, "proposal", {"format", "document", "signatures"})
    if fields.get("format") != FORMAT:
        raise invalid(f"the proposal is not of the format {FORMAT}")
    said = statement.parse(_decode(fields.get("document")))
    if said.predicate_type != PREDICATE_TYPE:
        raise invalid("the proposal does not hold a key document", "wrong-predicate-type")
    signatures = tuple(_signature(item) for item in typed.items(fields.get("signatures")))
    proposal = Proposal(from_statement(said), signatures)
    if proposal.to_bytes() != content:
        raise invalid("the proposal is not in canonical form", "not-canonical")
    return proposal


def _signature(value: object) -> Signature:
    fields = known_fields(value, "signature", {"bundle", "publicKey"})
    return Signature(
        bundles.parse(_decode(fields.get("bundle"))), _fields.key(fields.get("publicKey"))
    )


def _encode(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _decode(value: object) -> bytes:
    try:
        return base64.b64decode(typed.text(value), validate=True)
    except (binascii.Error, ValueError):
        raise invalid("a field of the proposal is not in base64") from None
