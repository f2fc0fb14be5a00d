"""Deprecating, yanking and reinstating a release that is published already.

Nothing is deleted: the publisher states it, and clients of everybody obey the statement.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

from memcube_protocol.errors import SignatureMissingError
from memcube_protocol.reference import Reference
from memcube_protocol.timestamps import whole_seconds
from memcube_protocol.values import frozen
from memcube_signing.authority.chain import Authority
from memcube_signing.authority.document import authority_of
from memcube_signing.keys import PublicKey
from memcube_signing.predicates import attest
from memcube_signing.predicates import status as statuses
from memcube_signing.predicates.status import Reason, State, Status
from memcube_signing.release import Release

from memcube.consuming.finding import Found
from memcube.context import Context
from memcube.keys import documents
from memcube.publishing.attesting import at_registry, attach, own_release
from memcube.trust import location_of, releases_of
from memcube.trust.attested import values_of
from memcube.trust.publishing import publishers_of


@frozen
class Withdrawn:
    """What was stated about a release, and where it is published."""

    reference: Reference
    status: Status
    key_id: str


def set_status(
    context: Context,
    reference: Reference,
    state: State,
    reason: Reason,
    *,
    message: str | None = None,
    replacement: str | None = None,
    key: str | None = None,
) -> Withdrawn:
    """State that the release at `reference` is yanked, deprecated, or active again.

    Raises:
        SignatureMissingError: it was not released with this key, nor by others in charge beside it.
        KeyNotAuthorisedError: the namespace's key documents do not let this key sign.
        InvalidStatementError: `message` or `replacement` is no printable line of 500 characters.
        NotFoundError, ForbiddenError, NetworkError: as the registry answers.
        SigningKeyError: the key cannot be used.
    """
    found, registry = at_registry(context, reference)
    signer = context.signer(key)
    release, speakers = _speaking_for(context, found, signer.public_key)
    status = Status(
        subject=found.manifest.digest,
        origin=release.origin,
        version=release.version,
        state=state,
        reason=reason,
        stated_at=_next_moment(context, found, speakers),
        message=message,
        replacement=replacement,
    )
    bundle = attest(status, signer)
    attach(context, registry, found, bundle, statuses.PREDICATE_TYPE, signer)
    return Withdrawn(found.reference, status, signer.public_key.id)


def _speaking_for(
    context: Context, found: Found, key: PublicKey
) -> tuple[Release, tuple[PublicKey, ...]]:
    """The release that `key` may speak about, and all keys that may.

    Who released it, where the namespace has no key documents; else who is in charge of its name now.
    """
    releases = releases_of(found.manifest, found.attestations)
    own = next((one.release for one in releases if one.key == key), None)
    origin = own.origin if own else location_of(found.reference)
    authority = _authority_over(context, found, origin)
    if authority is None:
        return own_release(found, key).release, (key,)
    publishers_of(authority, origin, key)
    speakers = authority.keys_for(origin)
    for one in releases:
        if one.release.origin == origin and one.key in speakers:
            return one.release, speakers
    raise SignatureMissingError(
        f"{found.reference} was not released by a key of {authority.name}",
        hint="there is nothing to withdraw: its readers refuse it",
    )


def _authority_over(context: Context, found: Found, origin: str) -> Authority | None:
    """The key documents that decide about `origin`; asked for anew where the cube lies at home."""
    if origin == location_of(found.reference):
        return documents.refresh(context, documents.namespace_of(found.reference))
    return context.authorities.load(authority_of(origin))


def _next_moment(context: Context, found: Found, keys: Collection[PublicKey]) -> datetime:
    """Now, but after every statement that one of these keys made before: the latest one counts."""
    before = values_of(statuses.KIND, found.attestations, found.manifest.digest, keys)
    last = max((one.value.stated_at for one in before), default=None)
    now = whole_seconds(context.now())
    return max(now, last + timedelta(seconds=1)) if last else now
