"""Key documents: who decides in a namespace, who recovers it, who releases what, what is revoked.

Every document holds the whole state, so that the last one alone says what is in force; `previous`
chains it to the one before. The payload is canonical JSON, and unknown fields are refused.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, Final

from memcube_protocol import canonical_json, timestamps
from memcube_protocol.digest import Digest
from memcube_protocol.values import frozen

from memcube_signing import bundle as bundles
from memcube_signing.authority import _fields
from memcube_signing.authority._fields import invalid, typed
from memcube_signing.bundle import Bundle
from memcube_signing.dsse import known_fields
from memcube_signing.keys import PublicKey, Signer
from memcube_signing.release import require_origin
from memcube_signing.statement import Statement

PREDICATE_TYPE: Final = "https://memcube.org/keys/v1"
_KEYS: Final = 64
_DELEGATIONS: Final = 256
_PATTERNS: Final = 64
_REVOKED: Final = 1024
_ROLE: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}(?:/[a-z0-9][a-z0-9-]{0,62}){0,3}")
_KEY_ID: Final = re.compile(r"[0-9a-f]{64}")
_OPTIONAL: Final = {"previous", "recovery"}
_FIELDS: Final = {
    *("authority", "seq", "createdAt", "quorum", "delegations", "revoked"),
    *_OPTIONAL,
}


@frozen
class Quorum:
    """Keys of which any `threshold` decide together. The keys are sorted by id, each once.

    Raises:
        InvalidStatementError: no key, too many, not sorted, or a threshold that cannot be met.
    """

    keys: tuple[PublicKey, ...]
    threshold: int = 1

    def __post_init__(self) -> None:
        ids = [key.id for key in self.keys]
        if not 1 <= len(ids) <= _KEYS or sorted(set(ids)) != ids:
            raise invalid(f"a quorum does not hold 1 to {_KEYS} keys, sorted by id, each once")
        if not 1 <= self.threshold <= len(ids):
            raise invalid(f"{len(ids)} keys cannot meet the threshold {self.threshold}")

    @classmethod
    def of(cls, keys: Collection[PublicKey], threshold: int = 1) -> Quorum:
        """The quorum of `keys` in any order."""
        return cls(tuple(sorted(set(keys), key=lambda key: key.id)), threshold)

    @property
    def ids(self) -> frozenset[str]:
        """The ids of the keys."""
        return frozenset(key.id for key in self.keys)

    def is_met_by(self, key_ids: Collection[str]) -> bool:
        """Whether enough of the keys are among `key_ids`."""
        return len(self.ids & set(key_ids)) >= self.threshold

    def without(self, key_ids: Collection[str]) -> Quorum:
        """This quorum with its threshold, but without the keys `key_ids`.

        Raises:
            InvalidStatementError: too few are left.
        """
        return Quorum(tuple(key for key in self.keys if key.id not in key_ids), self.threshold)


@frozen
class Delegation:
    """A role that may release what `patterns` match, in the place of those above it.

    A pattern is an origin name, or the start of one and `*`. A role is named below the one that
    it belongs to: `research`, `research/eve`.

    Raises:
        InvalidStatementError: a field breaks its rule.
    """

    role: str
    patterns: tuple[str, ...]
    quorum: Quorum

    def __post_init__(self) -> None:
        if not _ROLE.fullmatch(self.role):
            raise invalid(f"{self.role[:80]!r} is not the name of a role")
        if not 1 <= len(self.patterns) <= _PATTERNS:
            raise invalid(f"a role has not 1 to {_PATTERNS} patterns")
        if tuple(sorted(set(self.patterns))) != self.patterns:
            raise invalid("the patterns of a role are not sorted, each once")

    @property
    def parent(self) -> str:
        """The role that this one belongs to; empty: the authority itself."""
        return self.role.rpartition("/")[0]

    def matches(self, origin: str) -> bool:
        """Whether this role speaks for the cube of that origin name."""
        return any(pattern_covers(pattern, origin) for pattern in self.patterns)


@frozen
class Revocation:
    """A key that is not to be trusted, since when: only what was logged before that time is valid.

    Raises:
        InvalidStatementError: not the id of a key, or not a plain time.
    """

    key_id: str
    compromised_since: datetime

    def __post_init__(self) -> None:
        if not _KEY_ID.fullmatch(self.key_id):
            raise invalid("a revocation does not name the id of a key")
        _fields.require_plain(self.compromised_since)


@frozen
class KeyDocument:
    """The state of the namespace `authority` from `created_at` on.

    `quorum` decides about the next document, and releases what no delegation covers; `recovery`
    may decide in its place, and overrules it. `previous` is the digest of the payload before, None
    exactly for `seq` 1.

    Raises:
        InvalidStatementError: a field breaks its rule.
    """

    authority: str
    seq: int
    previous: Digest | None
    created_at: datetime
    quorum: Quorum
    recovery: Quorum | None = None
    delegations: tuple[Delegation, ...] = ()
    revoked: tuple[Revocation, ...] = ()

    def __post_init__(self) -> None:
        require_authority(self.authority)
        _fields.require_plain(self.created_at)
        if not 1 <= self.seq <= canonical_json.MAX_SAFE_INTEGER:
            raise invalid(f"seq {self.seq} does not count from 1")
        if (self.previous is None) != (self.seq == 1):
            raise invalid("exactly the first key document has no previous one")
        _require_delegations(self.authority, self.delegations)
        ids = [revocation.key_id for revocation in self.revoked]
        if len(ids) > _REVOKED or sorted(set(ids)) != ids:
            raise invalid(f"it does not revoke at most {_REVOKED} keys, sorted by id, each once")
        quorums = [self.quorum, *(delegation.quorum for delegation in self.delegations)]
        quorums += [self.recovery] if self.recovery else []
        if any(quorum.ids.intersection(ids) for quorum in quorums):
            raise invalid("a key is revoked and in charge at once", "revoked-key-in-charge")

    def quorums_for(self, origin: str) -> tuple[Quorum, ...]:
        """Those who may release the cube of that origin name, each for itself.

        Who delegates keeps the right: the keys of the authority, a team's, and a member's.
        """
        roles = (one.quorum for one in self.delegations if one.matches(origin))
        return (self.quorum, *roles)

    def to_statement(self) -> Statement:
        """The in-toto statement of this document; its subject is the authority's name, hashed."""
        predicate: dict[str, Any] = {
            "authority": self.authority,
            "seq": self.seq,
            "createdAt": timestamps.write_seconds(self.created_at),
            "quorum": _quorum_to_json(self.quorum),
            "delegations": [
                {
                    "role": delegation.role,
                    "patterns": list(delegation.patterns),
                    "quorum": _quorum_to_json(delegation.quorum),
                }
                for delegation in self.delegations
            ],
            "revoked": [
                {
                    "keyId": revocation.key_id,
                    "compromisedSince": timestamps.write_seconds(revocation.compromised_since),
                }
                for revocation in self.revoked
            ],
        }
        if self.previous:
            predicate["previous"] = str(self.previous)
        if self.recovery:
            predicate["recovery"] = _quorum_to_json(self.recovery)
        return Statement(self.authority, subject_of(self.authority), PREDICATE_TYPE, predicate)

    @property
    def digest(self) -> Digest:
        """SHA-256 of the payload: what the next document names as `previous`."""
        return Digest.of(self.to_statement().to_bytes())


def sign_document(document: KeyDocument, signers: Collection[Signer]) -> tuple[Bundle, ...]:
    """The document signed by each of `signers`: one bundle a signature, all over the same bytes.

    Raises:
        SigningKeyError: a signer cannot sign now.
    """
    content = document.to_statement()
    return tuple(bundles.sign(content, signer) for signer in signers)


def from_statement(said: Statement) -> KeyDocument:
    """The key document in a statement of its predicate type.

    Raises:
        InvalidStatementError: a field is missing, unknown or breaks its rule.
    """
    fields = known_fields(said.predicate, "key document", _FIELDS)
    if missing := sorted(_FIELDS - _OPTIONAL - fields.keys()):
        raise invalid(f"it has no {missing[0]}")
    document = KeyDocument(
        authority=typed.text(fields["authority"]),
        seq=typed.integer(fields["seq"]),
        previous=typed.digest(fields["previous"]) if "previous" in fields else None,
        created_at=typed.moment(fields["createdAt"]),
        quorum=_quorum(fields["quorum"]),
        recovery=_quorum(fields["recovery"]) if "recovery" in fields else None,
        delegations=tuple(_delegation(item) for item in typed.items(fields["delegations"])),
        revoked=tuple(_revocation(item) for item in typed.items(fields["revoked"])),
    )
    if said.name != document.authority:
        raise invalid("its subject is not named by its authority")
    return document


def subject_of(authority: str) -> Digest:
    """What statements about `authority` have as their subject: SHA-256 of the name."""
    return Digest.of(authority.encode())


def authority_of(origin: str) -> str:
    """The authority over the cube of that origin name: host and namespace.

    Raises:
        InvalidStatementError: not an origin name.
    """
    return "/".join(require_origin(origin).split("/")[:2])


def require_authority(authority: str) -> str:
    """`authority` itself, if it is `host/namespace` in its one form.

    Raises:
        InvalidStatementError: any other form.
    """
    require_origin(authority)
    if authority.count("/") != 1:
        raise invalid(f"{authority[:140]!r} is not host/namespace")
    return authority


def pattern_covers(pattern: str, other: str) -> bool:
    """Whether all that `other`, a name or a pattern, matches is matched by `pattern`."""
    if pattern.endswith("*"):
        return other.startswith(pattern[:-1])
    return pattern == other


def _require_delegations(authority: str, delegations: tuple[Delegation, ...]) -> None:
    """Roles are sorted, belong to one that is there, and never reach further than it."""
    roles = {delegation.role: delegation for delegation in delegations}
    if len(delegations) > _DELEGATIONS or sorted(roles) != [one.role for one in delegations]:
        raise invalid(f"it does not hold at most {_DELEGATIONS} roles, sorted, each once")
    for delegation in delegations:
        for pattern in delegation.patterns:
            require_origin(pattern.removesuffix("*").rstrip("/-._") if "*" in pattern else pattern)
            if "*" in pattern[:-1] or not pattern.startswith(f"{authority}/"):
                raise invalid(f"the pattern {pattern[:140]!r} is not one below {authority}")
        if not delegation.parent:
            continue
        above = roles.get(delegation.parent)
        if above is None:
            raise invalid(f"there is no role {delegation.parent!r} for {delegation.role!r}")
        if not all(any(pattern_covers(a, p) for a in above.patterns) for p in delegation.patterns):
            raise invalid(f"role {delegation.role!r} reaches further than its own", "escalation")


def _quorum_to_json(quorum: Quorum) -> Mapping[str, Any]:
    return {
        "keys": [_fields.key_text(key) for key in quorum.keys],
        "threshold": quorum.threshold,
    }


def _quorum(value: object) -> Quorum:
    fields = known_fields(value, "quorum", {"keys", "threshold"})
    keys = tuple(_fields.key(item) for item in typed.items(fields.get("keys")))
    return Quorum(keys, typed.integer(fields.get("threshold")))


def _delegation(value: object) -> Delegation:
    fields = known_fields(value, "delegation", {"role", "patterns", "quorum"})
    return Delegation(
        typed.text(fields.get("role")),
        tuple(typed.text(item) for item in typed.items(fields.get("patterns"))),
        _quorum(fields.get("quorum")),
    )


def _revocation(value: object) -> Revocation:
    fields = known_fields(value, "revocation", {"keyId", "compromisedSince"})
    return Revocation(typed.text(fields.get("keyId")), typed.moment(fields.get("compromisedSince")))
