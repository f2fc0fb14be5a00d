"""What the client asks of any place where cubes lie: a registry, the Hub, or a folder (`oci_layout`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Protocol, Self

from memcube_protocol import limits, oci
from memcube_protocol.digest import Digest

from memcube.http import HttpClient


class Opened(Protocol):
    """Bytes still to be read; a context manager that closes what they come from."""

    status: int

    @property
    def length(self) -> int | None:
        """How many come, where that is known."""
        ...

    def pieces(self) -> Iterator[bytes]:
        """The bytes as they come."""
        ...

    def content(self, limit: int) -> bytes:
        """All of them.

        Raises:
            LimitExceededError: more than `limit` bytes.
        """
        ...

    def close(self) -> None:
        """Read no further."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class Content(Protocol):
    """Blobs by digest. Streams are unverified: `transfer` checks them."""

    host: str
    http: HttpClient

    def blob_size(self, name: str, digest: Digest) -> int | None:
        """Size in bytes of a blob that `name` holds, or nothing; -1 where the size is not told."""
        ...

    def open_blob(
        self, name: str, digest: Digest, *, start: int = 0, stop: int | None = None
    ) -> Opened:
        """Bytes `start` to `stop` of a blob; status 206, or 200 where everything comes."""
        ...

    def read_blob(
        self, name: str, blob: oci.Descriptor, limit: int = limits.MANIFEST_BYTES
    ) -> bytes:
        """Content of a small blob, verified."""
        ...


class Names(Protocol):
    """Manifests by tag or digest, and what refers to them. Their bytes are verified."""

    def manifest_descriptor(self, name: str, target: str) -> oci.Descriptor | None:
        """What tag or digest `target` names; nothing if it names nothing."""
        ...

    def manifest(self, name: str, target: str) -> oci.Manifest | oci.Index:
        """The manifest or index that tag or digest `target` names."""
        ...

    def tags(self, name: str) -> Iterable[str]:
        """The tags of `name`."""
        ...

    def referrers(
        self, name: str, subject: Digest, artifact_type: str | None = None
    ) -> list[oci.Descriptor]:
        """Manifests that refer to `subject`."""
        ...


class Publisher(Protocol):
    """Takes manifests whose blobs are there, and lets tags lead to them.

    Where it `publishes_at_once`, nothing of a release is to be seen before its first tag is set.
    """

    publishes_at_once: bool

    def put_manifest(
        self, name: str, manifest: oci.Manifest | oci.Index, target: str | None = None
    ) -> Digest:
        """Publish `manifest` under tag or digest `target` (default: its digest).

        Raises:
            NotFoundError, MissingContentError: a blob that it names is missing.
            ConflictError: an immutable tag names another manifest.
        """
        ...

    def put_tags(self, name: str, manifest: oci.Manifest | oci.Index, tags: Sequence[str]) -> None:
        """Make each of `tags` name `manifest`."""
        ...


class Remote(Content, Names, Publisher, Protocol):
    """Any place that cubes are pulled from and pushed to."""
