"""One registry as a client sees it: the OCI distribution API 1.1, over `http.HttpClient`.

    registry = Registry("127.0.0.1:7070", HttpClient(settings), settings)
    manifest = registry.manifest("ann/notes", "1.0.0")
    registry.put_manifest("ann/notes", manifest, "latest")

What a registry sends is checked against its digest here, except streamed blobs: `transfer` does that.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlencode, urljoin

from memcube_protocol import canonical_json, limits, media_types, oci
from memcube_protocol.content import Expected, stream_verified
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    DigestMismatchError,
    NetworkError,
    NotFoundError,
    UnsupportedError,
)
from memcube_protocol.reference import is_tag

from memcube.http import FileBody, HttpClient, Origin, Request, Response, follow
from memcube.settings import Settings

_ACCEPT: Final = ", ".join(
    (media_types.OCI_MANIFEST, media_types.OCI_INDEX, oci.DOCKER_MANIFEST, oci.DOCKER_INDEX)
)
_OCTETS: Final = "application/octet-stream"
_NEXT: Final = re.compile(r"<([^<>]+)>[^,]*;\s*rel=\"?next\"?")
_RANGE: Final = re.compile(r"(?:bytes=)?0-(\d{1,18})")
_PAGES: Final = 10_000
_UPLOAD_CHUNK_LIMIT: Final = limits.MIB * 1024


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload session: where it goes on, how many bytes it holds, its least chunk in bytes."""

    url: str
    offset: int = 0
    min_chunk_bytes: int = 0


class Registry:
    """The registry at `host` (`host[:port]`; empty: the default one). Safe for several threads."""

    def __init__(self, host: str, http: HttpClient, settings: Settings) -> None:
        self.endpoint = settings.endpoint_of(host)
        self.host = self.endpoint.host
        self.http = http
        self._origin = Origin.of(self.endpoint.url)

    def ping(self) -> None:
        """Make sure that a registry answers and takes our credentials.

        Raises:
            UnauthenticatedError: it refuses them, or wants some and there are none.
            NetworkError, UnsupportedError: no answer, or not a registry.
        """
        try:
            self._send(Request("GET", f"{self.endpoint.url}/v2/")).close()
        except NotFoundError:
            raise UnsupportedError(
                f"{self.endpoint.url} is not an OCI registry", hint="check the host and the port"
            ) from None

    def blob_size(self, name: str, digest: Digest) -> int | None:
        """Size in bytes of a blob that `name` holds, or nothing; -1 where the size is not told."""
        request = self._read(name, "HEAD", f"blobs/{digest}")
        with self._send(request, 200, 404) as response:
            if response.status == 404:
                return None
            length = response.length
            return -1 if length is None else length

    def open_blob(
        self, name: str, digest: Digest, *, start: int = 0, stop: int | None = None
    ) -> Response:
        """Bytes `start` to `stop` of a blob, unverified, still to be read.

        The status is 206, or 200 where the registry sends everything from the first byte on.
        """
        headers = {}
        if start or stop is not None:
            last = "" if stop is None else str(stop - 1)
            headers["Range"] = f"bytes={start}-{last}"
        response = self._send(self._read(name, "GET", f"blobs/{digest}", headers), 200, 206)
        if response.status == 206 and (not headers or not _begins_at(response, start)):
            response.close()
            raise NetworkError(
                f"{self.host} sent another range than bytes {start} and on",
                hint="the registry is faulty: ask its operator",
            )
        return response

    def read_blob(
        self, name: str, blob: oci.Descriptor, limit: int = limits.MANIFEST_BYTES
    ) -> bytes:
        """Content of a small blob, verified.

        Raises:
            LimitExceededError: more than `limit` bytes.
            NotFoundError: the repository does not hold it.
            SizeMismatchError, DigestMismatchError: other bytes came.
        """
        limits.require_at_most(f"blob {blob.digest}", blob.size, limit)
        with self.open_blob(name, blob.digest) as response:
            return b"".join(stream_verified(response.pieces(), Expected(blob.digest, blob.size)))

    def delete_blob(self, name: str, digest: Digest) -> None:
        """Remove a blob from `name`."""
        self._send(self._write(name, "DELETE", f"blobs/{digest}"), 202).close()

    def start_upload(
        self, name: str, *, mount: Digest | None = None, source: str | None = None
    ) -> Upload | None:
        """A new upload session; nothing if `mount` could be mounted from `source` instead."""
        query = {"mount": str(mount), "from": source or ""} if mount and source else {}
        scopes = {_scope(name, "pull,push")} | ({_scope(source, "pull")} if source else set())
        url = self._url(name, "blobs/uploads/") + (f"?{urlencode(query)}" if query else "")
        request = Request(
            "POST",
            url,
            {"Content-Length": "0"},
            scopes=frozenset(scopes),
            repeatable=True,  # a session too many is harmless: it runs out
        )
        with self._send(request, 201, 202) as response:
            return None if response.status == 201 and query else self._upload(response, 0)

    def finish_upload(
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
        with self._send(request, 201) as response:
            said = response.headers.get("docker-content-digest", str(digest))
            if said != str(digest):
                raise DigestMismatchError(
                    f"{self.host} stored {digest} as {said[:140]}", hint="push again"
                )

    def append_upload(self, name: str, upload: Upload, body: FileBody) -> Upload:
        """Send a chunk; the session as it is afterwards.

        Raises:
            RangeMismatchError: the session is elsewhere; ask `upload_status`.
        """
        headers = {
            "Content-Type": _OCTETS,
            "Content-Range": _content_range(upload.offset, body.size),
        }
        request = self._to_upload(name, "PATCH", upload.url, headers, body)
        with self._send(request, 202) as response:
            return self._upload(response, upload.offset + body.size)

    def upload_status(self, name: str, url: str) -> Upload | None:
        """The session at `url`, with the bytes that the registry holds; nothing if it is gone."""
        request = self._to_upload(name, "GET", url, {}, None)
        with self._send(request, 204, 202, 400, 404, 416) as response:
            if response.status not in (204, 202):
                return None
            held = _RANGE.fullmatch(response.headers.get("range", ""))
            # `0-0` is said of an empty session as well as of one that holds a single byte.
            offset = int(held[1]) + 1 if held and held[1] != "0" else 0
            return self._upload(response, offset, fallback=url)

    def cancel_upload(self, name: str, upload: Upload) -> None:
        """Give a session up."""
        self._send(self._to_upload(name, "DELETE", upload.url, {}, None), 204, 404).close()

    def manifest_descriptor(self, name: str, target: str) -> oci.Descriptor | None:
        """What tag or digest `target` names, in one HEAD request; nothing if it names nothing.

        Nothing as well where the registry does not tell the digest, type or size.
        """
        request = self._read(name, "HEAD", f"manifests/{target}", {"Accept": _ACCEPT})
        with self._send(request, 200, 404) as response:
            digest = response.headers.get("docker-content-digest")
            if response.status == 404 or digest is None or response.length is None:
                return None
            media_type = response.headers.get("content-type", media_types.OCI_MANIFEST)
            return oci.Descriptor(media_type, Digest.parse(digest), response.length)

    def manifest(self, name: str, target: str) -> oci.Manifest | oci.Index:
        """The manifest or index that tag or digest `target` names.

        Raises:
            NotFoundError: there is none.
            DigestMismatchError: the bytes are not what `target`, or the registry itself, says.
            InvalidManifestError, InvalidJsonError, LimitExceededError: not an acceptable manifest.
        """
        request = self._read(name, "GET", f"manifests/{target}", {"Accept": _ACCEPT})
        with self._send(request) as response:
            raw = response.content(limits.MANIFEST_BYTES)
            said = response.headers.get("docker-content-digest")
            media_type = response.headers.get("content-type", "").partition(";")[0].strip()
        wanted = target if not is_tag(target) else said
        if wanted and wanted != str(actual := Digest.of(raw, Digest.parse(wanted).algorithm)):
            raise DigestMismatchError(
                f"{self.host} answered {wanted} with content of digest {actual}",
                hint="the registry is damaged or hostile",
            )
        known = media_type in oci.MANIFEST_TYPES | oci.INDEX_TYPES
        return oci.parse(raw, media_type if known else None)

    def put_manifest(
        self, name: str, manifest: oci.Manifest | oci.Index, target: str | None = None
    ) -> Digest:
        """Push `manifest` under tag or digest `target` (default: its digest).

        One with a subject is also entered into the fallback index where the registry has no
        referrers API (distribution specification, "Pushing Manifests with Subject").

        Raises:
            NotFoundError: the registry misses a blob that it names.
            ConflictError: an immutable tag names another manifest.
        """
        request = Request(
            "PUT",
            self._url(name, f"manifests/{target or manifest.digest}"),
            {"Content-Type": manifest.media_type},
            manifest.raw,
            frozenset({_scope(name, "pull,push")}),
        )
        with self._send(request, 201) as response:
            said = response.headers.get("docker-content-digest")
            served = response.headers.get("oci-subject")
        if said and said != str(manifest.digest) and said.startswith("sha256:"):
            raise DigestMismatchError(
                f"{self.host} stored {manifest.digest} as {said[:140]}", hint="push again"
            )
        if manifest.subject and not served:
            self._enter_fallback(name, manifest.subject, manifest)
        return manifest.digest

    def delete_manifest(self, name: str, target: str) -> None:
        """Remove a tag, or a manifest by its digest."""
        self._send(self._write(name, "DELETE", f"manifests/{target}"), 202).close()

    def tags(self, name: str) -> Iterator[str]:
        """The tags of `name`, page by page, as the registry orders them."""
        url = self._url(name, "tags/list")
        for _ in range(_PAGES):
            request = Request("GET", url, scopes=frozenset({_scope(name, "pull")}))
            with self._send(request) as response:
                fields = canonical_json.parse_object(
                    response.content(limits.MANIFEST_BYTES), what="tag list"
                )
                following = _NEXT.search(response.headers.get("link", ""))
            tags = fields.get("tags") or []
            if not isinstance(tags, list):
                raise _nonsense(self.host, "a tag list that is not a list")
            yield from (tag for tag in tags if isinstance(tag, str) and is_tag(tag))
            if not following:
                return
            url = self._same_origin(urljoin(url, following[1]))
        raise _nonsense(self.host, f"more than {_PAGES} pages of tags")

    def referrers(
        self, name: str, subject: Digest, artifact_type: str | None = None
    ) -> list[oci.Descriptor]:
        """Manifests that refer to `subject`, through the API or the fallback tag; filtered here too."""
        query = f"?{urlencode({'artifactType': artifact_type})}" if artifact_type else ""
        url: str | None = self._url(name, f"referrers/{subject}{query}")
        found: list[oci.Descriptor] = []
        for _ in range(_PAGES):
            if url is None:
                break
            request = Request("GET", url, scopes=frozenset({_scope(name, "pull")}))
            with self._send(request, 200, 400, 404, 405) as response:
                if response.status != 200:
                    found = list(self._fallback(name, subject))
                    break
                found += _entries(response.content(limits.MANIFEST_BYTES))
                following = _NEXT.search(response.headers.get("link", ""))
            url = self._same_origin(urljoin(url, following[1])) if following else None
        return [entry for entry in found if artifact_type in (None, entry.artifact_type)]

    def _fallback(self, name: str, subject: Digest) -> tuple[oci.Descriptor, ...]:
        try:
            index = self.manifest(name, _fallback_tag(subject))
        except NotFoundError:
            return ()
        return index.manifests if isinstance(index, oci.Index) else ()

    def _enter_fallback(
        self, name: str, subject: oci.Descriptor, manifest: oci.Manifest | oci.Index
    ) -> None:
        entries = self._fallback(name, subject.digest)
        own = manifest.descriptor()
        if any(entry.digest == own.digest for entry in entries):
            return
        entry = oci.Descriptor(
            own.media_type,
            own.digest,
            own.size,
            manifest.annotations,
            manifest.effective_artifact_type,
        )
        index = oci.write_index((*entries, entry))
        self.put_manifest(name, index, _fallback_tag(subject.digest))

    def _upload(self, response: Response, offset: int, *, fallback: str | None = None) -> Upload:
        location = response.headers.get("location") or fallback
        if not location:
            raise _nonsense(self.host, "an upload without a Location")
        url, _ = follow(self._origin, response.url, location)
        least = response.headers.get("oci-chunk-min-length", "")
        least_bytes = int(least) if least.isascii() and least.isdecimal() and len(least) < 13 else 0
        return Upload(url, offset, min(least_bytes, _UPLOAD_CHUNK_LIMIT))

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
            frozenset({_scope(name, "pull,push")}),
            repeatable,
            anonymous=Origin.of(url) != self._origin,
        )

    def _read(
        self, name: str, method: str, rest: str, headers: dict[str, str] | None = None
    ) -> Request:
        scopes = frozenset({_scope(name, "pull")})
        return Request(method, self._url(name, rest), headers or {}, scopes=scopes)

    def _write(self, name: str, method: str, rest: str) -> Request:
        return Request(method, self._url(name, rest), scopes=frozenset({_scope(name, "*")}))

    def _send(self, request: Request, *accept: int) -> Response:
        return self.http.send(request, accept or (200,))

    def _url(self, name: str, rest: str) -> str:
        return f"{self.endpoint.url}/v2/{quote(name)}/{rest}"

    def _same_origin(self, url: str) -> str:
        if Origin.of(url) != self._origin:
            raise _nonsense(self.host, "a next page on another host")
        return url


def _scope(name: str, actions: str) -> str:
    return f"repository:{name}:{actions}"


def _fallback_tag(subject: Digest) -> str:
    """Tag of the fallback index: `algorithm-hex`, cut to what a tag may be."""
    return f"{subject.algorithm[:32]}-{subject.hex[:64]}"


def _entries(raw: bytes) -> tuple[oci.Descriptor, ...]:
    index = oci.parse(raw, media_types.OCI_INDEX)
    return index.manifests if isinstance(index, oci.Index) else ()


def _begins_at(response: Response, start: int) -> bool:
    return response.headers.get("content-range", "").startswith(f"bytes {start}-")


def _content_range(start: int, size: int) -> str:
    return f"{start}-{start + size - 1}"


def _nonsense(host: str, what: str) -> NetworkError:
    return NetworkError(f"{host} answered with {what}", hint="the registry is faulty")
