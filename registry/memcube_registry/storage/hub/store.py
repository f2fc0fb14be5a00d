"""The blob store over a repository of the Hub: see the package for where things lie."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from memcube_protocol.errors import MemcubeError, NotFoundError

from memcube_registry.batching import Batches
from memcube_registry.observability.requests import log
from memcube_registry.storage.hub.dataset import Dataset, Found, Sent, described, path_of
from memcube_registry.storage.hub.reading import HubPieces
from memcube_registry.storage.interface import Object, Pieces, Sink
from memcube_registry.storage.local import LocalFiles

AT_ONCE: Final = 90
"""So many objects at most are added, or removed, by one commit: the Hub advises fewer than 100 files."""
ADDRESS_LIFE_S: Final = 30
"""How long an address is given out again: the Hub's are valid for many minutes, and asking is counted too."""
_ADDRESSES: Final = 4096


class HubStore:
    """A `BlobStore` in `dataset`. Uploads in progress lie below `staging`, which replicas must share.

    Clients are led to the signed addresses of the Hub's CDN where `redirects` says so. Objects that are
    deleted are gone at once for this process, and from the Hub with one of its next commits: one that
    comes to nothing leaves them to the next sweep.
    """

    def __init__(self, dataset: Dataset, staging: Path, *, redirects: bool = True) -> None:
        self._dataset = dataset
        self._staging = LocalFiles(staging)
        self._redirects = redirects
        self._additions: Batches[Sent, str] = Batches(dataset.add, AT_ONCE)
        self._removals: Batches[str, None] = Batches(self._remove, AT_ONCE)
        self._removed: set[str] = set()
        self._addresses = _Addresses()

    def read(self, location: str, *, start: int = 0, stop: int | None = None) -> Pieces:
        """See `Reader.read`."""
        self._require_present(location)
        return HubPieces(self._dataset, location, start, stop)

    def url(self, location: str, *, media_type: str) -> str | None:  # noqa: ARG002 - the Hub decides it
        """See `Direct.url`: the CDN's address. One that would need the registry's token is never told."""
        self._require_present(location)
        if not self._redirects:
            return None
        found = self._addresses.known(location)
        if found is None:
            found = self._dataset.find(location)
            self._addresses.keep(location, found)
        return None if found.needs_token else found.url

    def open(self, upload: str, *, size: int) -> Sink:
        """See `Uploads.open`."""
        return self._staging.open(upload, size=size)

    def size(self, upload: str) -> int:
        """See `Uploads.size`."""
        return self._staging.size(upload)

    def abort(self, upload: str) -> None:
        """See `Uploads.abort`."""
        self._staging.abort(upload)

    def finish(self, upload: str, *, size: int) -> str:
        """See `Finisher.finish`: sent by itself, then committed with whatever else is ready by then."""
        with self._staging.held(upload, size=size) as staged:
            location = self._additions.submit(self._dataset.send(upload, staged)).result()
            staged.unlink(missing_ok=True)
        return location

    def delete(self, location: str) -> None:
        """See `Sweeper.delete`."""
        path_of(location)
        self._removed.add(location)
        self._addresses.drop(location)
        self._removals.submit(location)

    def objects(self) -> Iterator[Object]:
        """See `Sweeper.objects`."""
        for location in self._dataset.locations():
            if location not in self._removed:
                yield described(location)

    def uploads(self) -> Iterator[Object]:
        """See `Sweeper.uploads`."""
        return self._staging.uploads()

    def check(self) -> None:
        """See `BlobStore.check`. A commit is not tried: one for each probe would be too many."""
        self._staging.check()
        self._dataset.check()

    def _remove(self, locations: Sequence[str]) -> list[None]:
        try:
            self._dataset.remove(locations)
        except MemcubeError as error:
            log.warning("blobs stay on the Hub until the next sweep", error=str(error))
        self._removed.difference_update(locations)
        return [None] * len(locations)

    def _require_present(self, location: str) -> None:
        path_of(location)
        if location in self._removed:
            raise NotFoundError(f"the store holds no object {location}", hint="push the blob again")


class _Addresses:
    """Where objects were found lately."""

    def __init__(self) -> None:
        self._found: OrderedDict[str, tuple[float, Found]] = OrderedDict()
        self._lock = threading.Lock()

    def known(self, location: str) -> Found | None:
        with self._lock:
            until_s, found = self._found.get(location, (0.0, None))
        return found if time.monotonic() < until_s else None

    def keep(self, location: str, found: Found) -> None:
        with self._lock:
            self._found[location] = (time.monotonic() + ADDRESS_LIFE_S, found)
            self._found.move_to_end(location)
            while len(self._found) > _ADDRESSES:
                self._found.popitem(last=False)

    def drop(self, location: str) -> None:
        with self._lock:
            self._found.pop(location, None)
