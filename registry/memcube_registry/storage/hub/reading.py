"""Reads an object from the Hub's CDN in one request, and in a few more where the connection breaks."""

from __future__ import annotations

from typing import Final

import urllib3
from memcube_protocol.errors import StorageError, UnavailableError

from memcube_registry.storage.hub.dataset import Dataset, Found
from memcube_registry.storage.interface import PIECE_BYTES
from memcube_registry.storage.resuming import ResumedPieces

_TIMEOUT: Final = urllib3.Timeout(connect=10.0, read=60.0)
_POOL: Final = urllib3.PoolManager(num_pools=8, maxsize=16, retries=False, timeout=_TIMEOUT)


class HubPieces(ResumedPieces):
    """See `Pieces`. A read that breaks off asks anew where the object is, and goes on where it stopped.

    Raises:
        NotFoundError: there is no such object.
        StorageError, UnavailableError: it cannot be read.
    """

    first_pause_s = 0.5

    def __init__(self, dataset: Dataset, location: str, start: int, stop: int | None) -> None:
        found = dataset.find(location)
        super().__init__(start, found.size if stop is None else min(stop, found.size))
        self._dataset = dataset
        self._location = location
        self._found: Found | None = found
        self._body: urllib3.BaseHTTPResponse | None = None

    def _piece(self) -> bytes:
        wanted = min(PIECE_BYTES, self._stop - self._position)
        try:
            if self._body is None:
                self._body = self._open()
            piece = self._body.read(wanted, decode_content=False)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise self._broken(type(error).__name__) from error
        if not piece:
            raise self._broken("it sent too little")
        return piece

    def _open(self) -> urllib3.BaseHTTPResponse:
        """The answer with the bytes from here to the end."""
        found = self._found or self._dataset.find(self._location)
        headers = {
            "accept-encoding": "identity",
            "range": f"bytes={self._position}-{self._stop - 1}",
        }
        if found.needs_token and self._dataset.token:
            headers["authorization"] = f"Bearer {self._dataset.token}"
        answer = _POOL.request(
            "GET", found.url, headers=headers, preload_content=False, redirect=False
        )
        begins = answer.headers.get("content-range", "").startswith(f"bytes {self._position}-")
        if (answer.status == 206 and begins) or (answer.status == 200 and not self._position):
            return answer
        answer.close()
        if answer.status in (200, 206):
            raise StorageError(
                "the Hub's storage sent other bytes than those asked for",
                hint="set hub_endpoint to a Hub whose storage knows byte ranges",
            )
        raise self._broken(f"it answered {answer.status}")

    def _broken(self, why: str) -> UnavailableError:
        return UnavailableError(
            f"the Hub's storage did not serve object {self._location}: {why}",
            hint="try again in a moment; if it lasts, look at the Hub's status page",
        )

    def _drop(self) -> None:
        # The next attempt asks for a new address: this one may have expired.
        body, self._body, self._found = self._body, None, None
        if body is not None:
            body.close()
