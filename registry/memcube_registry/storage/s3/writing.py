"""Writes one upload into a bucket, in constant memory: at most two parts and one batch of the receiver."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from memcube_protocol import limits
from memcube_protocol.errors import LimitExceededError, MemcubeError, StorageError

from memcube_registry.storage.claims import Claims
from memcube_registry.storage.s3.assembly import Assembly, Tail
from memcube_registry.storage.s3.bucket import Bucket, Part
from memcube_registry.storage.s3.reading import S3Pieces

PART_BYTES: Final = 16 * limits.MIB
"""Of every part but the last: some servers want them equal, and all of them at least 5 MiB."""
PARTS: Final = 10_000
"""How many parts S3 takes: an upload through the registry has at most 156 GiB."""
CHECKPOINT_BYTES: Final = 64 * limits.MIB
"""How much of one request is lost at most when the process is killed."""

_PARTS: Final = ThreadPoolExecutor(16, thread_name_prefix="s3-parts")


@dataclass(frozen=True, slots=True)
class Grip:
    """An upload that one owner holds.

    What an owner puts into the bucket lies at locations that follow from its own random name. So whoever
    sees the claim knows what is under way, before the claim's state tells of it.
    """

    claims: Claims
    upload: str
    owner: str

    @property
    def locations(self) -> tuple[str, str]:
        """Where its tail lies, and where the object of its parts will."""
        return locations_of(self.owner)

    def keep(self, assembly: Assembly, *, release: bool = False) -> None:
        """Say what the upload consists of now.

        Raises:
            ConflictError: somebody else has taken it over.
        """
        self.claims.keep(self.upload, self.owner, assembly.to_text(), release=release)


def locations_of(owner: str) -> tuple[str, str]:
    """See `Grip.locations`."""
    return owner, owner[::-1]


class S3Sink:
    """Appends to an upload that consists of `opened`; see `Sink`.

    One part is on its way while the next one is filled. What is known of the upload changes at
    checkpoints and at the end; a part that was sent and is not known of is sent again over itself.
    """

    def __init__(
        self, bucket: Bucket, grip: Grip, opened: Assembly, let_go: Callable[[str], None]
    ) -> None:
        self._bucket = bucket
        self._grip = grip
        self._let_go = let_go
        self._opened = self._durable = self._known = opened
        self._buffer = _Buffer()
        self._multipart = opened.multipart
        self._running: Future[Part] | None = None
        self._is_open = True
        self._is_changed = self._is_broken = False
        self._in_use = threading.Lock()

    def write(self, pieces: Sequence[bytes], /) -> None:
        """See `Sink.write`."""
        with self._in_use:
            self._require_usable()
            try:
                self._load_tail()
                self._buffer.extend(pieces)
                while self._buffer.size >= PART_BYTES:
                    self._settle()
                    self._send(self._buffer.take(PART_BYTES))
            except MemcubeError:
                self._is_broken = True
                raise

    def undo(self) -> None:
        """See `Sink.undo`."""
        with self._in_use:
            if not self._is_open:
                return
            self._settle_anyhow()
            made = self._multipart if self._multipart != self._opened.multipart else None
            self._buffer.clear()
            self._is_changed = self._is_broken = False
            self._durable, self._multipart = self._opened, self._opened.multipart
            if self._known is not self._opened:
                self._grip.keep(self._opened)
                self._known = self._opened
            if made:
                with suppress(MemcubeError):  # what is left of it will be swept
                    self._bucket.abort(made)

    def close(self) -> None:
        """See `Sink.close`."""
        with self._in_use:
            if not self._is_open:
                return
            self._is_open = False
            try:
                self._end()
            finally:
                self._let_go(self._grip.owner)
                self._settle_anyhow()
                self._buffer.clear()

    def _end(self) -> None:
        failure: MemcubeError | None = None
        try:
            self._flush()
        except MemcubeError as error:
            failure = error
        self._grip.keep(self._durable, release=True)
        if failure:
            raise failure
        old = self._opened.tail
        if old and old != self._durable.tail:
            with suppress(MemcubeError):  # what is left of it will be swept
                self._bucket.delete(old.location)

    def _flush(self) -> None:
        """Make durable what is still in memory, unless an error was met before."""
        if self._is_broken or not self._is_changed:
            return
        self._settle()
        if self._buffer.size:
            tail = Tail(self._grip.locations[0], self._buffer.size)
            self._bucket.put(tail.location, self._buffer.take(tail.size))
            self._durable = replace(self._durable, tail=tail)

    def _load_tail(self) -> None:
        """Before the first write: the last bytes of the upload go into the next part."""
        if self._is_changed:
            return
        if tail := self._opened.tail:
            self._buffer.extend([read_tail(self._bucket, tail)])
        self._is_changed = True

    def _send(self, content: bytes) -> None:
        number = len(self._durable.parts) + 1
        if number > PARTS:
            raise LimitExceededError(
                f"the upload has more than {PARTS * PART_BYTES} bytes",
                hint="cut the content into several layers",
            )
        if self._multipart is None:
            self._multipart = self._bucket.begin(self._grip.locations[1])
        self._running = _PARTS.submit(self._bucket.put_part, self._multipart, number, content)

    def _settle(self) -> None:
        """Wait for the part that is on its way; from time to time, say how far the upload is."""
        running, self._running = self._running, None
        if running is None:
            return
        part = running.result()
        assert self._multipart, "a part was sent to it"
        self._durable = self._durable.with_part(self._multipart, part)
        if self._durable.size - self._known.size >= CHECKPOINT_BYTES:
            self._grip.keep(self._durable)
            self._known = self._durable

    def _settle_anyhow(self) -> None:
        """Wait for the part that is on its way, whatever becomes of it."""
        running, self._running = self._running, None
        if running is not None:
            running.exception()

    def _require_usable(self) -> None:
        if not self._is_open or self._is_broken:
            raise StorageError(
                "the upload was closed, or its store failed", hint="resume the upload"
            )


def read_tail(bucket: Bucket, tail: Tail) -> bytes:
    """The bytes of `tail`, whole.

    Raises:
        StorageError, UnavailableError: they are not there, or cannot be read.
    """
    pieces = S3Pieces(bucket, tail.location, 0, tail.size)
    content = b"".join(pieces)
    if len(content) != tail.size:
        raise StorageError("the last bytes of an upload are lost", hint="start a new upload")
    return content


class _Buffer:
    """Pieces that wait to become a part."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self.size = 0

    def extend(self, pieces: Sequence[bytes]) -> None:
        self._pieces.extend(pieces)
        self.size += sum(map(len, pieces))

    def take(self, size: int) -> bytes:
        """The first `size` bytes, taken out."""
        joined = b"".join(self._pieces)
        self._pieces = [joined[size:]] if len(joined) > size else []
        self.size = len(joined) - size
        return joined[:size]

    def clear(self) -> None:
        self._pieces, self.size = [], 0
