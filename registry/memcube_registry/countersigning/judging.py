"""What the registry verifies before it countersigns: a pure decision over bytes (`rules.TEXT`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from memcube_protocol import oci
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    KeyNotAuthorisedError,
    MemcubeError,
    OriginMismatchError,
    ReleaseExpiredError,
    SignatureInvalidError,
    UnavailableError,
)
from memcube_signing import bundle as bundles
from memcube_signing import referrer
from memcube_signing.authority.chain import resolve
from memcube_signing.authority.document import authority_of
from memcube_signing.bundle import Bundle
from memcube_signing.keys import PublicKey
from memcube_signing.release import CLOCK_TOLERANCE, Release, verify_release
from memcube_signing.transparency.bundled import verify_logged
from memcube_signing.transparency.checkpoint import NoteKey
from memcube_signing.transparency.entry import Logged, LogPolicy
from memcube_signing.transparency.places import history_of

_CLOCK_MAY_BE_WRONG: Final = timedelta(days=2)
"""What is dated ahead by less is not refused for good: a clock that is set right catches up with it."""


@dataclass(frozen=True, slots=True)
class Attached:
    """A manifest that attaches a bundle, and the bundle's bytes."""

    manifest: oci.Manifest
    bundle: bytes


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is known of a release at the registry: nothing of it is believed yet.

    `name` is `host/namespace/name` of the repository; `others` are further bundles on the same manifest;
    `key_documents` are the namespace's; `first_history` names the publishers of the first release of
    the namespace in the log (`transparency.places`).
    """

    name: str
    subject: Digest
    release: Attached
    others: tuple[Attached, ...]
    key_documents: tuple[bytes, ...]
    first_history: str | None


@dataclass(frozen=True, slots=True)
class Accepted:
    """A release that passed: the bundles and keys that counted, and its place in the log."""

    release: Release
    inputs: tuple[Digest, ...]
    publishers: tuple[str, ...]
    index: int


@dataclass(frozen=True, slots=True)
class _Signed:
    release: Release
    key: PublicKey
    bundle: Bundle
    logged: Logged


def judge(evidence: Evidence, log: NoteKey, now: datetime) -> Accepted:
    """That the release may be countersigned.

    Raises:
        SignatureMissingError, SignatureInvalidError, InvalidStatementError, …: it is none, or not by the
            key that it names, or not in the log.
        OriginMismatchError: it is a release of another name.
        ReleaseExpiredError: it is not valid now.
        UnavailableError: it is dated a little ahead, so that the clock here may be behind: later.
        KeyNotAuthorisedError: another key is on record, or too few of those in charge signed.
    """
    own = _signed(evidence.release, evidence.subject, log)
    if own.release.origin != evidence.name:
        raise OriginMismatchError(
            f"the release is one of {own.release.origin}, not of {evidence.name}",
            hint="publish it at the name that it states",
        )
    _require_valid(own.release, now)
    signers = {one.key.id: one for one in (*_cosigned(own, evidence, log), own)}
    counted = _on_record(own, tuple(signers.values()), evidence)
    inputs = (
        own.bundle.digest,
        *sorted(signers[one].bundle.digest for one in counted if one != own.key.id),
    )
    return Accepted(own.release, inputs, counted, own.logged.index)


def _signed(attached: Attached, subject: Digest, log: NoteKey) -> _Signed:
    """The release in `attached`, signed by the key that comes with it, which proves nothing yet."""
    about = referrer.read(attached.manifest)
    if about.offered_key is None:
        raise SignatureInvalidError(
            "the bundle comes without its public key", hint="push it with memcube", reason="no-key"
        )
    key = about.offered_key
    release = verify_release(attached.bundle, keys=(key,), subject=subject)
    bundle = bundles.parse(attached.bundle)
    return _Signed(release, key, bundle, verify_logged(bundle, key, LogPolicy(log)))


def _cosigned(own: _Signed, evidence: Evidence, log: NoteKey) -> list[_Signed]:
    """The very same release, signed by others; what is broken does not count."""
    found: list[_Signed] = []
    for attached in evidence.others:
        try:
            one = _signed(attached, evidence.subject, log)
        except MemcubeError:
            continue
        if one.release == own.release:
            found.append(one)
    return found


def _on_record(own: _Signed, signers: Sequence[_Signed], evidence: Evidence) -> tuple[str, ...]:
    """Ids of the keys that counted, sorted: those whom the namespace lets sign."""
    authority = resolve(authority_of(evidence.name), evidence.key_documents)
    if authority is None:
        if evidence.first_history != history_of(own.release.publishers):
            raise _unknown_key(
                own, "the first release of its namespace in the log was signed with another"
            )
        return (own.key.id,)
    logged = {one.key.id: one.logged.logged_at for one in signers}
    judgement = authority.judge(own.release.origin, logged, own.release.created_at)
    if own.key.id not in judgement.key_ids:
        raise _unknown_key(own, f"the key documents of {authority.name} do not name it")
    return judgement.key_ids


def _require_valid(release: Release, now: datetime) -> None:
    ahead = release.created_at - now
    if CLOCK_TOLERANCE < ahead < _CLOCK_MAY_BE_WRONG:
        raise UnavailableError(
            f"the release is dated {release.created_at}, ahead of this registry's clock",
            hint="look whether the clock is right; the release is judged again later",
        )
    if ahead > CLOCK_TOLERANCE:
        raise _not_valid(f"it was created at {release.created_at}", "not-yet-valid")
    if release.expires_at and now > release.expires_at + CLOCK_TOLERANCE:
        raise _not_valid(f"it expired at {release.expires_at}", "release-expired")


def _not_valid(why: str, reason: str) -> ReleaseExpiredError:
    return ReleaseExpiredError(
        f"the release is not valid now: {why}", hint="release it anew", reason=reason
    )


def _unknown_key(own: _Signed, why: str) -> KeyNotAuthorisedError:
    return KeyNotAuthorisedError(
        f"key {own.key.id} is not the one on record for {own.release.origin}: {why}",
        hint="the namespace can let it sign (memcube keys announce, memcube keys delegate)",
        reason="key-not-on-record",
    )
