"""The blob store over a bucket: see the package for where things lie."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress

from memcube_protocol.errors import (
    MemcubeError,
    NotFoundError,
    RangeMismatchError,
    SizeMismatchError,
    StorageError,
)

from memcube_registry.storage.claims import Claims
from memcube_registry.storage.interface import Object, Pieces, Sink
from memcube_registry.storage.s3.assembly import Assembly, parse
from memcube_registry.storage.s3.bucket import Bucket, is_location, new_location
from memcube_registry.storage.s3.direct import S3Direct
from memcube_registry.storage.s3.pulse import Pulse
from memcube_registry.storage.s3.reading import S3Pieces
from memcube_registry.storage.s3.writing import Grip, S3Sink, locations_of, read_tail


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
        return parse(self._claims.state(upload)).size

    def abort(self, upload: str) -> None:
        """See `Uploads.abort`."""
        _require_name(upload)
        known = self._claims.forget(upload)
        if known is None:
            # The name of a multipart upload that no claim knows: see `uploads`.
            for multipart, _ in self._bucket.multiparts(upload):
                self._bucket.abort(multipart)
            return
        held = parse(known)
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
            location = self._assemble(grip, held)
            grip.keep(held.made(location), release=True)
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
            # After the page: what has been finished since is known by its upload, or has its row.
            hidden, made = self._claimed()
            for each in page:
                if each.name not in hidden:
                    yield Object(each.name, each.written_at, made.get(each.name))

    def uploads(self) -> Iterator[Object]:
        """See `Sweeper.uploads`. A multipart upload that no claim knows goes by its location.

        One that is over is there as long as it is claimed and its object is gone: a crash left the claim.
        """
        found = list(self._bucket.multiparts())
        hidden, _ = self._claimed()
        for known in self._claims.all():
            held = parse(known.state)
            if not held.is_over or self._is_gone(held.finished):
                yield Object(known.upload, known.written_at)
        for multipart, begun_at in found:
            if multipart.location not in hidden:
                yield Object(multipart.location, begun_at)

    def check(self) -> None:
        """See `BlobStore.check`."""
        self._bucket.check()

    def _assemble(self, grip: Grip, held: Assembly) -> str:
        """The location of one object that holds all bytes of `held`."""
        if held.multipart is None:
            return self._single(grip, held)
        parts = held.parts
        if held.tail:
            content = read_tail(self._bucket, held.tail)
            parts = (*parts, self._bucket.put_part(held.multipart, len(parts) + 1, content))
        self._bucket.complete(held.multipart, parts)
        return held.multipart.location

    def _single(self, grip: Grip, held: Assembly) -> str:
        if held.tail:
            return held.tail.location
        location = grip.locations[0]
        self._bucket.put(location, b"")
        return location

    def _is_gone(self, locations: Iterable[str]) -> bool:
        """Whether no object lies at any of `locations`."""
        for location in locations:
            with suppress(NotFoundError):
                self._bucket.size(location)
                return False
        return True

    def _take(self, upload: str) -> tuple[Grip, Assembly]:
        _require_name(upload)
        grip = Grip(self._claims, upload, new_location())
        held = parse(self._claims.take(upload, grip.owner))
        self._pulse.add(grip.owner)
        return grip, held

    def _let_go(self, grip: Grip, held: Assembly) -> None:
        """Let others have the upload, as it was."""
        self._pulse.remove(grip.owner)
        with suppress(MemcubeError):  # it lapses by itself
            grip.keep(held, release=True)

    def _claimed(self) -> tuple[set[str], dict[str, str]]:
        """The locations of uploads in progress; and for each finished object its upload."""
        hidden: set[str] = set()
        made: dict[str, str] = {}
        for known in self._claims.all():
            held = parse(known.state)
            hidden.update(held.locations, locations_of(known.owner) if known.owner else ())
            made.update(dict.fromkeys(held.finished, known.upload))
        return hidden - made.keys(), made


def _require_name(name: str) -> None:
    # Names are made by this registry; anything else would be a key of somebody else's.
    if not is_location(name):
        raise StorageError(
            f"{name[:64]!r} is not the name of an object", hint="look at the server's log"
        )
