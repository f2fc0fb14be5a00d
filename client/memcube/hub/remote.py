"""The Hub in the place of a registry: the same questions, answered by commits, tags and files.

Reads are pinned: a tag is resolved to the full name of a commit once, and everything of that cube comes
from this commit. What was attached later lies on `main` and is read from there. Writes are collected, and
become one commit when the first tag is set; its parent is the head that was seen when the publication
began, so that of two machines that publish at the same time one is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Final

from memcube_protocol import limits, oci
from memcube_protocol.content import Expected, stream_verified
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    DigestMismatchError,
    NotFoundError,
    UnsupportedError,
)
from memcube_protocol.oci import Descriptor, Manifest
from memcube_protocol.reference import HUB_HOST, is_immutable_tag, is_tag

from memcube.http import HttpClient, Response
from memcube.hub.committing import Committer
from memcube.hub.layout import (
    MANIFEST,
    Catalogue,
    blob_path,
    is_commit,
    places_of,
)
from memcube.hub.lfs import LARGE_BYTES, LfsSender
from memcube.hub.library import HubLibrary
from memcube.hub.places import Places
from memcube.hub.posting import is_created
from memcube.hub.reading import MAIN, HubReader, Refs
from memcube.hub.repository import read_catalogue
from memcube.hub.site import Site
from memcube.hub.tags import LATEST, following, is_derived
from memcube.hub.writing import Publications
from memcube.store import Store
from memcube.transfer.progress import Moved, Progress

_TAGS: Final = "see the repository's page for its tags"


class HubRemote:
    """The Hub at `site`, for one user; a `remote.Remote`. Safe for several threads."""

    publishes_at_once = True
    alone_from_bytes = LARGE_BYTES

    def __init__(self, site: Site, http: HttpClient, *, parallel: int = 4) -> None:
        self.host = HUB_HOST
        self.http = http
        self._reader = HubReader(site, http)
        self._library = HubLibrary(site, threads=parallel)
        self._sender = sender = LfsSender(site, http, threads=parallel)
        create = partial(is_created, site, http)
        committer = Committer(site, http)
        self._publications = Publications(self._reader, self._library, sender, create, committer)
        self._places = Places()

    def blob_size(self, name: str, digest: Digest) -> int | None:
        """See `remote.Content.blob_size`."""
        commit, path = self._place(name, digest)
        return self._reader.size(name, commit, path)

    def open_blob(
        self, name: str, digest: Digest, *, start: int = 0, stop: int | None = None
    ) -> Response:
        """See `remote.Content.open_blob`."""
        commit, path = self._place(name, digest)
        return self._reader.open(name, commit, path, start=start, stop=stop)

    def read_blob(self, name: str, blob: Descriptor, limit: int = limits.MANIFEST_BYTES) -> bytes:
        """See `remote.Content.read_blob`."""
        limits.require_at_most(f"blob {blob.digest}", blob.size, limit)
        with self.open_blob(name, blob.digest) as response:
            return b"".join(stream_verified(response.pieces(), Expected(blob.digest, blob.size)))

    def manifest_descriptor(self, name: str, target: str) -> Descriptor | None:
        """See `remote.Names.manifest_descriptor`."""
        try:
            return self.manifest(name, target).descriptor()
        except NotFoundError:
            return None

    def manifest(self, name: str, target: str) -> Manifest:
        """The manifest that a tag, branch, commit or digest names.

        Raises:
            NotFoundError: there is none.
            DigestMismatchError: what lies there is not what its name says.
            InvalidManifestError, InvalidJsonError, LimitExceededError: not an acceptable manifest.
        """
        if is_tag(target):
            return self._cube_at(name, self._commit(name, target))
        return self._by_digest(name, Digest.parse(target))

    def tags(self, name: str) -> Iterator[str]:
        """The tags of `name` that a cube may have; a publication that begins now builds on this moment."""
        try:
            refs = self._reader.refs(name)
        except NotFoundError:
            self._publications.saw(name, None)
            raise
        self._publications.saw(name, refs)
        yield from sorted(tag for tag in refs.tags if is_tag(tag))

    def cubes(self, owner: str) -> Iterator[str]:
        """The repositories of `owner` that hold cubes, as their cards say."""
        return self._reader.cubes(owner)

    def referrers(
        self, name: str, subject: Digest, artifact_type: str | None = None
    ) -> list[Descriptor]:
        """What is attached to `subject`: in its own commit, and on `main` since."""
        found: dict[Digest, Descriptor] = {}
        for commit in self._commits_of(name, subject):
            for entry in self._catalogue(name, commit).attached_to(subject):
                if found.setdefault(entry.digest, entry) is entry:
                    self._places.remember(name, commit, {entry.digest: blob_path(entry.digest)})
        return [one for one in found.values() if artifact_type in (None, one.artifact_type)]

    def put_manifest(
        self, name: str, manifest: oci.Manifest | oci.Index, target: str | None = None
    ) -> Digest:
        """See `remote.Publisher.put_manifest`: by digest it is prepared, a tag publishes it."""
        if not isinstance(manifest, Manifest):
            raise UnsupportedError(
                "an index has no place in a repository of the Hub", hint="push it to a registry"
            )
        if target is None or not is_tag(target):
            self._publications.prepare(name, manifest)
        else:
            self.put_tags(name, manifest, (target,))
        return manifest.digest

    def put_tags(self, name: str, manifest: oci.Manifest | oci.Index, tags: Sequence[str]) -> None:
        """Commit what was prepared, then set the tags, a full version first.

        `latest` and partial versions follow from the others and from `main`: they are not kept.
        """
        assert isinstance(manifest, Manifest)
        commit = self._publications.publish(name, manifest) or self._released(name, manifest.digest)
        self._places.remember(name, commit, places_of(manifest))
        for tag in tags:
            if not is_derived(tag):
                self._publications.tag(name, tag, commit, manifest)

    def expect(self, name: str, blob: Descriptor) -> None:
        """See `transfer.TakesAlone.expect`."""
        self._sender.expect(name, blob.digest, blob.size)

    def take(
        self, name: str, blobs: Iterable[Descriptor], store: Store, progress: Progress
    ) -> list[Moved]:
        """Send `blobs` from the store; see `transfer.TakesAlone`."""
        return self._publications.take(name, list(blobs), store, progress)

    def is_public(self, name: str) -> bool:
        """Whether everybody may read the repository `name`; one that does not exist yet is nobody's to read.

        Raises:
            MemcubeError: the Hub does not say it.
        """
        try:
            return not self._reader.is_private(name)
        except NotFoundError:
            return False

    def set_private(self, name: str, private: bool) -> None:
        """Let everybody read the repository `name`, or its owners only."""
        self._library.set_private(name, private)

    def _commit(self, name: str, target: str) -> str:
        """The commit that a tag, a branch, a partial version or 40 digits name.

        Raises:
            NotFoundError: nothing is called so.
        """
        if is_commit(target):
            return target
        refs = self._reader.refs(name)
        if tag := following(target, refs.tags):
            return refs.tags[tag]
        if target == LATEST:
            return refs.head
        found = refs.tags.get(target) or refs.branches.get(target)
        return found or self._untagged(name, target, refs)

    def _untagged(self, name: str, target: str, refs: Refs) -> str:
        """The head of `main`, where a publication of this version broke off before its tag."""
        if is_immutable_tag(target) and MAIN in refs.branches:
            try:
                manifest = self._cube_at(name, refs.head)
                if self._catalogue(name, refs.head).tag_of(manifest.digest) == target:
                    return refs.head
            except NotFoundError:
                pass
        raise NotFoundError(f"{self.host}/{name} has no version or revision {target}", hint=_TAGS)

    def _cube_at(self, name: str, commit: str) -> Manifest:
        """The cube of a commit; from now on its blobs are read from there."""
        raw = self._reader.read(name, commit, MANIFEST, limits.MANIFEST_BYTES)
        manifest = oci.parse_manifest(raw)
        self._places.remember(name, commit, {**places_of(manifest), manifest.digest: MANIFEST})
        return manifest

    def _by_digest(self, name: str, digest: Digest) -> Manifest:
        known = self._places.find(name, digest)
        commit, path = known or (self._released(name, digest), MANIFEST)
        raw = self._reader.read(name, commit, path, limits.MANIFEST_BYTES)
        if (actual := Digest.of(raw, digest.algorithm)) != digest:
            raise DigestMismatchError(
                f"{self.host}/{name} has {actual} where {digest} should be",
                hint="the repository is damaged or was changed by hand",
            )
        manifest = oci.parse_manifest(raw)
        self._places.remember(name, commit, {**places_of(manifest), digest: path})
        return manifest

    def _released(self, name: str, digest: Digest) -> str:
        """The commit of a released cube: by its version's tag, or the head.

        Raises:
            NotFoundError: it was not released here.
        """
        refs = self._reader.refs(name)
        tag = self._catalogue(name, refs.head).tag_of(digest)
        commit = refs.tags.get(tag, refs.head) if tag else refs.head
        if self._cube_at(name, commit).digest != digest:
            raise NotFoundError(f"{self.host}/{name} has no {digest}", hint=_TAGS)
        return commit

    def _commits_of(self, name: str, subject: Digest) -> list[str]:
        """Where statements about `subject` may lie: on `main` now, and in its own commit."""
        try:
            commits = [self._reader.refs(name).head]
        except NotFoundError:
            return []
        known = self._places.find(name, subject)
        return commits if known is None or known[0] in commits else [*commits, known[0]]

    def _catalogue(self, name: str, commit: str) -> Catalogue:
        return read_catalogue(self._reader, name, commit)

    def _place(self, name: str, digest: Digest) -> tuple[str, str]:
        """Commit and path of a blob."""
        return self._places.find(name, digest) or (self._reader.refs(name).head, blob_path(digest))
