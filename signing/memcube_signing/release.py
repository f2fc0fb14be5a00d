"""Release statements: the publisher binds name, version, order and bytes of a cube (docs/spec/statements.md).

A cube keeps the origin name of its release wherever it is copied. `seq` counts an origin's releases
from 1, and `previous` chains each to the one before, so that nothing can be swapped, mixed, dropped
or rolled back unseen. The payload is canonical JSON, and fields that are not known are refused.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from memcube_protocol import canonical_json, timestamps
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    InvalidDigestError,
    InvalidReferenceError,
    InvalidStatementError,
    SignatureInvalidError,
)
from memcube_protocol.reference import Reference, tag_of_version
from memcube_protocol.values import frozen

from memcube_signing import bundle as bundles
from memcube_signing._values import Values, is_plain
from memcube_signing.bundle import ALL_ALGORITHMS, Bundle, Policy
from memcube_signing.dsse import known_fields
from memcube_signing.job import Job
from memcube_signing.keys import Algorithm, PublicKey, Signer
from memcube_signing.statement import Statement

PREDICATE_TYPE: Final = "https://memcube.org/release/v1"
NO_LICENCE: Final = "NOASSERTION"
CLOCK_TOLERANCE: Final = timedelta(minutes=5)
"""How far two clocks may differ before a time of a statement is judged by it."""

_PARENTS: Final = 256
_KEYS: Final = 64
_SPDX: Final = re.compile(r"(?=.{1,256}$)[A-Za-z0-9.+:()-]+(?: [A-Za-z0-9.+:()-]+)*")
_RELATION: Final = re.compile(r"[a-z][a-z0-9-]{0,63}")
_KEY_ID: Final = re.compile(r"[0-9a-f]{64}")
_OPTIONAL: Final = {"previous", "expiresAt", "job"}
_FIELDS: Final = {
    *("origin", "version", "seq", "licence", "lineage", "publisher", "createdAt"),
    *_OPTIONAL,
}


def _invalid(why: str, reason: str = "malformed-release") -> InvalidStatementError:
    return InvalidStatementError(
        f"not an acceptable release statement: {why}",
        hint="see docs/spec/statements.md, Release",
        reason=reason,
    )


_typed: Final = Values(_invalid)


@frozen
class Parent:
    """A cube that this one was made from: its origin name, manifest digest, and how (`derived`, …).

    Raises:
        InvalidStatementError: not an origin name, or not a relation.
    """

    origin: str
    digest: Digest
    relation: str = "derived"

    def __post_init__(self) -> None:
        require_origin(self.origin)
        if not _RELATION.fullmatch(self.relation):
            raise _invalid(f"{self.relation[:80]!r} is not a relation such as derived")


@frozen
class Release:
    """One release of a cube, as its publisher states it.

    `subject` is the manifest's digest; `origin` is `host/namespace/name`; `version` is SemVer;
    `previous` is the manifest digest of the release `seq` - 1, None exactly for the first (`seq` 1);
    `licence` is an SPDX expression or NOASSERTION; `publishers` are the ids of the keys that may sign
    it (a signature by another key means nothing); times are UTC in whole seconds. `job` is the CI job
    that made it, which proves nothing unless the log of the origin's registry includes the release.

    Raises:
        InvalidStatementError: a field breaks its rule.
    """

    subject: Digest
    origin: str
    version: str
    seq: int
    previous: Digest | None
    licence: str
    publishers: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None = None
    lineage: tuple[Parent, ...] = ()
    job: Job | None = None

    def __post_init__(self) -> None:
        require_origin(self.origin)
        _require_version(self.version)
        if not 1 <= self.seq <= canonical_json.MAX_SAFE_INTEGER:
            raise _invalid(f"seq {self.seq} does not count from 1")
        if (self.previous is None) != (self.seq == 1):
            raise _invalid("exactly the first release (seq 1) has no previous one")
        if not _SPDX.fullmatch(self.licence):
            raise _invalid(f"{self.licence[:80]!r} is not an SPDX licence expression")
        _require_publishers(self.publishers)
        if len(self.lineage) > _PARENTS:
            raise _invalid(f"it names more than {_PARENTS} parents")
        for moment in (self.created_at, self.expires_at):
            if moment is not None and not is_plain(moment):
                raise _invalid(f"{moment} is not in whole seconds of UTC since 1970")
        if self.expires_at is not None and self.expires_at <= self.created_at:
            raise _invalid("it expires before it was created")

    @property
    def tag(self) -> str:
        """The immutable tag of this version."""
        return tag_of_version(self.version)

    def to_statement(self) -> Statement:
        """The in-toto statement of this release."""
        predicate: dict[str, Any] = {
            "origin": self.origin,
            "version": self.version,
            "seq": self.seq,
            "licence": self.licence,
            "lineage": [_parent_to_json(parent) for parent in self.lineage],
            "publisher": {"keyIds": list(self.publishers)},
            "createdAt": timestamps.write_seconds(self.created_at),
        }
        if self.previous:
            predicate["previous"] = str(self.previous)
        if self.expires_at:
            predicate["expiresAt"] = timestamps.write_seconds(self.expires_at)
        if self.job:
            predicate["job"] = self.job.to_json()
        return Statement(self.origin, self.subject, PREDICATE_TYPE, predicate)


def sign_release(release: Release, signer: Signer) -> Bundle:
    """The release signed: a bundle to attach to the manifest as a referrer.

    Raises:
        InvalidStatementError: the release does not name the signer's key as a publisher.
        SigningKeyError: the signer cannot sign now.
    """
    if signer.public_key.id not in release.publishers:
        raise _invalid(f"it does not name the signing key {signer.public_key.id}")
    return bundles.sign(release.to_statement(), signer)


def verify_release(
    bundle: bytes,
    *,
    keys: Collection[PublicKey],
    subject: Digest,
    algorithms: frozenset[Algorithm] = ALL_ALGORITHMS,
) -> Release:
    """The release that `bundle` states about `subject`, signed by one of `keys`.

    Raises:
        InvalidStatementError, InvalidJsonError, LimitExceededError: the bundle is malformed.
        SignatureInvalidError: another key, other bytes, another subject or another kind of statement.
    """
    policy = Policy(keys, PREDICATE_TYPE, subject, algorithms)
    parsed = bundles.parse(bundle)
    said, key = bundles.verify(parsed, policy)
    release = from_statement(said)
    if release.to_statement().to_bytes() != parsed.envelope.payload:
        raise _invalid("its payload is not in canonical form", "not-canonical")
    if key.id not in release.publishers:
        raise SignatureInvalidError(
            f"the release does not name key {key.id} as a publisher's, although it is signed by it",
            hint="somebody claims another publisher's statement: do not use it",
            reason="not-a-publisher",
        )
    return release


def from_statement(said: Statement) -> Release:
    """The release in a statement of its predicate type.

    Raises:
        InvalidStatementError: a field is missing, unknown or breaks its rule.
    """
    fields = known_fields(said.predicate, "release", _FIELDS)
    if missing := sorted(_FIELDS - _OPTIONAL - fields.keys()):
        raise _invalid(f"it has no {missing[0]}")
    publisher = known_fields(fields["publisher"], "publisher", {"keyIds"})
    release = Release(
        subject=said.subject,
        origin=_typed.text(fields["origin"]),
        version=_typed.text(fields["version"]),
        seq=_typed.integer(fields["seq"]),
        previous=_typed.digest(fields["previous"]) if "previous" in fields else None,
        licence=_typed.text(fields["licence"]),
        publishers=tuple(_typed.text(key_id) for key_id in _typed.items(publisher.get("keyIds"))),
        created_at=_typed.moment(fields["createdAt"]),
        expires_at=_typed.moment(fields["expiresAt"]) if "expiresAt" in fields else None,
        lineage=tuple(_parent(parent) for parent in _typed.items(fields["lineage"])),
        job=Job.from_json(fields["job"]) if "job" in fields else None,
    )
    if said.name != release.origin:
        raise _invalid("its subject is not named by its origin")
    return release


def require_origin(origin: str) -> str:
    """`origin` itself, if it is `host/namespace/name` in lower case without tag and digest.

    Raises:
        InvalidStatementError: any other form.
    """
    try:
        reference = Reference.parse(origin)
    except (InvalidReferenceError, InvalidDigestError):
        reference = None
    if not reference or not reference.host or str(reference) != reference.location:
        raise _invalid(f"{origin[:140]!r} is not an origin name host/namespace/name")
    if reference.host != reference.host.lower():
        raise _invalid(f"the host of origin {origin[:140]!r} is not in lower case")
    return origin


def _require_version(version: str) -> None:
    try:
        tag_of_version(version)
    except InvalidReferenceError as error:
        raise _invalid(str(error)) from None


def _require_publishers(publishers: tuple[str, ...]) -> None:
    if not 1 <= len(publishers) <= _KEYS or tuple(sorted(set(publishers))) != publishers:
        raise _invalid(f"it does not name 1 to {_KEYS} publisher keys, sorted, each once")
    if not all(_KEY_ID.fullmatch(key_id) for key_id in publishers):
        raise _invalid("a publisher is not named by the id of a key")


def _parent(value: object) -> Parent:
    fields = known_fields(value, "parent", {"origin", "digest", "relation"})
    return Parent(
        _typed.text(fields.get("origin")),
        _typed.digest(fields.get("digest")),
        _typed.text(fields.get("relation")),
    )


def _parent_to_json(parent: Parent) -> Mapping[str, str]:
    return {
        "origin": parent.origin,
        "digest": str(parent.digest),
        "relation": parent.relation,
    }
