"""The judgement on a signature: was the signer in charge of that name, then, and is it still believed?

Time of a signature is when the log took it in. Where it was not logged, it is what the release says of
itself, which only its signer vouches for: enough for a key that was retired in peace, never for one
that was revoked.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from memcube_protocol.errors import KeyNotAuthorisedError

from memcube_signing.authority.document import KeyDocument, Quorum
from memcube_signing.release import CLOCK_TOLERANCE


@dataclass(frozen=True, slots=True)
class Judgement:
    """By which document a signature is valid: its `seq`, the quorum that was met, and the keys that met it.

    `retired` says that these keys are in charge no more.
    """

    seq: int
    quorum: Quorum
    key_ids: tuple[str, ...]
    retired: bool


def judge(
    documents: Sequence[KeyDocument],
    origin: str,
    signers: Mapping[str, datetime | None],
    created_at: datetime,
) -> Judgement:
    """Why a release of `origin`, signed by `signers`, is valid under the chain `documents`.

    Raises:
        KeyNotAuthorisedError: `key-revoked`, `key-retired`, `threshold-not-met` or
            `key-not-authorised`.
    """
    revoked = {one.key_id: one.compromised_since for one in documents[-1].revoked}
    believed = {
        key_id: logged_at or created_at
        for key_id, logged_at in signers.items()
        if key_id not in revoked or (logged_at is not None and logged_at < revoked[key_id])
    }
    for at in range(len(documents) - 1, -1, -1):
        ended = documents[at + 1].created_at + CLOCK_TOLERANCE if at + 1 < len(documents) else None
        then = {key_id for key_id, when in believed.items() if ended is None or when <= ended}
        if (quorum := _met(documents[at], origin, then)) is not None:
            counted = tuple(sorted(quorum.ids & then))
            return Judgement(documents[at].seq, quorum, counted, retired=ended is not None)
    raise _refusal(documents, origin, signers, believed)


def _met(document: KeyDocument, origin: str, key_ids: Collection[str]) -> Quorum | None:
    return next((one for one in document.quorums_for(origin) if one.is_met_by(key_ids)), None)


def _refusal(
    documents: Sequence[KeyDocument],
    origin: str,
    signers: Mapping[str, datetime | None],
    believed: Mapping[str, datetime],
) -> KeyNotAuthorisedError:
    """The first cause that explains why nobody's signature was enough."""
    shown, current = ", ".join(sorted(signers)), documents[-1]
    once = {
        key_id for one in documents for quorum in one.quorums_for(origin) for key_id in quorum.ids
    }
    if lost := sorted(once & set(signers) - believed.keys()):
        return _refused(
            f"key {lost[0]} was revoked, and no log shows that it signed {origin} before that",
            "do not use this release; ask the publisher for one by the new key",
            "key-revoked",
        )
    if any(quorum.ids & believed.keys() for quorum in current.quorums_for(origin)):
        needed = min(quorum.threshold for quorum in current.quorums_for(origin))
        return _refused(
            f"{origin} is signed by {shown} only, and {needed} keys have to sign it",
            "wait until the others have signed it, or ask the publisher",
            "threshold-not-met",
        )
    if once & believed.keys():
        return _refused(
            f"key {shown} was replaced before it signed this release of {origin}",
            "do not use it; ask the publisher for a release by the new key",
            "key-retired",
        )
    return _refused(
        f"the key documents of {current.authority} do not let key {shown} sign {origin}",
        "do not use it; the publisher can allow the key (memcube keys delegate)",
        "key-not-authorised",
    )


def _refused(message: str, hint: str, reason: str) -> KeyNotAuthorisedError:
    return KeyNotAuthorisedError(message, hint=hint, reason=reason)
