"""The blob store over a bucket: see the package for where things lie."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final

from memcube_protocol.errors import (
    MemcubeError,
    RangeMismatchError,
    SizeMismatchError,
    StorageError,
)

from memcube_registry.storage.claims import Claimed, Claims
from memcube_registry.storage.interface import Object, Pieces, Sink
from memcube_registry.storage.s3.assembly import Assembly, Tail, parse
from memcube_registry.storage.s3.bucket import Bucket, is_location, new_location
from memcube_registry.storage.s3.direct import S3Direct
from memcube_registry.storage.s3.pulse import Pulse
from memcube_registry.storage.s3.reading import S3Pieces
from memcube_registry.storage.s3.writing import Grip, S3Sink, read_tail

YOUNG: Final = timedelta(minutes=30)
"""How long an object may count as new by S3's clock, which for multipart objects starts at the beginning."""


class S3Store:
    """A `BlobStore` in `bucket`. Clients get URLs that are valid for `url_expiry_s` seconds; 0: none."""

    def __init__(self, bucket: Bucket, claims: Claims, *, url_expiry_s: int = 0) -> None:
        self._bucket = bucket
        self._claims = claims
        self._pulse = Pulse(claims)
        self._url_expiry_s = url_expiry_s
        self._direct = bucket.direct()

    @property
    def direct(self) -> S3Direct:
        """See `OffersDirectWrites`."""
        return self._direct

    def read(self, location: str, *, start: int = 0, stop: int | None = None) -> Pieces:
        """See `Reader.read`."""
        _require_name(location)
        return S3Pieces(self._bucket, location, start, stop)

    def url(self, location: str, *, media_type: str) -> str | None:
        """See `Direct.url`."""
        _require_name(location)
        if not self._url_expiry_s:
            return None
        return self._bucket.url(location, media_type=media_type, expiry_s=self._url_expiry_s)

    def open(self, upload: str, *, size: int) -> Sink:
        """See `Uploads.open`."""
        grip, held = self._take(upload)
        if held.size != size:
            self._let_go(grip, held)
            raise RangeMismatchError(
                f"the upload holds {held.size} bytes, not {size}",
                hint="ask for the upload's status and go on from there",
            )
        return S3Sink(self._bucket, grip, held, self._pulse.remove)

    def size(self, upload: str) -> int:
        """See `Uploads.size`."""
        _require_name(upload)
        return self._assembly(upload).size

    def abort(self, upload: str) -> None:
        """See `Uploads.abort`."""
        _require_name(upload)
        known = self._claims.forget(upload)
        if known is None:
            # The name of a multipart upload that no claim knows: see `uploads`.
            for multipart, _ in self._bucket.multiparts(upload):
                self._bucket.abort(multipart)
            return
        held = parse(known, datetime.now(UTC))
        if held.is_finished:
            return
        if held.multipart:
            self._bucket.abort(held.multipart)
        if held.tail:
            self._bucket.delete(held.tail.location)

    def finish(self, upload: str, *, size: int) -> str:
        """See `Finisher.finish`."""
        grip, held = self._take(upload)
        try:
            if held.size != size:
                raise SizeMismatchError(
                    f"the upload holds {held.size} bytes, not {size}",
                    hint="start the upload again",
                )
            location = self._assemble(held)
            self._claims.end(upload, grip.owner, follower=_follower(held, location))
        except BaseException:
            self._let_go(grip, held)
            raise
        self._pulse.remove(grip.owner)
        if held.tail and held.tail.location != location:
            with suppress(MemcubeError):  # what is left of it will be swept
                self._bucket.delete(held.tail.location)
        return location

    def delete(self, location: str) -> None:
        """See `Sweeper.delete`."""
        _require_name(location)
        self._bucket.delete(location)

    def objects(self) -> Iterator[Object]:
        """See `Sweeper.objects`. What belongs to an upload is none of them."""
        for page in self._bucket.objects():
            # After the page: what was finished since then is still young, or is claimed as finished.
            claimed = {name for held in self._assemblies() for name in held.locations}
            yield from (each for each in page if each.name not in claimed)

    def uploads(self) -> Iterator[Object]:
        """See `Sweeper.uploads`. A multipart upload that no claim knows goes by its location."""
        found = list(self._bucket.multiparts())
        claimed = {held.multipart.id for held in self._assemblies() if held.multipart}
        for known in self._claims.all():
            yield Object(known.upload, known.written_at)
        for multipart, begun_at in found:
            if multipart.id not in claimed:
                yield Object(multipart.location, begun_at)

    def check(self) -> None:
        """See `BlobStore.check`."""
        self._bucket.check()

    def _assemble(self, held: Assembly) -> str:
        """The location of one object that holds all bytes of `held`."""
        if held.multipart is None:
            return self._single(held)
        parts = held.parts
        if held.tail:
            content = read_tail(self._bucket, held.tail)
            parts = (*parts, self._bucket.put_part(held.multipart, len(parts) + 1, content))
        self._bucket.complete(held.multipart, parts)
        return held.multipart.location

    def _single(self, held: Assembly) -> str:
        if held.tail is None:
            location = new_location()
            self._bucket.put(location, b"")
            return location
        return held.tail.location

    def _take(self, upload: str) -> tuple[Grip, Assembly]:
        _require_name(upload)
        grip = Grip(self._claims, upload, new_location())
        held = parse(self._claims.take(upload, grip.owner), datetime.now(UTC))
        self._pulse.add(grip.owner)
        return grip, held

    def _let_go(self, grip: Grip, held: Assembly) -> None:
        """Let others have the upload, as it was; one without bytes is forgotten."""
        self._pulse.remove(grip.owner)
        with suppress(MemcubeError):  # it lapses by itself
            if held.size:
                grip.keep(held, release=True)
            else:
                self._claims.end(grip.upload, grip.owner)

    def _assembly(self, upload: str) -> Assembly:
        return parse(self._claims.state(upload), datetime.now(UTC))

    def _assemblies(self) -> Iterator[Assembly]:
        now = datetime.now(UTC)
        return (parse(known.state, now) for known in self._claims.all())


def _follower(held: Assembly, location: str) -> Claimed | None:
    """The note that keeps an object from being taken for an orphan, where S3 says that it is old."""
    now = datetime.now(UTC)
    if now - held.begun_at < YOUNG:
        return None
    finished = Assembly(held.begun_at, tail=Tail(location, held.size), is_finished=True)
    return Claimed(location, finished.to_text(), now)


def _require_name(name: str) -> None:
    # Names are made by this registry; anything else would be a key of somebody else's.
    if not is_location(name):
        raise StorageError(
            f"{name[:64]!r} is not the name of an object", hint="look at the server's log"
        )
