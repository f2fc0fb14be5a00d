"""Bundles that carry their log entries: attached by the publisher, verified by everybody."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from memcube_protocol import canonical_json
from memcube_protocol.errors import MemcubeError, SignatureInvalidError, SignatureMissingError

from memcube_signing import bundle as bundles
from memcube_signing.bundle import Bundle
from memcube_signing.keys import PublicKey
from memcube_signing.transparency import entry as entries
from memcube_signing.transparency.entry import Logged, LogPolicy, TlogEntry

ENTRIES: Final = 32
"""As many log entries of one bundle are looked at, as sigstore's verifiers do."""


def attach(bundle: Bundle, found: Iterable[TlogEntry]) -> Bundle:
    """`bundle` with these log entries instead of those that it has; what is signed stays the same.

    Raises:
        LimitExceededError: the bundle becomes larger than 2 MiB.
    """
    value = canonical_json.parse_object(bundle.raw, what="bundle")
    material = value["verificationMaterial"]
    material["tlogEntries"] = [entry.to_json() for entry in found]
    return bundles.parse(canonical_json.dump(value))


def verify_logged(bundle: Bundle, key: PublicKey, policy: LogPolicy) -> Logged:
    """That the log of `policy` includes the signature of `bundle`, which is known to be by `key`.

    Of several entries the first that is accepted counts; those of other logs are passed over.

    Raises:
        SignatureMissingError: the bundle carries no entry at all.
        SignatureInvalidError, InvalidStatementError: none of its entries is accepted; the first's reason.
    """
    if not bundle.log_entries:
        raise SignatureMissingError(
            "the statement is in no transparency log",
            hint="ask the publisher to push it again with a registry that keeps a log",
            reason="log-entry-missing",
        )
    refused: list[MemcubeError] = []
    for value in bundle.log_entries[:ENTRIES]:
        try:
            return entries.verify(
                TlogEntry.from_json(value),
                signed=bundle.envelope.signed,
                signature=bundle.signature.value,
                key=key,
                policy=policy,
            )
        except MemcubeError as error:
            refused.append(error)
    raise _most_telling(refused)


def _most_telling(refused: list[MemcubeError]) -> MemcubeError:
    """What is wrong with the entry of the trusted log goes before entries of other logs."""
    about_ours = (
        error
        for error in refused
        if not isinstance(error, SignatureInvalidError) or error.reason != "log-unknown"
    )
    return next(about_ours, refused[0])
