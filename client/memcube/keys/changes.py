"""The key documents of a namespace, changed by those in charge.

    memcube keys announce · rotate · revoke · delegate · recover · history

Each act reads the current document, writes the next one, has it signed, by keys of this machine or of
several (proposals.py), and publishes the whole chain (documents.py; docs/spec/keys.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

from memcube_protocol.errors import ConflictError
from memcube_protocol.reference import Reference
from memcube_protocol.timestamps import whole_seconds
from memcube_signing.authority.chain import Authority, resolve
from memcube_signing.authority.document import Delegation, KeyDocument, Quorum, Revocation
from memcube_signing.keys import Signer

from memcube.context import Context
from memcube.keys.documents import found, no_chain, publish, refresh, signed
from memcube.trust import location_of

Change = Callable[[KeyDocument], KeyDocument]


def first(
    context: Context, namespace: Reference, quorum: Quorum, *, recovery: Quorum | None = None
) -> KeyDocument:
    """The document that begins the chain of `namespace`, where `quorum` decides from now on.

    Raises:
        ConflictError: it has a chain already.
    """
    authority = location_of(namespace)
    if refresh(context, namespace) is not None:
        raise ConflictError(
            f"{authority} has key documents already",
            hint="see memcube keys history; change them with memcube keys rotate",
        )
    return KeyDocument(authority, 1, None, _now(context), quorum, recovery=recovery)


def following(context: Context, namespace: Reference, changed: Change) -> KeyDocument:
    """The document that `changed` makes of the one in force.

    Raises:
        NotFoundError: the namespace has no chain yet.
        InvalidStatementError: the new document breaks a rule.
    """
    known = refresh(context, namespace)
    if known is None:
        raise no_chain(namespace)
    return changed(_following(context, known))


def overruling(
    context: Context, namespace: Reference, changed: Change, overrules: int | None = None
) -> KeyDocument:
    """As `following`, for recovery keys: the document number `overrules` and all after it are void.

    It also settles a fork, whose number is then to be named.

    Raises:
        NotFoundError, InvalidStatementError: as `following`.
    """
    authority = location_of(namespace)
    known = resolve(authority, found(context, namespace), stop_at=overrules)
    if known is None:
        raise no_chain(namespace)
    return changed(_following(context, known))


def announce(
    context: Context,
    namespace: Reference,
    quorum: Quorum,
    signers: Sequence[Signer],
    *,
    recovery: Quorum | None = None,
) -> Authority:
    """Begin the chain of `namespace`: from now on `quorum` decides who releases there.

    Raises:
        ConflictError: it has a chain already.
        KeyNotAuthorisedError: too few of the keys signed.
    """
    return publish(context, *signed(first(context, namespace, quorum, recovery=recovery), signers))


def change(
    context: Context, namespace: Reference, signers: Sequence[Signer], changed: Change
) -> Authority:
    """Publish the document that `changed` makes of the current one, signed by `signers`.

    Raises:
        NotFoundError: the namespace has no chain yet.
        KeyNotAuthorisedError: too few of those in charge signed.
        InvalidStatementError: the new document breaks a rule.
    """
    return publish(context, *signed(following(context, namespace, changed), signers))


def recover(
    context: Context,
    namespace: Reference,
    signers: Sequence[Signer],
    changed: Change,
    *,
    overrules: int | None = None,
) -> Authority:
    """As `change`, by the recovery keys; see `overruling`.

    Raises:
        NotFoundError, KeyNotAuthorisedError, InvalidStatementError: as `change`.
    """
    document = overruling(context, namespace, changed, overrules)
    return publish(context, *signed(document, signers))


def rotated(quorum: Quorum, *, recovery: Quorum | None = None) -> Change:
    """Another quorum takes charge; with `recovery`, also other recovery keys."""

    def changed(document: KeyDocument) -> KeyDocument:
        return replace(document, quorum=quorum, recovery=recovery or document.recovery)

    return changed


def revoked(key_id: str, compromised_since: datetime, *, instead: Quorum | None = None) -> Change:
    """A key is not believed any more, and is in charge of nothing; `instead` takes its place."""

    def changed(document: KeyDocument) -> KeyDocument:
        known = {one.key_id: one for one in document.revoked}
        since = whole_seconds(compromised_since)
        if key_id in known:
            since = min(since, known[key_id].compromised_since)
        known[key_id] = Revocation(key_id, since)
        delegations = tuple(
            replace(one, quorum=one.quorum.without({key_id}))
            for one in document.delegations
            if one.quorum.ids != {key_id}
        )
        return replace(
            document,
            quorum=instead or document.quorum.without({key_id}),
            recovery=document.recovery and document.recovery.without({key_id}),
            delegations=_with_parents(delegations),
            revoked=tuple(known[one] for one in sorted(known)),
        )

    return changed


def delegated(role: str, patterns: Sequence[str], quorum: Quorum | None) -> Change:
    """A role with its patterns and keys; without keys the role ends, with those below it."""

    def changed(document: KeyDocument) -> KeyDocument:
        others = [one for one in document.delegations if one.role != role]
        if quorum is None:
            return replace(document, delegations=_with_parents(tuple(others)))
        absolute = sorted({_absolute(document.authority, pattern) for pattern in patterns})
        others.append(Delegation(role, tuple(absolute), quorum))
        return replace(document, delegations=tuple(sorted(others, key=lambda one: one.role)))

    return changed


def _following(context: Context, known: Authority) -> KeyDocument:
    """The current document again, with the next number."""
    before = known.current
    return replace(
        before,
        seq=before.seq + 1,
        previous=before.digest,
        created_at=max(_now(context), before.created_at),
    )


def _with_parents(delegations: tuple[Delegation, ...]) -> tuple[Delegation, ...]:
    """`delegations` without those whose parent is gone."""
    kept: dict[str, Delegation] = {}
    for one in sorted(delegations, key=lambda each: each.role):
        if not one.parent or one.parent in kept:
            kept[one.role] = one
    return tuple(kept[role] for role in sorted(kept))


def _absolute(authority: str, pattern: str) -> str:
    """`pattern` in full: `research-*` means a name below the namespace."""
    return pattern if pattern.startswith(f"{authority}/") else f"{authority}/{pattern}"


def _now(context: Context) -> datetime:
    return whole_seconds(context.now())
