"""One registry as a client sees it: the OCI distribution API 1.1, over `http.HttpClient`.

    registry = Registry("127.0.0.1:7070", HttpClient(settings), settings)
    manifest = registry.manifest("ann/notes", "1.0.0")
    registry.put_manifest("ann/notes", manifest, "latest")

What a registry sends is checked against its digest here, except streamed blobs: `transfer` does that.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlencode, urljoin

from memcube_protocol import canonical_json, limits, media_types, oci
from memcube_protocol.content import Expected, stream_verified
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    DigestMismatchError,
    NetworkError,
    NotFoundError,
    UnsupportedError,
)
from memcube_protocol.reference import is_name, is_tag

from memcube.http import HttpClient, Request, Response
from memcube.remote.connection import (
    GONE,
    LIST_BYTES,
    PAGES,
    TAKEN,
    Connection,
    next_page,
    nonsense,
    scope_of,
)
from memcube.remote.direct import DirectUploads
from memcube.remote.features import features_of
from memcube.remote.referrers import Referrers, is_fallback_tag
from memcube.remote.uploads import Upload, Uploads
from memcube.settings import Settings

__all__ = ["Registry", "Upload", "is_fallback_tag"]

_ACCEPT: Final = ", ".join(
    (media_types.OCI_MANIFEST, media_types.OCI_INDEX, oci.DOCKER_MANIFEST, oci.DOCKER_INDEX)
)


class Registry:
    """The registry at `host` (`host[:port]`; empty: the default one). Safe for several threads."""

    publishes_at_once = False

    def __init__(self, host: str, http: HttpClient, settings: Settings) -> None:
        self._connection = Connection(host, http, settings)
        self.endpoint = self._connection.endpoint
        self.host = self._connection.host
        self.http = http
        self.uploads = Uploads(self._connection)
        self._takes_direct = settings.direct
        self._tagged_by_digest: set[tuple[str, Digest]] = set()
        self._referrers = Referrers(
            self._connection, self.manifest, self._put_manifest, self.manifest_descriptor
        )

    @functools.cached_property
    def direct(self) -> DirectUploads | None:
        """Its direct uploads, where it offers them and the settings do not forbid them.

        Raises:
            NetworkError: no answer.
        """
        if not self._takes_direct:
            return None
        offered = isinstance(features_of(self._connection).get("directUpload"), dict)
        return DirectUploads(self._connection) if offered else None

    @property
    def features(self) -> Mapping[str, Any]:
        """What it says that it can do, asked anew; see `features.features_of`."""
        return features_of(self._connection)

    def ping(self) -> None:
        """Make sure that a registry answers and takes our credentials.

        Raises:
            UnauthenticatedError: it refuses them, or wants some and there are none.
            NetworkError, UnsupportedError: no answer, or not a registry.
        """
        try:
            self._connection.send(Request("GET", f"{self.endpoint.url}/v2/")).close()
        except NotFoundError:
            raise UnsupportedError(
                f"{self.endpoint.url} is not an OCI registry", hint="check the host and the port"
            ) from None

    def blob_size(self, name: str, digest: Digest) -> int | None:
        """Size in bytes of a blob that `name` holds, or nothing; -1 where the size is not told.

        Nothing as well where the registry does not answer such questions.
        """
        request = self._connection.read(name, "HEAD", f"blobs/{digest}")
        with self._connection.send(request, 200, 404, 405, 501) as response:
            if response.status != 200:
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
        response = self._connection.send(
            self._connection.read(name, "GET", f"blobs/{digest}", headers), 200, 206
        )
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

    def manifest_descriptor(self, name: str, target: str) -> oci.Descriptor | None:
        """What tag or digest `target` names; nothing if it names nothing.

        One HEAD request, and a GET where the registry knows no HEAD of manifests, or does not tell the
        digest or size.
        """
        request = self._connection.read(name, "HEAD", f"manifests/{target}", {"Accept": _ACCEPT})
        with self._connection.send(request, 200, 400, 404, 405, 501) as response:
            if response.status == 404:
                return None
            digest, size = response.headers.get("docker-content-digest"), response.length
            if response.status == 200 and digest and size is not None:
                media_type = _media_type(response) or media_types.OCI_MANIFEST
                return oci.Descriptor(media_type, Digest.parse(digest), size)
        try:
            return self.manifest(name, target).descriptor()
        except NotFoundError:
            return None

    def manifest(self, name: str, target: str) -> oci.Manifest | oci.Index:
        """The manifest or index that tag or digest `target` names.

        Raises:
            NotFoundError: there is none.
            DigestMismatchError: the bytes are not what `target`, or the registry itself, says.
            InvalidManifestError, InvalidJsonError, LimitExceededError: not an acceptable manifest.
        """
        request = self._connection.read(name, "GET", f"manifests/{target}", {"Accept": _ACCEPT})
        with self._connection.send(request) as response:
            raw = response.content(limits.MANIFEST_BYTES)
            said = response.headers.get("docker-content-digest")
            media_type = _media_type(response)
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
            ConflictError: an immutable tag names another manifest; or other clients overwrite the
                fallback index again and again.
        """
        self._put_manifest(name, manifest, target or str(manifest.digest))
        if target and is_tag(target):
            self._referrers.settle(name, manifest.digest)
        return manifest.digest

    def put_tags(self, name: str, manifest: oci.Manifest | oci.Index, tags: Sequence[str]) -> None:
        """Make each of `tags` name `manifest`: all at once where the registry can, else one by one.

        At once is one transaction (distribution specification after 1.1: `?tag=`, confirmed by
        `OCI-Tag`). A registry of ours that has just taken the manifest is not sent its bytes again.

        Raises:
            NotFoundError: the registry misses a blob that it names.
            ConflictError: an immutable tag names another manifest.
        """
        done: set[str] = set()
        if len(tags) > 1 or (name, manifest.digest) in self._tagged_by_digest:
            query = urlencode([("tag", tag) for tag in tags])
            body = b"" if (name, manifest.digest) in self._tagged_by_digest else manifest.raw
            confirmed = self._put_manifest(name, manifest, f"{manifest.digest}?{query}", body)
            done = {word.strip() for word in confirmed.split(",")}
        for tag in tags:
            if tag not in done:
                self._put_manifest(name, manifest, tag)
        self._referrers.settle(name, manifest.digest)

    def _put_manifest(
        self,
        name: str,
        manifest: oci.Manifest | oci.Index,
        target: str,
        body: bytes | None = None,
    ) -> str:
        """Push `manifest` under `target`, which may have a query; the tags that were confirmed."""
        request = Request(
            "PUT",
            self._connection.url(name, f"manifests/{target}"),
            {"Content-Type": manifest.media_type},
            manifest.raw if body is None else body,
            frozenset({scope_of(name, "pull,push")}),
        )
        with self._connection.send(request, *TAKEN) as response:
            if response.headers.get("memcube-tags-without-body") == "true":
                self._tagged_by_digest.add((name, manifest.digest))
            said = response.headers.get("docker-content-digest")
            served = response.headers.get("oci-subject")
            confirmed = response.headers.get("oci-tag", "")
        if said and said != str(manifest.digest) and said.startswith("sha256:"):
            raise DigestMismatchError(
                f"{self.host} stored {manifest.digest} as {said[:140]}", hint="push again"
            )
        if manifest.subject and not served:
            self._referrers.enter(name, manifest.subject.digest, manifest)
        return confirmed

    def delete_manifest(self, name: str, target: str) -> None:
        """Remove a tag, or a manifest by its digest; the latter leaves the fallback index as well."""
        found = None if is_tag(target) else self._read_if_there(name, target)
        self._connection.send(
            self._connection.write(name, "DELETE", f"manifests/{target}"), *GONE
        ).close()
        if found and found.subject:
            self._referrers.leave(name, found.subject.digest, Digest.parse(target))

    def _read_if_there(self, name: str, target: str) -> oci.Manifest | oci.Index | None:
        try:
            return self.manifest(name, target)
        except NotFoundError:
            return None

    def tags(self, name: str) -> Iterator[str]:
        """The tags of `name`, page by page, as the registry orders them."""
        url = self._connection.url(name, "tags/list")
        pages = self._pages(url, scope_of(name, "pull"), "tags", f"tag list of {name}")
        yield from (tag for tag in pages if is_tag(tag))

    def catalog(self) -> Iterator[str]:
        """The names of repositories, page by page, where the registry tells them (`/v2/_catalog`).

        Raises:
            NotFoundError, UnsupportedError, UnauthenticatedError, ForbiddenError: it does not.
        """
        url = f"{self.endpoint.url}/v2/_catalog"
        pages = self._pages(url, "registry:catalog:*", "repositories", "catalog")
        yield from (name for name in pages if is_name(name))

    def _pages(self, url: str, scope: str, key: str, what: str) -> Iterator[str]:
        """The texts that a list in pages holds under `key`."""
        size = 0
        for _ in range(PAGES):
            with self._connection.send(Request("GET", url, scopes=frozenset({scope}))) as response:
                content = response.content(limits.MANIFEST_BYTES)
                following = next_page(response)
            size += len(content)
            limits.require_at_most(what, size, LIST_BYTES)
            found = canonical_json.parse_object(content, what=what).get(key) or []
            if not isinstance(found, list):
                raise nonsense(self.host, f"a {what} that is not a list")
            yield from (one for one in found if isinstance(one, str))
            if not following:
                return
            url = self._connection.same_origin(urljoin(url, following))
        raise nonsense(self.host, f"more than {PAGES} pages of {key}")

    def referrers(
        self, name: str, subject: Digest, artifact_type: str | None = None
    ) -> list[oci.Descriptor]:
        """Manifests that refer to `subject`, through the API or the fallback tag; filtered here too."""
        return self._referrers.of(name, subject, artifact_type)


def _media_type(response: Response) -> str:
    """The content type without parameters."""
    return response.headers.get("content-type", "").partition(";")[0].strip().lower()


def _begins_at(response: Response, start: int) -> bool:
    return response.headers.get("content-range", "").startswith(f"bytes {start}-")
