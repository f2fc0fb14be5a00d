"""Who may write to an upload, and what it consists of so far: one answer for all replicas.

Stores that cannot lock (S3) hold the bytes; this holds, beside the registry's rows, the one word on
each upload. A claim lapses when its owner has not been heard of for `LEASE`. That alone would not be
safe, for an owner may have slept: so every change names its owner and is refused once another one has
taken over. Whatever the sleeper then has in its hands, it cannot make it count.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

from memcube_protocol.errors import ConflictError

LEASE: Final = timedelta(seconds=6)
"""How long after its owner's last sign of life an upload can be taken over."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """What is known of an upload; `state` is the store's own text, empty for one without bytes.

    `owner` is who held it last and did not let go, alive or not.
    """

    upload: str
    state: str
    written_at: datetime
    owner: str | None = None


class Claims(Protocol):
    """Claims to uploads, and their states. Each verb is one transaction."""

    def take(self, upload: str, owner: str) -> str:
        """The state of `upload`, once `owner` alone may change it. An unknown one becomes known.

        Raises:
            ConflictError: another owner holds it, and was heard of within `LEASE`.
        """
        ...

    def keep(self, upload: str, owner: str, state: str, *, release: bool = False) -> None:
        """Replace the state, and let others take the upload if `release`.

        Raises:
            ConflictError: `owner` does not hold it any more.
        """
        ...

    def forget(self, upload: str) -> str | None:
        """Forget an upload whoever holds it; its state, which nobody can change any more, if it was known."""
        ...

    def renew(self, owners: Collection[str]) -> None:
        """Say that these owners are alive."""
        ...

    def state(self, upload: str) -> str:
        """The state of `upload`, empty if it is not known."""
        ...

    def all(self) -> Iterable[Claimed]:
        """Every known upload."""
        ...


@dataclass(slots=True)
class _Row:
    owner: str | None
    expires_at: datetime
    state: str
    written_at: datetime


class MemoryClaims:
    """`Claims` of one process, forgotten with it."""

    def __init__(self) -> None:
        self._rows: dict[str, _Row] = {}
        self._lock = threading.Lock()

    def take(self, upload: str, owner: str) -> str:
        """See `Claims.take`."""
        now = datetime.now(UTC)
        with self._lock:
            row = self._rows.setdefault(upload, _Row(owner, now, "", now))
            if row.owner not in (None, owner) and row.expires_at > now:
                raise busy()
            row.owner, row.expires_at = owner, now + LEASE
            return row.state

    def keep(self, upload: str, owner: str, state: str, *, release: bool = False) -> None:
        """See `Claims.keep`."""
        with self._lock:
            row = self._held(upload, owner)
            row.state, row.written_at = state, datetime.now(UTC)
            row.owner = None if release else owner

    def forget(self, upload: str) -> str | None:
        """See `Claims.forget`."""
        with self._lock:
            row = self._rows.pop(upload, None)
            return row.state if row else None

    def renew(self, owners: Collection[str]) -> None:
        """See `Claims.renew`."""
        expires_at = datetime.now(UTC) + LEASE
        with self._lock:
            for row in self._rows.values():
                if row.owner in owners:
                    row.expires_at = expires_at

    def state(self, upload: str) -> str:
        """See `Claims.state`."""
        row = self._rows.get(upload)
        return row.state if row else ""

    def all(self) -> Iterable[Claimed]:
        """See `Claims.all`."""
        rows = list(self._rows.items())
        return [Claimed(name, row.state, row.written_at, row.owner) for name, row in rows]

    def _held(self, upload: str, owner: str) -> _Row:
        row = self._rows.get(upload)
        if row is None or row.owner != owner:
            raise lost()
        return row


def busy() -> ConflictError:
    """The refusal of a second writer."""
    return ConflictError(
        "another request is writing to this upload", hint="wait a few seconds, then try again"
    )


def lost() -> ConflictError:
    """The refusal of a writer whom another one has followed."""
    return ConflictError(
        "another request has taken this upload over, or ended it",
        hint="ask for the upload's status and go on from there",
    )
