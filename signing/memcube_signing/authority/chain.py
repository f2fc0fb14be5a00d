"""The chain of a namespace's key documents: which of those found count, and what they say together.

A document follows another when those in charge signed it. Of two that follow the same one, the
recovery keys' wins over the authority's, and that over a role's: so a stolen key can be overruled, even
after it rotated. Two of equal rank are a fork, and nothing is decided on a fork.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime
from enum import IntEnum
from typing import Final

from memcube_protocol import limits
from memcube_protocol.errors import KeyNotAuthorisedError, SignatureInvalidError
from memcube_protocol.values import frozen

from memcube_signing import bundle as bundles
from memcube_signing import statement
from memcube_signing.authority import judging
from memcube_signing.authority._fields import invalid
from memcube_signing.authority.document import (
    PREDICATE_TYPE,
    Delegation,
    KeyDocument,
    from_statement,
    subject_of,
)
from memcube_signing.authority.judging import Judgement
from memcube_signing.bundle import Bundle, Policy
from memcube_signing.keys import PublicKey

MAX_BUNDLES: Final = 1024


class Rank(IntEnum):
    """In whose name a document was signed: the higher overrules the lower."""

    ROLE = 1
    AUTHORITY = 2
    RECOVERY = 3


@frozen
class Authority:
    """The documents in force for one namespace, oldest first, with the bundles that carry them."""

    documents: tuple[KeyDocument, ...]
    bundles: tuple[Bundle, ...]

    @property
    def name(self) -> str:
        """The namespace, `host/namespace`."""
        return self.documents[-1].authority

    @property
    def current(self) -> KeyDocument:
        """The document that is in force now."""
        return self.documents[-1]

    def keys_for(self, origin: str) -> tuple[PublicKey, ...]:
        """Every key that may sign the cube of that origin name, or could once: `judge` tells which."""
        found = {
            key.id: key
            for document in self.documents
            for quorum in document.quorums_for(origin)
            for key in quorum.keys
        }
        return tuple(found[key_id] for key_id in sorted(found))

    def judge(
        self,
        origin: str,
        signers: Mapping[str, datetime | None],
        created_at: datetime,
        began_at: Callable[[int], datetime] | None = None,
    ) -> Judgement:
        """Why a release of `origin` by `signers` (key id: when it was logged, if it was) is valid.

        `began_at` tells when the document at a place came into force; by default, what it says itself.

        Raises:
            KeyNotAuthorisedError: it is not; the reason says why.
        """
        return judging.judge(self.documents, origin, signers, created_at, began_at)

    def may_speak(
        self,
        origin: str,
        signers: Mapping[str, datetime | None],
        stated_at: datetime,
        began_at: Callable[[int], datetime] | None = None,
    ) -> bool:
        """Whether one of `signers` had a part in `origin` when it spoke, and is still believed."""
        return judging.may_speak(self.documents, origin, signers, stated_at, began_at)

    def lacking(self, origin: str, key_ids: Collection[str]) -> int:
        """How many more keys have to sign a release of `origin` that `key_ids` have signed."""
        quorums = self.current.quorums_for(origin)
        return min(max(0, one.threshold - len(one.ids & set(key_ids))) for one in quorums)

    def is_rooted_in(self, keys: Collection[PublicKey]) -> bool:
        """Whether one of `keys`, trusted before, signed a document of this chain."""
        return any(signer_of(bundle, keys, self.name) for bundle in self.bundles)


def resolve(
    authority: str, found: Iterable[bytes], *, stop_at: int | None = None
) -> Authority | None:
    """What the bundles `found` say about the namespace `authority`; nothing where they say nothing.

    Documents that nobody in charge signed do not count. The order of `found` does not matter, so
    that what was known before and what is served now are simply taken together. Documents of number
    `stop_at` and later are left out: what recovery keys overrule.

    Raises:
        KeyNotAuthorisedError: the chain forks.
        InvalidStatementError, InvalidJsonError, LimitExceededError: a bundle is malformed. None is
            passed over, since it could hold a revocation.
    """
    candidates = [
        one
        for one in _candidates(authority, found)
        if stop_at is None or one.document.seq < stop_at
    ]
    chain: list[_Candidate] = []
    while following := _following(chain[-1].document if chain else None, candidates):
        chain.append(following)
    if not chain:
        return None
    carried = tuple(bundle for one in chain for bundle in one.bundles)
    return Authority(tuple(one.document for one in chain), carried)


def about(authority: str, found: Iterable[bytes]) -> tuple[bytes, ...]:
    """Those of the bundles `found` that state something about the namespace `authority`.

    Raises:
        InvalidStatementError, InvalidJsonError, LimitExceededError: one is malformed.
    """
    return tuple(
        raw
        for raw in found
        if statement.parse(bundles.parse(raw).envelope.payload).name == authority
    )


@frozen
class _Candidate:
    """A document as found, with all bundles over its bytes."""

    document: KeyDocument
    bundles: tuple[Bundle, ...]

    def signers(self, keys: Collection[PublicKey]) -> frozenset[str]:
        signers = (signer_of(bundle, keys, self.document.authority) for bundle in self.bundles)
        return frozenset(key.id for key in signers if key)


def _candidates(authority: str, found: Iterable[bytes]) -> list[_Candidate]:
    by_payload: dict[bytes, dict[bytes, Bundle]] = {}
    for count, raw in enumerate(found):
        limits.require_at_most("key documents", count + 1, MAX_BUNDLES, unit="bundles")
        bundle = bundles.parse(raw)
        by_payload.setdefault(bundle.envelope.payload, {})[raw] = bundle
    candidates = [
        _Candidate(_document(payload, authority), tuple(same.values()))
        for payload, same in by_payload.items()
    ]
    return sorted(candidates, key=lambda one: one.document.seq)


def _document(payload: bytes, authority: str) -> KeyDocument:
    said = statement.parse(payload)
    if said.predicate_type != PREDICATE_TYPE:
        raise invalid(f"it states {said.predicate_type[:120]!r}", "wrong-predicate-type")
    document = from_statement(said)
    if document.to_statement().to_bytes() != payload:
        raise invalid("its payload is not in canonical form", "not-canonical")
    if document.authority != authority:
        raise invalid(f"it is about {document.authority}, not {authority}", "wrong-authority")
    return document


def signer_of(bundle: Bundle, keys: Collection[PublicKey], authority: str) -> PublicKey | None:
    """The one of `keys` that well signed `bundle`, a key document of `authority`."""
    try:
        return bundles.verify(bundle, Policy(keys, PREDICATE_TYPE, subject_of(authority)))[1]
    except SignatureInvalidError:
        return None


def _following(before: KeyDocument | None, candidates: list[_Candidate]) -> _Candidate | None:
    """The document that follows `before`; the first one where there is none."""
    previous = before.digest if before else None
    ranked = [
        (rank, one)
        for one in candidates
        if one.document.previous == previous and (rank := _rank(before, one)) is not None
    ]
    best = max((rank for rank, _ in ranked), default=None)
    chosen = [one for rank, one in ranked if rank is best]
    if len(chosen) > 1:
        document = chosen[0].document
        raise KeyNotAuthorisedError(
            f"two key documents number {document.seq} of {document.authority} contradict each other",
            hint="a key was stolen, or two people changed the keys at once: ask the publisher, who "
            "can settle it with the recovery keys (memcube keys recover)",
            reason="keys-forked",
        )
    return chosen[0] if chosen else None


def _rank(before: KeyDocument | None, one: _Candidate) -> Rank | None:
    """In whose name `one` may follow `before`; nothing where it may not."""
    document = one.document
    own = one.signers(document.quorum.keys)
    if before is None:
        return Rank.AUTHORITY if document.seq == 1 and document.quorum.is_met_by(own) else None
    if not _continues(before, document):
        return None
    # Who takes charge shows that it holds the keys, so that nobody is locked out by a wrong one.
    if document.quorum != before.quorum and not document.quorum.is_met_by(own):
        return None
    recovery = before.recovery
    if recovery and recovery.is_met_by(one.signers(recovery.keys)):
        return Rank.RECOVERY
    # Else a stolen key could take the means away that it is overruled with.
    if recovery and document.recovery != recovery:
        return None
    if before.quorum.is_met_by(one.signers(before.quorum.keys)):
        return Rank.AUTHORITY
    in_charge = any(
        role.quorum.is_met_by(one.signers(role.quorum.keys))
        for role in before.delegations
        if _changes_only_below(role, before, document)
    )
    return Rank.ROLE if in_charge else None


def _continues(before: KeyDocument, document: KeyDocument) -> bool:
    """Whether `document` keeps what must stay: number, order in time, every revocation."""
    since = {one.key_id: one.compromised_since for one in document.revoked}
    return (
        document.seq == before.seq + 1
        and document.created_at >= before.created_at
        and all(
            one.key_id in since and since[one.key_id] <= one.compromised_since
            for one in before.revoked
        )
    )


def _changes_only_below(role: Delegation, before: KeyDocument, document: KeyDocument) -> bool:
    """Whether all that `document` changes are roles below `role`."""
    kept = [
        tuple(other for other in one.delegations if not other.role.startswith(f"{role.role}/"))
        for one in (before, document)
    ]
    return kept[0] == kept[1] and (before.quorum, before.recovery, before.revoked) == (
        document.quorum,
        document.recovery,
        document.revoked,
    )
