"""How a blob leaves the registry: whole, in part, by redirect, by the nginx before it, or not at all.

Every route that gives out blobs does it here. Whether the caller may have the blob was decided before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from memcube_protocol.errors import NotFoundError, StorageError

from memcube_registry.blobs.ranges import Span, requested_span
from memcube_registry.blobs.service import StoredBlob
from memcube_registry.delivery.decision import may_leave_by_url
from memcube_registry.http.exchange import (
    Answer,
    Headers,
    Request,
    Response,
    StreamAnswer,
    transfer,
)
from memcube_registry.storage import BlobStore, HandsOver

MEDIA_TYPE: Final = "application/octet-stream"
"""Of every blob, whatever its manifest says: no browser shows as a page what somebody pushed."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A blob that the caller may have, under the entity tag and the headers of one route."""

    blob: StoredBlob
    entity_tag: str
    own_headers: Headers = ()

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """What every answer about the blob carries, whichever way it leaves."""
        return [
            (b"content-type", MEDIA_TYPE.encode()),
            (b"etag", f'"{self.entity_tag}"'.encode()),
            (b"accept-ranges", b"bytes"),
            (b"x-content-type-options", b"nosniff"),
            *self.own_headers,
        ]


async def send(request: Request, store: BlobStore, offer: Offer) -> Response:
    """The answer to a GET of the offered blob.

    Raises:
        UnsatisfiableRangeError: `Range` asks for bytes that it does not have.
        StorageError: the store lost it, or cannot read it.
    """
    if is_known_to(request, offer.entity_tag):
        return Answer(304, offer.headers)
    return await transfer(_leave, store, offer, _span(request, offer))


def is_known_to(request: Request, entity_tag: str) -> bool:
    """Whether `If-None-Match` says that the client holds this content."""
    known = request.header(b"if-none-match")
    if known is None:
        return False
    return known.strip() == "*" or f'"{entity_tag}"' in (
        tag.strip().removeprefix("W/") for tag in known.split(",")
    )


def _span(request: Request, offer: Offer) -> Span | None:
    """What `Range` asks for, unless `If-Range` makes it conditional on other content."""
    wanted = request.header(b"range")
    condition = request.header(b"if-range")
    if wanted is None or (condition is not None and condition.strip() != f'"{offer.entity_tag}"'):
        return None
    return requested_span(wanted, offer.blob.size_bytes)


def _leave(store: BlobStore, offer: Offer, span: Span | None) -> Response:
    """A redirect to the store where that is allowed and possible; the client asks there for the same range."""
    if may_leave_by_url(offer.blob.form) and (
        url := store.url(offer.blob.location, media_type=MEDIA_TYPE)
    ):
        kept = [header for header in offer.headers if header[0] != b"cache-control"]
        # The content never changes, but the URL expires.
        return Answer(307, [(b"location", url.encode()), (b"cache-control", b"no-store"), *kept])
    return _content(store, offer, span)


def _content(store: BlobStore, offer: Offer, span: Span | None) -> Response:
    blob, headers = offer.blob, offer.headers
    start, stop = (span.start, span.stop) if span else (0, blob.size_bytes)
    try:
        pieces = store.read(blob.location, start=start, stop=stop)
    except NotFoundError as error:
        raise _lost(blob) from error
    if pieces.size != stop - start:
        pieces.close()
        raise _lost(blob)
    if isinstance(store, HandsOver):
        pieces.close()
        # The server before this one has the request too, and cuts out the same range.
        headers.append((b"x-accel-redirect", store.place_before(blob.location).encode()))
        return Answer(200, headers)
    if span:
        place = f"bytes {start}-{stop - 1}/{blob.size_bytes}"
        headers.append((b"content-range", place.encode()))
    return StreamAnswer(206 if span else 200, headers, pieces)


def _lost(blob: StoredBlob) -> StorageError:
    return StorageError(
        f"the bytes of blob {blob.digest} are damaged or lost",
        hint="the registry's operator should check its disk, and run `memcube-registry fsck --repair`: "
        "then `memcube push --again`",
    )
