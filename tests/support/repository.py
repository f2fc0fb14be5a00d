"""One repository of an OCI registry, as the distribution specification lets a client use it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from memcube_protocol.digest import Digest

from support.wire import Reply, Wire

OCTETS = "application/octet-stream"
IMAGE = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
ACCEPT = {"Accept": f"{INDEX}, {IMAGE}"}


def with_query(target: str, **parameters: str) -> str:
    """`target`, which may have a query already, with further parameters."""
    query = "&".join(f"{name}={quote(value, safe='')}" for name, value in parameters.items())
    return f"{target}{'&' if '?' in target else '?'}{query}"


@dataclass(frozen=True)
class Repository:
    """`name` on a server; every method is one request unless it says otherwise."""

    wire: Wire
    name: str

    def seen_by(self, wire: Wire) -> Repository:
        return replace(self, wire=wire)

    def path(self, rest: str) -> str:
        return f"/v2/{self.name}/{rest}"

    def head_blob(self, digest: Digest | str) -> Reply:
        return self.wire.head(self.path(f"blobs/{digest}"))

    def get_blob(self, digest: Digest | str, range_header: str | None = None) -> Reply:
        headers = {"Range": range_header} if range_header else {}
        return self.wire.get(self.path(f"blobs/{digest}"), headers=headers)

    def delete_blob(self, digest: Digest | str) -> Reply:
        return self.wire.delete(self.path(f"blobs/{digest}"))

    def start_upload(self, **query: str) -> Reply:
        target = self.path("blobs/uploads/")
        return self.wire.post(with_query(target, **query) if query else target)

    def upload_location(self) -> str:
        """Where a new upload session lies."""
        reply = self.start_upload()
        assert reply.status == 202, reply
        return location_of(reply)

    def post_blob(self, content: bytes, digest: Digest | str) -> Reply:
        """The whole upload in one request."""
        target = with_query(self.path("blobs/uploads/"), digest=str(digest))
        return self.wire.post(target, body=content, headers={"Content-Type": OCTETS})

    def put_blob(self, content: bytes, digest: Digest | str) -> Reply:
        """POST, then PUT of the content; the answer to PUT."""
        return self.finish_upload(self.upload_location(), digest, content)

    def patch(
        self, location: str, content: bytes | Iterable[bytes], *, start: int | None = None
    ) -> Reply:
        """A chunk; with `start` it says its range, else it is a stream."""
        headers = {"Content-Type": OCTETS}
        if start is not None:
            assert isinstance(content, bytes)
            headers["Content-Range"] = f"{start}-{start + len(content) - 1}"
        return self.wire.patch(location, body=content, headers=headers)

    def finish_upload(
        self, location: str, digest: Digest | str, content: bytes = b"", *, start: int | None = None
    ) -> Reply:
        headers = {"Content-Type": OCTETS}
        if start is not None:
            headers["Content-Range"] = f"{start}-{start + len(content) - 1}"
        return self.wire.put(
            with_query(location, digest=str(digest)), body=content, headers=headers
        )

    def mount(self, digest: Digest | str, source: str | None) -> Reply:
        query = {"mount": str(digest)} | ({"from": source} if source is not None else {})
        return self.start_upload(**query)

    def add_blob(self, content: bytes, algorithm: str = "sha256") -> Digest:
        """Store `content` in however many requests it takes; its digest."""
        digest = Digest.of(content, algorithm)
        reply = self.put_blob(content, digest)
        assert reply.status == 201, reply
        return digest

    def put_manifest(
        self,
        reference: Digest | str,
        content: bytes,
        media_type: str = IMAGE,
        tags: Sequence[str] = (),
    ) -> Reply:
        target = self.path(f"manifests/{reference}")
        for tag in tags:
            target = with_query(target, tag=tag)
        return self.wire.put(target, body=content, headers={"Content-Type": media_type})

    def get_manifest(self, reference: Digest | str) -> Reply:
        return self.wire.get(self.path(f"manifests/{reference}"), headers=ACCEPT)

    def head_manifest(self, reference: Digest | str) -> Reply:
        return self.wire.head(self.path(f"manifests/{reference}"), headers=ACCEPT)

    def delete_manifest(self, reference: Digest | str) -> Reply:
        return self.wire.delete(self.path(f"manifests/{reference}"))

    def list_tags(self, **query: str) -> Reply:
        target = self.path("tags/list")
        return self.wire.get(with_query(target, **query) if query else target)

    def tags(self, **query: str) -> list[str]:
        """The tags of one page."""
        reply = self.list_tags(**query)
        assert reply.status == 200, reply
        return list(reply.json()["tags"] or [])

    def list_referrers(self, subject: Digest | str, **query: str) -> Reply:
        target = self.path(f"referrers/{subject}")
        return self.wire.get(with_query(target, **query) if query else target)

    def referrers(self, subject: Digest | str, **query: str) -> list[dict[str, Any]]:
        """Descriptors of the manifests that refer to `subject`."""
        reply = self.list_referrers(subject, **query)
        assert reply.status == 200, reply
        return list(reply.json()["manifests"])


def location_of(reply: Reply) -> str:
    """The `Location` that `reply` must carry."""
    location = reply.header("Location")
    assert location, reply
    return location
