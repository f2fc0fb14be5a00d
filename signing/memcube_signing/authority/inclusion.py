"""Key documents in a transparency log: since when each has been public, and which one is not.

A chain is public when the bundles that the log includes suffice for it: a document that only counts with
a signature that nobody could see is one that was changed behind the publisher's back.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from memcube_protocol.errors import MemcubeError

from memcube_signing.authority.chain import Authority, resolve, signer_of
from memcube_signing.authority.document import KeyDocument
from memcube_signing.bundle import Bundle
from memcube_signing.keys import PublicKey
from memcube_signing.transparency.bundled import verify_logged
from memcube_signing.transparency.entry import Logged, LogPolicy


def first_unlogged(authority: Authority, policy: LogPolicy) -> KeyDocument | None:
    """The first document that does not follow from what the log of `policy` includes; None: all do."""
    keys = keys_of(authority)
    included = [
        bundle.raw for bundle in authority.bundles if _logged(authority, bundle, keys, policy)
    ]
    if len(included) == len(authority.bundles):
        return None
    shown = resolve(authority.name, included)
    documents = shown.documents if shown else ()
    return next(
        (
            document
            for at, document in enumerate(authority.documents)
            if at >= len(documents) or documents[at] != document
        ),
        None,
    )


def began_at(authority: Authority, at: int, policy: LogPolicy | None) -> datetime:
    """When the document at place `at` came into force: by the log, else by its own word.

    The log cannot be made to say an earlier time than the true one, and what its signer's clock said
    does not matter then.
    """
    document = authority.documents[at]
    if policy is None:
        return document.created_at
    payload, keys = document.to_statement().to_bytes(), keys_of(authority)
    times = [
        logged.logged_at
        for bundle in authority.bundles
        if bundle.envelope.payload == payload
        and (logged := _logged(authority, bundle, keys, policy))
        and logged.logged_at
    ]
    return min(times, default=document.created_at)


def keys_of(authority: Authority) -> tuple[PublicKey, ...]:
    """Every key that any document gives a part in the namespace, recovery keys included."""
    quorums = [
        quorum
        for document in authority.documents
        for quorum in (
            document.quorum,
            *([document.recovery] if document.recovery else []),
            *(role.quorum for role in document.delegations),
        )
    ]
    found = {key.id: key for quorum in quorums for key in quorum.keys}
    return tuple(found[key_id] for key_id in sorted(found))


def _logged(
    authority: Authority, bundle: Bundle, keys: Collection[PublicKey], policy: LogPolicy
) -> Logged | None:
    """What the log says of a bundle that one of `keys` well signed."""
    key = signer_of(bundle, keys, authority.name)
    if key is None:
        return None
    try:
        return verify_logged(bundle, key, policy)
    except MemcubeError:
        return None
