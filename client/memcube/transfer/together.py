"""Places that do not take blobs as a registry does, but as they come, or those of a publication together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from memcube_protocol.oci import Descriptor

from memcube.store import Store
from memcube.transfer.progress import Moved, Progress


@runtime_checkable
class Receives(Protocol):
    """A place that takes bytes as they come, past the store."""

    def receive(self, blob: Descriptor, pieces: Iterable[bytes]) -> bool:
        """Hold `blob`, whose bytes `pieces` are; says whether they were needed.

        Raises:
            SizeMismatchError, DigestMismatchError: they are not; nothing is kept.
        """
        ...


@runtime_checkable
class TakesTogether(Protocol):
    """A place that takes the blobs of a publication together, in its own way."""

    def take(
        self, name: str, blobs: Iterable[Descriptor], store: Store, progress: Progress
    ) -> Iterable[Moved]:
        """Make repository `name` able to publish `blobs`, which `store` holds.

        Raises:
            NotFoundError: the store does not hold one.
            NetworkError, UnauthenticatedError, ForbiddenError …: as the place answers.
        """
        ...


class TakesAlone(TakesTogether, Protocol):
    """A place that takes large blobs of a publication one by one as well, from several threads."""

    alone_from_bytes: int
    """From here on a blob is worth requests of its own."""

    def expect(self, name: str, blob: Descriptor) -> None:
        """Hear that `blob` will be taken soon, into repository `name`: what it needs may be asked for with others'."""
        ...
