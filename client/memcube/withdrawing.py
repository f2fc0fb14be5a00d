"""Deprecating, yanking and reinstating a release that is published already.

Nothing is deleted: the publisher states it, and clients of everybody obey the statement.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from memcube_protocol.reference import Reference
from memcube_signing.keys import PublicKey
from memcube_signing.predicates import attest
from memcube_signing.predicates import status as statuses
from memcube_signing.predicates.reading import whole_seconds
from memcube_signing.predicates.status import Reason, State, Status

from memcube.attesting import at_registry, attach, own_release
from memcube.consume import Found
from memcube.context import Context
from memcube.trust.attested import values_of


@dataclass(frozen=True, slots=True)
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
        SignatureMissingError: it was not released with this key.
        InvalidStatementError: `message` or `replacement` is no printable line of 500 characters.
        NotFoundError, ForbiddenError, NetworkError: as the registry answers.
        SigningKeyError: the key cannot be used.
    """
    found, registry = at_registry(context, reference)
    signer = context.signer(key)
    release = own_release(found, signer.public_key).release
    status = Status(
        subject=found.manifest.digest,
        origin=release.origin,
        version=release.version,
        state=state,
        reason=reason,
        stated_at=_next_moment(context, found, signer.public_key),
        message=message,
        replacement=replacement,
    )
    bundle = attest(status, signer)
    attach(context, registry, found, bundle, statuses.PREDICATE_TYPE, signer)
    return Withdrawn(found.reference, status, signer.public_key.id)


def _next_moment(context: Context, found: Found, key: PublicKey) -> datetime:
    """Now, but after every statement that this key made before: the latest one counts."""
    before = values_of(statuses.KIND, found.attestations, found.manifest.digest, (key,))
    last = max((one.value.stated_at for one in before), default=None)
    now = whole_seconds(context.now())
    return max(now, last + timedelta(seconds=1)) if last else now
