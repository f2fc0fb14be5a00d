"""Expected content, and the one place where bytes are checked against it.

Content is expected either under a **digest** (the same for everybody) or under a **commitment**
(a Merkle root over cells, for content that differs per buyer). A range of a digested content is
checked by BLAKE3 hashes of fixed blocks that a signed manifest lists.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Protocol

from blake3 import blake3

from memcube_protocol import limits
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    DigestMismatchError,
    InvalidManifestError,
    NotFoundError,
    SizeMismatchError,
)
from memcube_protocol.values import frozen

HASH_BYTES: Final = 32
_DAMAGED: Final = "the store is damaged or hostile: delete the blob and fetch it again"


@frozen
class Commitment:
    """A Merkle root (RFC 6962, SHA-256) over the cells of content that differs per buyer."""

    root: bytes
    cells: int

    def __post_init__(self) -> None:
        if len(self.root) != HASH_BYTES or self.cells < 0:
            raise InvalidManifestError(
                "a commitment is a root of 32 bytes and a number of cells",
                hint="see docs/spec/content.md, commitments",
            )

    def __str__(self) -> str:
        return f"commitment:{self.root.hex()}/{self.cells}"


@frozen
class Cell:
    """Proof of one cell: its length in bytes, the salt of the variant held, and the other's hash.

    A cell's leaf is H(commit(A) ‖ commit(B)) with commit(X) = SHA-256(salt ‖ X); `side` says
    whether the bytes held are A (0) or B (1).
    """

    size_bytes: int
    side: int
    salt: bytes
    sibling: bytes

    def __post_init__(self) -> None:
        if self.size_bytes < 1 or self.side not in (0, 1) or len(self.sibling) != HASH_BYTES:
            raise InvalidManifestError(
                "a cell has at least one byte, side 0 or 1, and a sibling of 32 bytes",
                hint="see docs/spec/content.md, commitments",
            )

    def leaf(self, content: bytes | memoryview) -> bytes:
        """The leaf that `content` gives in this cell."""
        own = hashlib.sha256(self.salt + bytes(content)).digest()
        pair = own + self.sibling if self.side == 0 else self.sibling + own
        return hashlib.sha256(b"\x00" + pair).digest()


@frozen
class Expected:
    """What some content must be: its digest, or a commitment with the proof of the copy held.

    `size` is the length in bytes where it is known in advance.
    """

    identity: Digest | Commitment
    size: int | None = None
    cells: tuple[Cell, ...] = ()

    def verifier(self) -> Verifier:
        """A fresh verifier to feed with the content."""
        if isinstance(self.identity, Digest):
            return DigestVerifier(self.identity, self.size)
        return CommitmentVerifier(self.identity, self.cells)


class Verifier(Protocol):
    """Takes content in pieces and says at the end whether it was the expected one."""

    def update(self, piece: bytes | bytearray | memoryview, /) -> None:
        """Take the next piece.

        Raises:
            SizeMismatchError: more bytes than expected; nothing more should be read.
        """
        ...

    def finish(self) -> None:
        """Judge what was taken.

        Raises:
            SizeMismatchError: fewer bytes than expected.
            DigestMismatchError: other bytes than expected.
        """
        ...


class DigestVerifier:
    """Verifies content against a digest while it streams past: hashed once, nothing kept."""

    def __init__(self, digest: Digest, size: int | None = None) -> None:
        self._digest = digest
        self._size = size
        self._seen = 0
        self._hasher = digest.hasher()

    def update(self, piece: bytes | bytearray | memoryview, /) -> None:
        """See `Verifier.update`."""
        self._seen += len(piece)
        if self._size is not None and self._seen > self._size:
            raise SizeMismatchError(
                f"content of {self._digest} is longer than the {self._size} bytes promised",
                hint=_DAMAGED,
            )
        self._hasher.update(piece)

    def finish(self) -> None:
        """See `Verifier.finish`."""
        if self._size is not None and self._seen != self._size:
            raise SizeMismatchError(
                f"content of {self._digest} has {self._seen} bytes, {self._size} were promised",
                hint=_DAMAGED,
            )
        actual = Digest.finish(self._digest.algorithm, self._hasher)
        if actual != self._digest:
            raise DigestMismatchError(
                f"content expected as {self._digest} has digest {actual}", hint=_DAMAGED
            )


class CommitmentVerifier:
    """Verifies a personal copy, cell by cell, against the root that the publisher signed."""

    def __init__(self, commitment: Commitment, cells: Sequence[Cell]) -> None:
        self._commitment = commitment
        self._cells = cells
        self._leaves: list[bytes] = []
        self._pending = bytearray()

    def update(self, piece: bytes | bytearray | memoryview, /) -> None:
        """See `Verifier.update`."""
        self._pending += piece
        while len(self._leaves) < len(self._cells):
            cell = self._cells[len(self._leaves)]
            if len(self._pending) < cell.size_bytes:
                return
            self._leaves.append(cell.leaf(bytes(self._pending[: cell.size_bytes])))
            del self._pending[: cell.size_bytes]
        if self._pending:
            raise SizeMismatchError(f"content of {self._commitment} is too long", hint=_DAMAGED)

    def finish(self) -> None:
        """See `Verifier.finish`."""
        if len(self._leaves) != self._commitment.cells or self._pending:
            raise SizeMismatchError(
                f"content has {len(self._leaves)} whole cells, "
                f"{self._commitment.cells} were committed to",
                hint=_DAMAGED,
            )
        if merkle_root(self._leaves) != self._commitment.root:
            raise DigestMismatchError(
                f"the cells of this copy do not lead to {self._commitment}", hint=_DAMAGED
            )


class BlobReader(Protocol):
    """Reads blobs by digest, in pieces."""

    def read(self, digest: Digest, *, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Bytes `start` to `stop` of `digest` in pieces, unverified.

        Raises:
            NotFoundError: the store holds no such blob.
        """
        ...


class MemoryBlobs:
    """Blobs in memory: the test double of every store."""

    def __init__(self, contents: Iterable[bytes] = ()) -> None:
        self._contents = {Digest.of(content): content for content in contents}

    def write(self, content: bytes) -> Digest:
        """Keep `content` and say its digest."""
        digest = Digest.of(content)
        self._contents[digest] = content
        return digest

    def read(self, digest: Digest, *, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """See `BlobReader.read`."""
        if digest not in self._contents:
            raise NotFoundError(f"no blob {digest}", hint="pull it first")
        return iter((self._contents[digest][start:stop],))


def read_verified(blobs: BlobReader, digest: Digest, size: int | None = None) -> bytes:
    """Content of `digest`, checked against it: for content that fits in memory.

    Raises:
        NotFoundError: the store holds no such blob.
        SizeMismatchError, DigestMismatchError: the store returned other bytes.
    """
    return b"".join(stream_verified(blobs.read(digest), Expected(digest, size)))


def verify(content: bytes, digest: Digest, size: int) -> None:
    """Refuse `content` that is not what a descriptor with this digest and size promises.

    Raises:
        SizeMismatchError, DigestMismatchError: other content.
    """
    verifier = DigestVerifier(digest, size)
    verifier.update(content)
    verifier.finish()


def stream_verified(pieces: Iterable[bytes], expected: Expected) -> Iterator[bytes]:
    """`pieces` as they are; after the last one, the judgement.

    Use no piece for anything that cannot be undone before the iterator has ended.

    Raises:
        SizeMismatchError, DigestMismatchError: other content than `expected`.
    """
    verifier = expected.verifier()
    for piece in pieces:
        verifier.update(piece)
        yield piece
    verifier.finish()


@frozen
class Blocks:
    """BLAKE3 hashes of consecutive blocks of `block_bytes` bytes; the last one may be shorter.

    `start` is the offset in the file of the first block's first byte, `size` the bytes covered.
    """

    block_bytes: int
    start: int
    size: int
    hashes: tuple[bytes, ...]

    def __post_init__(self) -> None:
        valid = self.block_bytes > 0 and self.start >= 0 and self.size >= 0
        count = -(-self.size // self.block_bytes) if valid else -1
        if count != len(self.hashes) or any(len(h) != HASH_BYTES for h in self.hashes):
            raise InvalidManifestError(
                f"{len(self.hashes)} block hashes do not cover {self.size} bytes "
                f"in blocks of {self.block_bytes}",
                hint="see docs/spec/content.md, block hashes",
            )

    @classmethod
    def of(
        cls,
        content: bytes | memoryview,
        block_bytes: int = limits.RANGE_BLOCK_BYTES,
        start: int = 0,
    ) -> Blocks:
        """Block hashes of `content`, which begins at offset `start` of its file."""
        view = memoryview(content)
        hashes = tuple(
            blake3(view[at : at + block_bytes]).digest() for at in range(0, len(view), block_bytes)
        )
        return cls(block_bytes, start, len(view), hashes)

    def covering(self, start: int, stop: int) -> tuple[int, int]:
        """Offsets in the file of the whole blocks that hold the bytes `start` to `stop`.

        Raises:
            SizeMismatchError: the blocks do not cover all of these bytes.
        """
        if not self.start <= start <= stop <= self.start + self.size:
            raise SizeMismatchError(
                f"bytes {start} to {stop} lie outside the {self.size} bytes from {self.start} on "
                "that are hashed",
                hint="ask for a range that the manifest lists",
            )
        first = (start - self.start) // self.block_bytes
        last = -(-(stop - self.start) // self.block_bytes)
        end = min(self.start + last * self.block_bytes, self.start + self.size)
        return self.start + first * self.block_bytes, end

    def verify(self, content: bytes | memoryview, start: int) -> None:
        """Check whole blocks of `content`, which begins at offset `start` of the file.

        Raises:
            SizeMismatchError: `content` is not made of whole blocks.
            DigestMismatchError: a block differs.
        """
        view = memoryview(content)
        first, offset = divmod(start - self.start, self.block_bytes)
        end = start + len(view)
        whole = end == self.start + self.size or (end - self.start) % self.block_bytes == 0
        if offset or first < 0 or not whole or end > self.start + self.size:
            raise SizeMismatchError(
                f"bytes {start} to {end} are not whole blocks of {self.block_bytes}",
                hint="ask for the range that `Blocks.covering` returns",
            )
        for position, at in enumerate(range(0, len(view), self.block_bytes), first):
            if blake3(view[at : at + self.block_bytes]).digest() != self.hashes[position]:
                raise DigestMismatchError(
                    f"block {position} at offset {start + at} differs from its signed hash",
                    hint=_DAMAGED,
                )


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """Root over leaf hashes, SHA-256 (RFC 6962, section 2.1; the leaves are already hashed)."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << (len(leaves) - 1).bit_length() - 1
    left, right = merkle_root(leaves[:split]), merkle_root(leaves[split:])
    return hashlib.sha256(b"\x01" + left + right).digest()
