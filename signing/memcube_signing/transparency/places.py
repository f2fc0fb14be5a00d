"""Places of releases in a log: each `seq` of a history belongs to one manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Collection

from memcube_protocol.digest import Digest
from memcube_protocol.values import frozen


@frozen
class TakenPlace:
    """That release `seq` of a history is in the log, with this manifest.

    A history is an origin under one set of publishers' keys, which `history_of` names.
    """

    origin: str
    history: str
    seq: int
    manifest: Digest


def history_of(publishers: Collection[str]) -> str:
    """Names what releases under these key ids have in common: SHA-256 in hex."""
    return hashlib.sha256(" ".join(sorted(publishers)).encode()).hexdigest()
