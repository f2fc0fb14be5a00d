"""Publications on the Hub: everything of a release is collected, then committed at once.

Contents are uploaded first, where nobody sees them; the commit names them all or fails. Statements about a
cube that is published already become a commit of their own on `main`, behind whatever came meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from memcube_protocol import limits, media_types, oci
from memcube_protocol.cube import Cube
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    ConflictError,
    IntegrityError,
    InvalidError,
    NotFoundError,
    UnsupportedError,
)
from memcube_protocol.oci import Descriptor, Manifest
from memcube_protocol.reference import (
    HUB_HOST,
    is_immutable_tag,
    release_numbers,
    tag_of_version,
    tag_order,
)

from memcube.hub import lfs, repository
from memcube.hub.additions import Addition
from memcube.hub.committing import Committer
from memcube.hub.failures import overtaken
from memcube.hub.layout import (
    CONFIG,
    FOLDER,
    INDEX,
    MANIFEST,
    Catalogue,
    blob_path,
    is_cube,
    places_of,
)
from memcube.hub.lfs import LargeFile, LfsSender
from memcube.hub.library import HubLibrary
from memcube.hub.reading import HubReader, Refs
from memcube.hub.repository import Contents
from memcube.hub.site import written
from memcube.store import Store
from memcube.transfer.progress import Moved, Outcome, Progress

OnSent = Callable[[int], None]
"""Hears of bytes that are on their way."""

_ATTEMPTS: Final = 5
_STATEMENT_BYTES: Final = 64 * 1024
_OWN_FILES: Final = frozenset({".gitattributes", "README.md"})


@dataclass(slots=True)
class _Draft:
    """A release that is prepared: behind which head, the cube there, and what is attached to the new one."""

    base: str
    before: Cube | None
    catalogue: Catalogue
    cube: Cube
    attached: list[Manifest] = field(default_factory=list[Manifest])

    def covers(self, manifest: Manifest) -> bool:
        """Whether `manifest` is attached to this cube, or to something that is."""
        known = {self.cube.digest, *(one.digest for one in self.attached)}
        return manifest.subject is not None and manifest.subject.digest in known


class Publications:
    """What one user publishes on one Hub."""

    def __init__(
        self,
        reader: HubReader,
        library: HubLibrary,
        sender: LfsSender,
        create: Callable[[str], bool],
        committer: Committer,
    ) -> None:
        self._reader = reader
        self._create = create
        self._committer = committer
        self._library = library
        self._sender = sender
        self._drafts: dict[str, _Draft] = {}
        self._seen: dict[str, str | None] = {}
        self._contents: dict[str, Contents] = {}
        self._made: set[str] = set()
        self._making = threading.Lock()

    def saw(self, name: str, refs: Refs | None) -> None:
        """A publication in `name` that begins now knows of everything up to the head of `refs`; None: of nothing."""
        self._seen[name] = refs.head if refs else None

    def take(
        self, name: str, blobs: Sequence[Descriptor], store: Store, progress: Progress
    ) -> list[Moved]:
        """Upload `blobs` from the store, where nobody sees them before they are committed.

        Safe for several threads.

        Raises:
            NotFoundError: the store does not hold one.
            UnsupportedError, ForbiddenError, UnauthenticatedError, NetworkError: as the Hub answers.
        """
        if not blobs:
            return []
        self._make(name)
        contents, moved = self._uploaded(name), dict[Digest, int]()
        contents.store = store
        additions = [repository.addition_of(blob, store) for blob in blobs]
        in_lfs = self._wanted_in_lfs(name, additions)
        large, unclear = list[LargeFile](), list[tuple[Addition, OnSent]]()
        for blob, addition in zip(blobs, additions, strict=True):

            def sent(size_bytes: int, blob: Descriptor = blob) -> None:
                moved[blob.digest] = moved.get(blob.digest, 0) + size_bytes
                progress.advance(blob, size_bytes)

            contents.add(addition, None)
            if in_lfs.get(addition.path, True):
                unclear.append((addition, sent))
                if addition.path in in_lfs and isinstance(addition.content, Path):
                    large.append(LargeFile(blob.digest, blob.size, addition.content, sent))
        contents.held |= self._sender.send(name, large)
        self._upload(name, [one for one in unclear if one[0].digest not in contents.held])
        return [self._moved(blob, moved.get(blob.digest, 0), progress) for blob in blobs]

    def _wanted_in_lfs(self, name: str, additions: Sequence[Addition]) -> dict[str, bool]:
        """By path, whether a file is wanted in LFS, else in the commit; nothing of what only the library finds out."""
        small = [one for one in additions if one.size < lfs.LARGE_BYTES]
        wanted = {one.path: False for one in small if _is_statement(one)}
        small = [one for one in small if one.path not in wanted]
        told = self._committer.ask(name, small) or {}
        wanted |= {one.path: told[one.path].in_lfs and one.size > 0 for one in small if told}
        return wanted | {one.path: True for one in additions if one.size >= lfs.LARGE_BYTES}

    def _make(self, name: str) -> None:
        """Let the repository `name` exist."""
        with self._making:
            if name not in self._made:
                self._library.require_ready()
                if not self._create(name):
                    self._library.create(name)
                self._made.add(name)

    def _upload(self, name: str, additions: Sequence[tuple[Addition, OnSent]]) -> None:
        """Let the library send files, each with what hears of its bytes."""
        operations = []
        for addition, sent in additions:
            operations.append(self._library.operation(addition, sent))
            self._uploaded(name).add(addition, operations[-1])
        if operations:
            self._library.upload(name, operations)
            self._uploaded(name).held |= {addition.digest for addition, _ in additions}

    def prepare(self, name: str, manifest: Manifest) -> None:
        """Make `manifest` part of the next publication, or attach it to a published cube at once.

        Raises:
            NotFoundError: a blob that it names was not uploaded.
            ConflictError: a later version is released already, or the repository holds other things.
        """
        draft = self._drafts.get(name)
        if is_cube(manifest):
            self._begin(name, manifest)
        elif draft and draft.covers(manifest):
            self._uploaded(name).require(manifest.blobs)
            draft.attached.append(manifest)
        elif manifest.subject is not None:
            self._append(name, manifest)
        else:
            raise UnsupportedError(
                f"the Hub holds cubes and what is attached to them, no {manifest.effective_artifact_type}",
                hint="push it to a registry",
            )

    def publish(self, name: str, manifest: Manifest) -> str | None:
        """Commit the release of `manifest`, if one was prepared; the commit's name.

        Raises:
            ConflictError: somebody else published there meanwhile; nothing was changed.
            UnsupportedError, ForbiddenError, UnauthenticatedError, NetworkError: as the Hub answers.
        """
        draft = self._drafts.get(name)
        if draft is None or draft.cube.digest != manifest.digest:
            return None
        del self._drafts[name]
        plan = repository.release(
            draft.cube,
            draft.before,
            self._uploaded(name),
            place=written(name),
            own_card=lambda digest: self._card(name, draft.base, digest),
        )
        for attached in draft.attached:
            plan += repository.attachment(attached, self._uploaded(name))
        tag = tag_of_version(draft.cube.config.version)
        catalogue = draft.catalogue.with_release(manifest, tag).with_attached(draft.attached)
        plan += repository.contents_of({INDEX: catalogue.write()})
        deleted = repository.left_behind(draft.cube, draft.before)
        title = f"Release {draft.cube.config.version}"
        return self._commit(name, plan, deleted, draft.base, title)

    def tag(self, name: str, tag: str, commit: str, manifest: Manifest) -> None:
        """Let `tag` lead to `commit`, which holds `manifest`.

        Raises:
            ConflictError: it is a full version and leads to another cube.
        """
        if self._committer.add_tag(name, tag, commit):
            return
        try:
            self._library.add_tag(name, tag, commit)
        except ConflictError:
            present = self._reader.refs(name).tags.get(tag)
            if present == commit:
                return
            if not is_immutable_tag(tag):
                self._library.drop_tag(name, tag)
                self._library.add_tag(name, tag, commit)
            elif present is None or self._cube_at(name, present) != manifest.digest:
                raise ConflictError(
                    f"{HUB_HOST}/{name}:{tag} names another cube, and a version never changes",
                    hint="raise the version",
                ) from None

    def _begin(self, name: str, manifest: Manifest) -> None:
        refs = self._reader.refs(name)
        seen = self._seen.pop(name, refs.head)
        base = seen or refs.head
        catalogue = repository.read_catalogue(self._reader, name, base)
        if (tag := catalogue.tag_of(manifest.digest)) and tag in refs.tags:
            self._drafts.pop(name, None)
            return  # released already: there is nothing to commit
        uploaded = self._uploaded(name)
        config = uploaded.read(manifest.config.digest, limits.CONFIG_BYTES)
        cube = Cube.read(manifest, config)
        self._require_newest(name, cube, refs)
        before = self._before(name, base)
        if seen is None and (before or catalogue.entries):
            raise overtaken(f"{HUB_HOST}/{name}")
        held = set(places_of(before.manifest).items()) if before else set()
        places = places_of(manifest)
        uploaded.require(
            layer for layer in manifest.layers if (layer.digest, places[layer.digest]) not in held
        )
        self._drafts[name] = _Draft(base, before, catalogue, cube)

    def _before(self, name: str, base: str) -> Cube | None:
        """The cube in the repository so far.

        Raises:
            ConflictError: it holds something else than a cube.
        """
        try:
            raw = self._reader.read(name, base, MANIFEST, limits.MANIFEST_BYTES)
        except NotFoundError:
            others = sorted(set(self._reader.names(name, base)) - _OWN_FILES)
            if others:
                raise ConflictError(
                    f"{HUB_HOST}/{name} is a repository of something else: it holds {others[0][:100]!r}",
                    hint="choose a name that is not used yet",
                ) from None
            return None
        try:
            config = self._reader.read(name, base, CONFIG, limits.CONFIG_BYTES)
            return Cube.read(oci.parse_manifest(raw), config)
        except (InvalidError, IntegrityError, NotFoundError):
            return None  # changed by hand: the next release puts everything there anew

    def _require_newest(self, name: str, cube: Cube, refs: Refs) -> None:
        """Refuse a release that `main` would have to go back for."""
        own = tag_of_version(cube.config.version)
        released = [tag for tag in refs.tags if release_numbers(tag)]
        newest = max(released, key=tag_order, default=own)
        if tag_order(own) < tag_order(newest):
            raise ConflictError(
                f"{HUB_HOST}/{name} shows {newest}, and a repository of the Hub shows its newest release",
                hint="raise the version above it, or release this one at a registry",
            )

    def _append(self, name: str, manifest: Manifest) -> None:
        """One more commit on `main` with what is attached to a published cube."""
        uploaded = self._uploaded(name)
        uploaded.require(manifest.blobs)
        is_build = manifest.effective_artifact_type == media_types.BUILD
        title = "Attach a build" if is_build else "Attach a statement"
        for attempt in range(_ATTEMPTS):
            head = self._reader.refs(name).head
            catalogue = repository.read_catalogue(self._reader, name, head)
            if any(entry.digest == manifest.digest for entry in catalogue.entries):
                return
            plan = repository.attachment(manifest, uploaded)
            plan += repository.contents_of({INDEX: catalogue.with_attached([manifest]).write()})
            try:
                self._commit(name, plan, (), head, title)
                return
            except ConflictError:
                if attempt == _ATTEMPTS - 1:
                    raise

    def _commit(
        self,
        name: str,
        plan: Iterable[Addition],
        deleted: Sequence[str],
        parent: str,
        title: str,
    ) -> str:
        uploaded, once = self._uploaded(name), {one.path: one for one in plan}.values()
        held, additions = uploaded.held, list(once)
        made = self._committer.commit(name, additions, deleted, parent, title, held=held)
        if made is None:
            operations = [uploaded.operation(one) or self._library.operation(one) for one in once]
            self._library.upload(name, operations)
            made = self._library.commit(name, operations, deleted, parent, title)
        self._contents.pop(name, None)
        return made

    def _moved(self, blob: Descriptor, size_bytes: int, progress: Progress) -> Moved:
        outcome = Outcome.SENT if size_bytes else Outcome.PRESENT
        if size_bytes < blob.size:
            progress.advance(blob, blob.size - size_bytes)
        progress.finish(blob, outcome)
        return Moved(blob, outcome, size_bytes)

    def _uploaded(self, name: str) -> Contents:
        return self._contents.setdefault(name, Contents())

    def _card(self, name: str, base: str, digest: Digest) -> bytes:
        return self._reader.read(name, base, blob_path(digest), limits.CARD_BYTES)

    def _cube_at(self, name: str, commit: str) -> Digest | None:
        try:
            return Digest.of(self._reader.read(name, commit, MANIFEST, limits.MANIFEST_BYTES))
        except NotFoundError:
            return None


def _is_statement(addition: Addition) -> bool:
    """Whether a file of ours is short JSON: the Hub wants such in the commit, and is asked with that.

    Should it want one in LFS after all, the library sends it.
    """
    own = addition.path.startswith(f"{FOLDER}/") and addition.size <= _STATEMENT_BYTES
    return own and addition.start(1) == b"{"
