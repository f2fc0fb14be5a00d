"""Upload sessions (distribution specification, "Pushing Blobs")."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from memcube_protocol import limits
from memcube_protocol.digest import Digest
from memcube_protocol.errors import DigestMismatchError

from memcube.http import FileBody, Origin, Request, Response
from memcube.remote.connection import Connection, nonsense, scope_of

_OCTETS: Final = "application/octet-stream"
_RANGE: Final = re.compile(r"(?:bytes=)?0-(\d{1,18})")
_MIN_CHUNK_LIMIT: Final = 1024 * limits.MIB


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload session: where it goes on, how many bytes it holds, its least chunk in bytes."""

    url: str
    offset: int = 0
    min_chunk_bytes: int = 0


class Uploads:
    """The upload sessions of one registry."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def start(
        self, name: str, *, mount: Digest | None = None, source: str | None = None
    ) -> Upload | None:
        """A new upload session; nothing if `mount` could be mounted from `source` instead."""
        query = {"mount": str(mount), "from": source or ""} if mount and source else {}
        scopes = {scope_of(name, "pull,push")}
        if source and source != name:
            scopes.add(scope_of(source, "pull"))
        url = self._connection.url(name, "blobs/uploads/") + (
            f"?{urlencode(query)}" if query else ""
        )
        request = Request(
            "POST",
            url,
            {"Content-Length": "0"},
            scopes=frozenset(scopes),
            repeatable=True,  # a session too many is harmless: it runs out
        )
        with self._connection.send(request, 201, 202) as response:
            return None if response.status == 201 and query else self._upload(response, 0)

    def finish(
        self, name: str, upload: Upload, digest: Digest, body: bytes | FileBody = b""
    ) -> None:
        """Send the rest of a blob, which may be nothing, and close the session.

        Raises:
            DigestMismatchError: the registry got other bytes.
        """
        divider = "&" if "?" in upload.url else "?"
        url = f"{upload.url}{divider}{urlencode({'digest': str(digest)})}"
        headers = {"Content-Type": _OCTETS}
        if isinstance(body, FileBody) and upload.offset:
            headers["Content-Range"] = _content_range(upload.offset, body.size)
        request = self._to_upload(name, "PUT", url, headers, body)
        with self._connection.send(request, 201) as response:
            said = response.headers.get("docker-content-digest", str(digest))
            if said != str(digest):
                raise DigestMismatchError(
                    f"{self._connection.host} stored {digest} as {said[:140]}", hint="push again"
                )

    def append(self, name: str, upload: Upload, body: FileBody) -> Upload:
        """Send a chunk; the session as it is afterwards.

        Raises:
            RangeMismatchError: the session is elsewhere; ask `status`.
        """
        headers = {
            "Content-Type": _OCTETS,
            "Content-Range": _content_range(upload.offset, body.size),
        }
        request = self._to_upload(name, "PATCH", upload.url, headers, body)
        with self._connection.send(request, 202) as response:
            return self._upload(response, upload.offset + body.size)

    def status(self, name: str, url: str) -> Upload | None:
        """The session at `url`, with the bytes that the registry holds; nothing if it is gone."""
        request = self._to_upload(name, "GET", url, {}, None)
        with self._connection.send(request, 204, 202, 400, 404, 416) as response:
            if response.status not in (204, 202):
                return None
            held = _RANGE.fullmatch(response.headers.get("range", ""))
            # `0-0` is said of an empty session as well as of one that holds a single byte.
            offset = int(held[1]) + 1 if held and held[1] != "0" else 0
            return self._upload(response, offset, fallback=url)

    def cancel(self, name: str, upload: Upload) -> None:
        """Give a session up."""
        self._connection.send(
            self._to_upload(name, "DELETE", upload.url, {}, None), 204, 404
        ).close()

    def _upload(self, response: Response, offset: int, *, fallback: str | None = None) -> Upload:
        location = response.headers.get("location") or fallback
        if not location:
            raise nonsense(self._connection.host, "an upload without a Location")
        url, _ = self._connection.http.lead(self._connection.origin, response.url, location)
        least = response.headers.get("oci-chunk-min-length", "")
        least_bytes = int(least) if least.isascii() and least.isdecimal() and len(least) < 13 else 0
        return Upload(url, offset, min(least_bytes, _MIN_CHUNK_LIMIT))

    def _to_upload(
        self,
        name: str,
        method: str,
        url: str,
        headers: dict[str, str],
        body: bytes | FileBody | None,
    ) -> Request:
        """A request to an upload session; one on another origin gets no credentials.

        Bodies are not sent twice here: `transfer` first asks how far the session got.
        """
        repeatable = not isinstance(body, FileBody) and method in ("GET", "DELETE", "PUT")
        return Request(
            method,
            url,
            headers,
            body,
            frozenset({scope_of(name, "pull,push")}),
            repeatable,
            self._connection.origin if Origin.of(url) != self._connection.origin else None,
        )


def _content_range(start: int, size: int) -> str:
    return f"{start}-{start + size - 1}"
