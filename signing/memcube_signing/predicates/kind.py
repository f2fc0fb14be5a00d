"""Kinds of predicates: how a value is signed as a statement, and read back from a verified one."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Generic, Protocol, TypeVar

from memcube_protocol.digest import Digest
from memcube_protocol.values import frozen

from memcube_signing import bundle as bundles
from memcube_signing.bundle import ALL_ALGORITHMS, Bundle, Policy
from memcube_signing.keys import Algorithm, PublicKey, Signer
from memcube_signing.statement import Statement

Value = TypeVar("Value")
Value_co = TypeVar("Value_co", covariant=True)


class Predicate(Protocol):
    """A value that can be stated about one subject."""

    def to_statement(self) -> Statement:
        """The in-toto statement of this value."""
        ...


@frozen
class Kind(Generic[Value_co]):
    """One type of predicate; `read` refuses what breaks its rules with InvalidStatementError."""

    predicate_type: str
    read: Callable[[Statement], Value_co]


@frozen
class Attested(Generic[Value_co]):
    """A value, and the accepted key that signed it."""

    value: Value_co
    key: PublicKey


def attest(value: Predicate, signer: Signer) -> Bundle:
    """The bundle in which `signer` states `value`: to be attached to its subject as a referrer.

    Raises:
        SigningKeyError: the signer cannot sign now.
        LimitExceededError: a statement over 1 MiB.
    """
    return bundles.sign(value.to_statement(), signer)


def verify(
    bundle: bytes,
    kind: Kind[Value],
    *,
    keys: Collection[PublicKey],
    subject: Digest,
    algorithms: frozenset[Algorithm] = ALL_ALGORITHMS,
) -> Attested[Value]:
    """What `bundle` states about `subject`, if it is of `kind` and signed by one of `keys`.

    Raises:
        InvalidStatementError, InvalidJsonError, LimitExceededError: the bundle is malformed.
        SignatureInvalidError: another key, other bytes, another subject or another kind of statement.
    """
    policy = Policy(keys, kind.predicate_type, subject, algorithms)
    said, key = bundles.verify(bundles.parse(bundle), policy)
    return Attested(kind.read(said), key)
