"""Blobs from one repository into another: mounted within a registry, else streamed through.

Nothing is kept on this machine but the addresses of upload sessions, so that a killed copy goes on
where it stopped; only what goes to the Hub, which takes files, passes through the local store. Bytes
that pass are hashed on the way, and the last of them is held back until they are known to be the right
ones. Of a blob that is taken up in the middle only the target's registry sees the whole, which compares
the digest as every registry has to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

from memcube_protocol.content import Expected, Verifier, stream_verified
from memcube_protocol.digest import Digest
from memcube_protocol.errors import NetworkError
from memcube_protocol.oci import Descriptor
from memcube_protocol.values import frozen

from memcube.http import SizedBody, StreamBody
from memcube.remote import Registry
from memcube.remote.interface import Opened, Remote
from memcube.store import Store
from memcube.transfer.download import Download
from memcube.transfer.progress import Moved, Outcome, Progress, Report, Silent, distinct
from memcube.transfer.together import Receives, TakesTogether
from memcube.transfer.upload import Parts, Sender
from memcube.transfer.workers import Stop, run


@frozen
class Repository:
    """Repository `name` of a registry, or of the Hub."""

    registry: Remote
    name: str

    def parts_of(self, blob: Descriptor) -> Parts:
        """See `upload.Contents.parts_of`: fetched when they are sent."""
        return _Passing(self, blob)


def relay_blobs(
    source: Repository,
    target: Repository,
    blobs: Iterable[Descriptor],
    store: Store,
    *,
    progress: Progress | None = None,
    parallel: int = 4,
) -> Report:
    """Make `target` hold `blobs` of `source`: found there, mounted, or streamed through.

    They come from `source` and from nowhere else, whatever this machine or its user's other repositories
    hold: naming a digest must not get it published.

    Raises:
        NotFoundError: the source does not hold one that the target lacks.
        SizeMismatchError, DigestMismatchError: the source sent something else.
        NetworkError, UnauthenticatedError, ForbiddenError, QuotaExceededError …: as the registries answer.
    """
    watched, wanted = progress or Silent(), distinct(blobs)
    watched.expect(wanted)
    if isinstance(target.registry, Receives):
        return Report(tuple(run(partial(_handed, source, target.registry), wanted, parallel)))
    if not isinstance(target.registry, Registry):
        return Report(tuple(_through_store(source, target, wanted, store, watched, parallel)))
    near = source.registry.host == target.registry.host
    places: dict[Digest, str] = {blob.digest: source.name for blob in wanted} if near else {}
    sender = Sender(target.registry, target.name, store, watched, lambda: places, contents=source)
    return Report(tuple(run(sender, wanted, parallel)))


def _handed(source: Repository, target: Receives, blob: Descriptor, stop: Stop) -> Moved:
    """Give `blob` to a place that takes bytes as they come."""

    def pieces() -> Iterator[bytes]:
        with source.registry.open_blob(source.name, blob.digest) as response:
            for piece in response.pieces():
                stop.check()
                yield piece

    needed = target.receive(blob, pieces())
    return Moved(blob, Outcome.SENT, blob.size) if needed else Moved(blob, Outcome.PRESENT)


def _through_store(
    source: Repository,
    target: Repository,
    wanted: list[Descriptor],
    store: Store,
    watched: Progress,
    parallel: int,
) -> Iterable[Moved]:
    """Fetch `wanted` into the store, and give them to a place that takes them together.

    What the store holds already is fetched all the same, to see that the source shows it.
    """
    assert isinstance(target.registry, TakesTogether)
    for blob in wanted:
        if store.has(blob.digest, blob.size):
            with source.registry.open_blob(source.name, blob.digest) as response:
                for _ in stream_verified(response.pieces(), Expected(blob.digest, blob.size)):
                    pass
    with store.session():
        run(Download(source.registry, source.name, store, Silent()), wanted, parallel)
        return target.registry.take(target.name, wanted, store, watched)


class _Passing:
    """Parts of one blob as its repository sends them, verified where they come in their order."""

    def __init__(self, source: Repository, blob: Descriptor) -> None:
        self._source = source
        self._blob = blob
        self._verifier: Verifier | None = None
        self._hashed = 0

    def __call__(self, start: int, size: int, on_sent: Callable[[int], None]) -> SizedBody:
        """See `upload.Parts`."""
        return StreamBody(size, partial(self._pieces, start, start + size), on_sent)

    def _pieces(self, start: int, stop: int) -> Iterator[bytes]:
        """Bytes `start` to `stop`, the last piece only once all is known to be right."""
        blob = self._blob
        self._begin_at(start)
        end = None if stop == blob.size else stop
        registry, at = self._source.registry, start
        with registry.open_blob(self._source.name, blob.digest, start=start, stop=end) as response:
            held = b""
            for piece in _between(response, start, stop):
                if held:
                    yield held
                self._hash(piece)
                held, at = piece, at + len(piece)
        if at < stop:
            raise NetworkError(
                f"{registry.host} sent {at - start} of {stop - start} bytes of {blob.digest}",
                hint="try again: what has arrived is kept",
            )
        if stop == blob.size and self._verifier:
            self._verifier.finish()
        yield held

    def _begin_at(self, start: int) -> None:
        if start == 0:
            expected = Expected(self._blob.digest, self._blob.size)
            self._verifier, self._hashed = expected.verifier(), 0
        elif start != self._hashed:
            self._verifier = None

    def _hash(self, piece: bytes) -> None:
        if self._verifier:
            self._verifier.update(piece)
            self._hashed += len(piece)


def _between(response: Opened, start: int, stop: int) -> Iterator[bytes]:
    """Bytes `start` to `stop` of a blob, of which `response` may be the whole."""
    at = start if response.status == 206 else 0
    for piece in response.pieces():
        wanted = piece[max(start - at, 0) : stop - at]
        at += len(piece)
        if wanted:
            yield wanted
        if at >= stop:
            return
