"""Upload sessions (distribution specification, "Pushing Blobs")."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlencode

from memcube_protocol import limits
from memcube_protocol.digest import Digest
from memcube_protocol.errors import DigestMismatchError, UnauthenticatedError
from memcube_protocol.values import frozen

from memcube.http import Origin, Request, Response, SizedBody
from memcube.remote.connection import DONE, Connection, nonsense, scope_of

_OCTETS: Final = "application/octet-stream"
_RANGE: Final = re.compile(r"(?:bytes=)?0-(\d{1,18})")
_MIN_CHUNK_LIMIT: Final = 1024 * limits.MIB


@frozen
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
        self, name: str, upload: Upload, digest: Digest, body: bytes | SizedBody = b""
    ) -> None:
        """Send the rest of a blob, which may be nothing, and close the session.

        Raises:
            DigestMismatchError: the registry got other bytes.
            UnauthenticatedError: the session lies on another host, which wants credentials: it gets none.
        """
        divider = "&" if "?" in upload.url else "?"
        url = f"{upload.url}{divider}{urlencode({'digest': str(digest)})}"
        headers = {"Content-Type": _OCTETS}
        if not isinstance(body, bytes) and upload.offset:
            headers["Content-Range"] = _content_range(upload.offset, body.size)
        request = self._to_upload(name, "PUT", url, headers, body)
        with self._send(request, *DONE) as response:
            said = response.headers.get("docker-content-digest", str(digest))
            if said != str(digest):
                raise DigestMismatchError(
                    f"{self._connection.host} stored {digest} as {said[:140]}", hint="push again"
                )

    def append(self, name: str, upload: Upload, body: SizedBody) -> Upload:
        """Send a chunk; the session as it is afterwards, which may hold only a part of the chunk.

        Raises:
            RangeMismatchError: the session is elsewhere; ask `status`.
            UnauthenticatedError: as `finish`.
        """
        headers = {
            "Content-Type": _OCTETS,
            "Content-Range": _content_range(upload.offset, body.size),
        }
        request = self._to_upload(name, "PATCH", upload.url, headers, body)
        with self._send(request, 201, 202) as response:  # some registries say 201
            offset = _kept(response, upload.offset, upload.offset + body.size)
            return self._upload(
                response, offset, fallback=upload.url, least_bytes=upload.min_chunk_bytes
            )

    def status(self, name: str, url: str) -> Upload | None:
        """The session at `url`, with the bytes that the registry holds; nothing if it is gone."""
        request = self._to_upload(name, "GET", url, {}, None)
        with self._send(request, 204, 202, 400, 404, 405, 416) as response:
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

    def _send(self, request: Request, *accept: int) -> Response:
        try:
            return self._connection.send(request, *accept)
        except UnauthenticatedError:
            if request.led_from is None:
                raise
            raise UnauthenticatedError(
                f"{self._connection.host} has blobs sent to {Origin.of(request.url)}, which asks for a "
                "login; credentials go to the registry alone",
                hint="run the command again; if that does not help, ask the registry's operator",
            ) from None

    def _upload(
        self,
        response: Response,
        offset: int,
        *,
        fallback: str | None = None,
        least_bytes: int = 0,
    ) -> Upload:
        location = response.headers.get("location") or fallback
        if not location:
            raise nonsense(self._connection.host, "an upload without a Location")
        url, _ = self._connection.http.lead(self._connection.origin, response.url, location)
        least = response.headers.get("oci-chunk-min-length", "")
        if least.isascii() and least.isdecimal() and len(least) < 13:
            least_bytes = int(least)
        return Upload(url, offset, min(least_bytes, _MIN_CHUNK_LIMIT))

    def _to_upload(
        self,
        name: str,
        method: str,
        url: str,
        headers: dict[str, str],
        body: bytes | SizedBody | None,
    ) -> Request:
        """A request to an upload session; one on another origin gets no credentials.

        Bodies are not sent twice here: `transfer` first asks how far the session got.
        """
        in_memory = body is None or isinstance(body, bytes)
        repeatable = in_memory and method in ("GET", "DELETE", "PUT")
        return Request(
            method,
            url,
            headers,
            body,
            frozenset({scope_of(name, "pull,push")}),
            repeatable,
            self._connection.origin if Origin.of(url) != self._connection.origin else None,
        )


def _kept(response: Response, before: int, expected: int) -> int:
    """How many bytes the session holds after a chunk: fewer than `expected` only where it says so."""
    said = _RANGE.fullmatch(response.headers.get("range", ""))
    offset = int(said[1]) + 1 if said and said[1] != "0" else expected  # `0-0` says nothing
    return offset if before < offset < expected else expected


def _content_range(start: int, size: int) -> str:
    return f"{start}-{start + size - 1}"
