"""A namespace's keys for tests: documents made, changed and signed in one line each."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from memcube_signing.authority.chain import Authority, resolve
from memcube_signing.authority.document import (
    Delegation,
    KeyDocument,
    Quorum,
    sign_document,
)
from memcube_signing.keys import PrivateKey

from support.log import Log

ALICE_AT = "registry.example/alice"
START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def key(number: int) -> PrivateKey:
    """A fixed P-256 key."""
    return PrivateKey(ec.derive_private_key(0xBEEF00 + number, ec.SECP256R1()))


OLD, NEW, THIEF, SPARE, SAFE, TEAM, EVE = (key(number) for number in range(7))


def quorum(*keys: PrivateKey, of: int = 1) -> Quorum:
    """Any `of` of `keys`."""
    return Quorum.of([one.public_key for one in keys], of)


def role(name: str, pattern: str, *keys: PrivateKey, of: int = 1) -> Delegation:
    """A role with one pattern below the namespace."""
    return Delegation(name, (f"{ALICE_AT}/{pattern}",), quorum(*keys, of=of))


def first(**changes: Any) -> KeyDocument:
    """The first document: `OLD` decides."""
    return replace(KeyDocument(ALICE_AT, 1, None, START, quorum(OLD)), **changes)


def after(before: KeyDocument, **changes: Any) -> KeyDocument:
    """The document that follows `before` a day later."""
    following = {
        "seq": before.seq + 1,
        "previous": before.digest,
        "created_at": before.created_at + DAY,
    }
    return replace(before, **(following | changes))


def signed(document: KeyDocument, *keys: PrivateKey) -> tuple[bytes, ...]:
    """Bundles of `document` by `keys`."""
    return tuple(bundle.raw for bundle in sign_document(document, keys))


def resolved(*signed_documents: tuple[bytes, ...]) -> Authority:
    """The authority that these bundles make."""
    found = resolve(ALICE_AT, [raw for one in signed_documents for raw in one])
    assert found
    return found


def logged(log: Log, document: KeyDocument, at: datetime, *keys: PrivateKey) -> tuple[bytes, ...]:
    """Bundles of `document` by `keys`, taken into `log` at a time."""
    bundles = sign_document(document, keys)
    return tuple(
        log.logged(bundle, key.public_key, at).raw
        for bundle, key in zip(bundles, keys, strict=True)
    )
