"""Content digests, `algorithm:hex` (OCI image specification, "Digests")."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol, Self

from memcube_protocol.errors import InvalidDigestError

HEX_CHARS: Final = {"sha256": 64, "sha512": 128}
_HEX: Final = re.compile(r"[0-9a-f]+")
_HASHERS: Final[dict[str, Callable[[], Hasher]]] = {
    "sha256": hashlib.sha256,
    "sha512": hashlib.sha512,
}


class Hasher(Protocol):
    """An incremental hash, as in `hashlib`."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        """Take the next bytes."""

    def hexdigest(self) -> str:
        """The hash of all bytes taken, in lower-case hex."""
        ...


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """The digest of some content: a registered algorithm and its lower-case hex value.

    Raises:
        InvalidDigestError: unknown algorithm, wrong length, or not lower-case hex.
    """

    algorithm: str
    hex: str

    def __post_init__(self) -> None:
        chars = HEX_CHARS.get(self.algorithm)
        if chars is None:
            raise InvalidDigestError(
                f"digest algorithm {self.algorithm[:32]!r} is not registered",
                hint=f"use one of: {', '.join(HEX_CHARS)}",
            )
        if len(self.hex) != chars or not _HEX.fullmatch(self.hex):
            raise InvalidDigestError(
                f"a {self.algorithm} digest is {chars} lower-case hex digits, "
                f"not {self.hex[:140]!r}",
                hint="copy the digest as the registry prints it",
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Digest written as `algorithm:hex`.

        Raises:
            InvalidDigestError: any other form.
        """
        algorithm, colon, hex_digits = text.partition(":")
        if not colon:
            raise InvalidDigestError(
                f"{text[:140]!r} is not a digest", hint="a digest is written algorithm:hex"
            )
        return cls(algorithm, hex_digits)

    @classmethod
    def of(cls, content: bytes | bytearray | memoryview, algorithm: str = "sha256") -> Self:
        """Digest of `content`."""
        hasher = new_hasher(algorithm)
        hasher.update(content)
        return cls(algorithm, hasher.hexdigest())

    @classmethod
    def finish(cls, algorithm: str, hasher: Hasher) -> Self:
        """Digest of all that `hasher` has seen."""
        return cls(algorithm, hasher.hexdigest())

    def hasher(self) -> Hasher:
        """A fresh hasher of this digest's algorithm."""
        return new_hasher(self.algorithm)

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


def new_hasher(algorithm: str = "sha256") -> Hasher:
    """A fresh hasher.

    Raises:
        InvalidDigestError: `algorithm` is not registered.
    """
    make = _HASHERS.get(algorithm)
    if make is None:
        raise InvalidDigestError(
            f"digest algorithm {algorithm[:32]!r} is not registered",
            hint=f"use one of: {', '.join(HEX_CHARS)}",
        )
    return make()
