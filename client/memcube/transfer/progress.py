"""What a transfer tells whoever watches it, and what it says at the end."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from typing import Protocol

from memcube_protocol.oci import Descriptor
from memcube_protocol.values import frozen


class Outcome(enum.Enum):
    """What became of one blob."""

    PRESENT = "present"
    FETCHED = "fetched"
    SENT = "sent"
    MOUNTED = "mounted"


class Progress(Protocol):
    """Hears how a transfer goes; called from several threads."""

    def expect(self, blobs: Sequence[Descriptor]) -> None:
        """These distinct blobs are about to be moved or found present."""
        ...

    def advance(self, blob: Descriptor, size_bytes: int) -> None:
        """So many bytes of `blob` more are there; fewer than none after a fresh start."""
        ...

    def check(self, blob: Descriptor, size_bytes: int) -> None:
        """All of `blob` is there, and so many bytes of it have been held against its digest there."""
        ...

    def finish(self, blob: Descriptor, outcome: Outcome) -> None:
        """`blob` is done."""
        ...


class Silent:
    """A progress that nobody watches."""

    def expect(self, blobs: Sequence[Descriptor]) -> None:
        """See `Progress.expect`."""

    def advance(self, blob: Descriptor, size_bytes: int) -> None:
        """See `Progress.advance`."""

    def check(self, blob: Descriptor, size_bytes: int) -> None:
        """See `Progress.check`."""

    def finish(self, blob: Descriptor, outcome: Outcome) -> None:
        """See `Progress.finish`."""


@frozen
class Moved:
    """One blob: what became of it, and the bytes that crossed the network for it."""

    blob: Descriptor
    outcome: Outcome
    moved_bytes: int = 0


@frozen
class Report:
    """What a transfer did, one entry a distinct blob, in the order asked for."""

    blobs: tuple[Moved, ...]

    @property
    def moved_bytes(self) -> int:
        """Bytes of content that crossed the network."""
        return sum(moved.moved_bytes for moved in self.blobs)

    @property
    def total_bytes(self) -> int:
        """Bytes of all blobs, moved or not."""
        return sum(moved.blob.size for moved in self.blobs)

    def count(self, outcome: Outcome) -> int:
        """How many blobs ended with `outcome`."""
        return sum(moved.outcome is outcome for moved in self.blobs)


def distinct(blobs: Iterable[Descriptor]) -> list[Descriptor]:
    """The blobs without repetitions, in their order."""
    return list({blob.digest: blob for blob in blobs}.values())
