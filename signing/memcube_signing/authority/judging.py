"""The judgement on a signature: was the signer in charge of that name, then, and is it still believed?

Time of a signature is when the log took it in. Where it was not logged, it is what the release says of
itself, which only its signer vouches for: enough for a key that was retired in peace, never for one
that was revoked. So it is with the time when a document came into force.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime

from memcube_protocol.errors import KeyNotAuthorisedError
from memcube_protocol.values import frozen

from memcube_signing.authority.document import KeyDocument, Quorum
from memcube_signing.release import CLOCK_TOLERANCE


@frozen
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
    began_at: Callable[[int], datetime] | None = None,
) -> Judgement:
    """Why a release of `origin`, signed by `signers`, is valid under the chain `documents`.

    `began_at` tells when the document at a place came into force: asked only where it matters.

    Raises:
        KeyNotAuthorisedError: `key-revoked`, `key-retired`, `threshold-not-met` or
            `key-not-authorised`.
    """
    believed = _believed(documents, signers, created_at)
    for at, then in _in_time(documents, believed, began_at):
        if (quorum := _met(documents[at], origin, then)) is not None:
            counted = tuple(sorted(quorum.ids & then))
            retired = at < len(documents) - 1
            return Judgement(documents[at].seq, quorum, counted, retired)
    raise _refusal(documents, origin, signers, believed)


def may_speak(
    documents: Sequence[KeyDocument],
    origin: str,
    signers: Mapping[str, datetime | None],
    stated_at: datetime,
    began_at: Callable[[int], datetime] | None = None,
) -> bool:
    """Whether one of `signers` had a part in a quorum for `origin` when it spoke, and is still believed.

    That is enough to warn of a release; to vouch for one takes a quorum (`judge`).
    """
    believed = _believed(documents, signers, stated_at)
    return any(
        quorum.ids & then
        for at, then in _in_time(documents, believed, began_at)
        for quorum in documents[at].quorums_for(origin)
    )


def _believed(
    documents: Sequence[KeyDocument], signers: Mapping[str, datetime | None], said_at: datetime
) -> dict[str, datetime]:
    """The signers that are not revoked, or were logged before that, each with when it signed."""
    revoked = {one.key_id: one.compromised_since for one in documents[-1].revoked}
    return {
        key_id: logged_at or said_at
        for key_id, logged_at in signers.items()
        if key_id not in revoked or (logged_at is not None and logged_at < revoked[key_id])
    }


def _in_time(
    documents: Sequence[KeyDocument],
    believed: Mapping[str, datetime],
    began_at: Callable[[int], datetime] | None,
) -> Iterator[tuple[int, set[str]]]:
    """Places of documents, the last first, each with the signers who signed before it was replaced."""
    yield len(documents) - 1, set(believed)
    for at in range(len(documents) - 2, -1, -1):
        began = began_at(at + 1) if began_at else documents[at + 1].created_at
        ended = began + CLOCK_TOLERANCE
        yield at, {key_id for key_id, when in believed.items() if when <= ended}


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
