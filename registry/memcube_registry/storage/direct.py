"""Direct writes: clients put bytes into the store themselves, by requests that this server signed.

What a client puts becomes one object, at the location that is the id of its upload: a random one that
no other object ever has, so a request that was signed once can reach no other blob.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class Body:
    """The one body that a signed request is good for. `sha256` is hex; None binds the length alone."""

    size: int
    sha256: str | None


@dataclass(frozen=True, slots=True)
class SignedPut:
    """A `PUT` that the store takes from anybody for a while, with exactly these headers."""

    url: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class HeldPart:
    """A part that the store holds of an upload, by the names that the store gave it."""

    number: int
    size: int
    etag: str
    checksum: str | None = None


@dataclass(frozen=True, slots=True)
class Guarantees:
    """What the store was seen to do, and not what it says of itself.

    `checks_bodies`: a body of another SHA-256 than its signed request binds is refused.
    `ends_uploads`: once parts are joined, a request signed for one of them changes nothing; not tried
    where bodies are checked, for then it could only repeat the same bytes.
    """

    checks_bodies: bool
    ends_uploads: bool

    @property
    def are_enough(self) -> bool:
        """Whether no signed request can change a blob that is visible already."""
        return self.checks_bodies or self.ends_uploads


class Signer(Protocol):
    """Signs requests. `life_s` is how long they are good for, in seconds."""

    def sign_whole(self, location: str, body: Body, *, life_s: int) -> SignedPut:
        """Puts `body` at `location`, unless something is there."""
        ...

    def sign_part(
        self, location: str, parts_id: str, number: int, body: Body, *, life_s: int
    ) -> SignedPut:
        """Puts part `number` of an upload that was begun."""
        ...


class Assembler(Protocol):
    """Makes one object of parts. All raise `StorageError` or `UnavailableError` where the store fails."""

    def begin(self, location: str, *, checked: bool) -> str:
        """Begin an upload in parts; `checked` where their requests bind a SHA-256. Its name at the store."""
        ...

    def held(self, location: str, parts_id: str) -> Sequence[HeldPart] | None:
        """The parts that have arrived, by number; None where the upload has ended, if the store notices."""
        ...

    def join(self, location: str, parts_id: str, parts: Sequence[HeldPart]) -> None:
        """Make `parts` the object at `location`.

        Raises:
            ConflictError: one of them was replaced meanwhile, or the upload has ended.
        """
        ...


class DirectWrites(Signer, Assembler, Protocol):
    """A store that clients can write to."""

    def occupy(self, location: str) -> None:
        """Put an empty object at `location`, so that no request signed for it puts one any more.

        Raises:
            StorageError, UnavailableError: it could not be put.
        """
        ...

    def guarantees(self) -> Guarantees:
        """What the store was seen to do, tried out when it is first asked.

        Raises:
            StorageError, UnavailableError: it could not be tried.
        """
        ...

    def arrived(self, location: str) -> int | None:
        """Size of the object at `location` in bytes, if there is one."""
        ...


@runtime_checkable
class OffersDirectWrites(Protocol):
    """A blob store that has direct writes; its `abort` drops the parts that they left, too."""

    @property
    def direct(self) -> DirectWrites:
        """The store as clients write to it."""
        ...


def direct_writes_of(store: object) -> DirectWrites | None:
    """The direct writes of a blob store, if it has them."""
    return store.direct if isinstance(store, OffersDirectWrites) else None
