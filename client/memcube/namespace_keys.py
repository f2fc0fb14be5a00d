"""The key documents of a namespace: found at its registry, changed and published by those in charge.

    memcube keys announce · rotate · revoke · delegate · recover · history

Each act reads the current document, writes the next one, has it signed by keys of this machine, checks
that the chain accepts it, and publishes the whole chain as one artifact (docs/spec/keys.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

from memcube_protocol import limits, oci
from memcube_protocol.errors import (
    ConflictError,
    ForbiddenError,
    KeyNotAuthorisedError,
    NotFoundError,
    UnauthenticatedError,
    UnsupportedError,
)
from memcube_protocol.reference import Reference
from memcube_signing.authority import carrier
from memcube_signing.authority.chain import Authority, resolve
from memcube_signing.authority.document import (
    Delegation,
    KeyDocument,
    Quorum,
    Revocation,
    sign_document,
)
from memcube_signing.keys import Signer

from memcube.context import Context
from memcube.remote import Registry
from memcube.transfer import push_blobs
from memcube.trust import location_of
from memcube.visibility import Visibility, set_visibility

Change = Callable[[KeyDocument], KeyDocument]


def namespace_of(place: Reference) -> Reference:
    """The namespace of the cube at `place`: host and first component."""
    return Reference(place.host, place.name.partition("/")[0])


def fetch(registry: Registry, namespace: str) -> tuple[bytes, ...]:
    """The bundles of key documents that `registry` has for `namespace`: none where there are none.

    Raises:
        InvalidManifestError, IntegrityError, LimitExceededError: it answers nonsense.
        NetworkError: no answer.
    """
    name = f"{namespace}/{carrier.NAME}"
    try:
        manifest = registry.manifest(name, carrier.TAG)
        layers = carrier.read(manifest)
        return tuple(registry.read_blob(name, layer, limits.BUNDLE_BYTES) for layer in layers)
    except (NotFoundError, UnauthenticatedError, ForbiddenError):
        # Other registries say one of the latter of a repository that does not exist.
        return ()


def refresh(context: Context, namespace: Reference) -> Authority | None:
    """What is known of `namespace` after asking its registry: kept from now on."""
    registry = context.registry(namespace.host)
    return context.authorities.add(location_of(namespace), fetch(registry, namespace.name))


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
    if refresh(context, namespace) is not None:
        raise ConflictError(
            f"{location_of(namespace)} has key documents already",
            hint="see memcube keys history; change them with memcube keys rotate",
        )
    document = KeyDocument(
        location_of(namespace), 1, None, _now(context), quorum, recovery=recovery
    )
    return _publish(context, namespace, document, signers)


def change(
    context: Context, namespace: Reference, signers: Sequence[Signer], changed: Change
) -> Authority:
    """Publish the document that `changed` makes of the current one, signed by `signers`.

    Raises:
        NotFoundError: the namespace has no chain yet.
        KeyNotAuthorisedError: too few of those in charge signed.
        InvalidStatementError: the new document breaks a rule.
    """
    known = refresh(context, namespace)
    if known is None:
        raise _no_chain(namespace)
    return _publish(context, namespace, changed(_following(context, known)), signers)


def recover(
    context: Context,
    namespace: Reference,
    signers: Sequence[Signer],
    changed: Change,
    *,
    overrules: int | None = None,
) -> Authority:
    """As `change`, by the recovery keys: the document number `overrules` and all after it are void.

    It also settles a fork, whose number is then to be named.

    Raises:
        NotFoundError, KeyNotAuthorisedError, InvalidStatementError: as `change`.
    """
    authority = location_of(namespace)
    served = fetch(context.registry(namespace.host), namespace.name)
    found = (*context.authorities.bundles(authority), *served)
    known = resolve(authority, found, stop_at=overrules)
    if known is None:
        raise _no_chain(namespace)
    return _publish(context, namespace, changed(_following(context, known)), signers, found)


def rotated(quorum: Quorum, *, recovery: Quorum | None = None) -> Change:
    """Another quorum takes charge; with `recovery`, also other recovery keys."""

    def changed(document: KeyDocument) -> KeyDocument:
        return replace(document, quorum=quorum, recovery=recovery or document.recovery)

    return changed


def revoked(key_id: str, compromised_since: datetime, *, instead: Quorum | None = None) -> Change:
    """A key is not believed any more, and is in charge of nothing; `instead` takes its place."""

    def changed(document: KeyDocument) -> KeyDocument:
        known = {one.key_id: one for one in document.revoked}
        since = compromised_since.astimezone(UTC).replace(microsecond=0)
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


def _no_chain(namespace: Reference) -> NotFoundError:
    return NotFoundError(
        f"{location_of(namespace)} has no key documents yet",
        hint=f"begin with: memcube keys announce {namespace.name}",
    )


def _publish(
    context: Context,
    namespace: Reference,
    document: KeyDocument,
    signers: Sequence[Signer],
    found: Sequence[bytes] = (),
) -> Authority:
    authority = document.authority
    bundles = [*found, *(bundle.raw for bundle in sign_document(document, signers))]
    known = context.authorities.bundles(authority)
    made = resolve(authority, (*known, *bundles))
    if made is None or made.current != document:
        raise KeyNotAuthorisedError(
            f"the keys that signed here may not change the keys of {authority}",
            hint="sign with the keys in charge, or with the recovery keys, and with the new ones "
            "(--key NAME, several times)",
        )
    _push(context, namespace, made)
    kept = context.authorities.add(authority, bundles)
    assert kept is not None
    return kept


def _push(context: Context, namespace: Reference, made: Authority) -> None:
    """The whole chain at its place, which everybody may read where the registry knows such a thing."""
    registry = context.registry(namespace.host)
    place = Reference(namespace.host, f"{namespace.name}/{carrier.NAME}", carrier.TAG)
    manifest = carrier.write(made.bundles)
    with context.store.session():
        for content in (b"{}", *(bundle.raw for bundle in made.bundles)):
            context.store.blobs.add(content)
        push_blobs(registry, place.name, _each_once(manifest), context.store)
        registry.put_manifest(place.name, manifest, carrier.TAG)
    with suppress(UnsupportedError):
        set_visibility(context, place, Visibility.PUBLIC)


def _each_once(manifest: oci.Manifest) -> list[oci.Descriptor]:
    return list({blob.digest: blob for blob in manifest.blobs}.values())


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
    return context.now().astimezone(UTC).replace(microsecond=0)
