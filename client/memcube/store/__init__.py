"""The local store: verified content shared between cubes, and the refs that name them.

    <root>/blobs/ partial/ marks/    see `blobs`
    <root>/refs/                     see `refs`
    <root>/builds/                   refs of builds, which stay as long as their cube is named
    <root>/uploads/                  upload sessions that a later process can resume
    <root>/lock                      shared by those who use the store, exclusive for pruning

Safe for several processes at once. Nothing here asks the network.

    store = Store(settings.store_path)
    with store.session():                    # nobody prunes meanwhile
        digest, size = store.blobs.add(b"...")
        store.put_ref(reference, digest)
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Set
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from memcube_protocol import limits
from memcube_protocol.digest import Digest
from memcube_protocol.errors import IntegrityError, NotFoundError
from memcube_protocol.reference import Reference

from memcube.store.blobs import Blobs
from memcube.store.files import disk_bytes
from memcube.store.ingest import Ingest
from memcube.store.locks import hold_lock
from memcube.store.pruning import Pruned, needed_by, stale_refs
from memcube.store.refs import Ref, Refs
from memcube.store.uploads import Uploads

__all__ = ["Blobs", "Ingest", "Pruned", "Ref", "Store"]

_SESSION_WAIT_S: Final = 600.0
_PRUNE_WAIT_S: Final = 10.0
_YOUNG: Final = timedelta(hours=1)
_LEFTOVER: Final = timedelta(days=7)


class Store:
    """The local store below `root`. `strict` hashes every blob at every use.

    It is a `content.BlobReader`; `blobs` writes. Folders are made when something is written.
    """

    def __init__(self, root: Path, *, strict: bool = False) -> None:
        self.root = root
        self.blobs = Blobs(root, strict=strict)
        self.uploads = Uploads(root / "uploads")
        self._refs = Refs(root / "refs")
        self._builds = Refs(root / "builds")

    @contextmanager
    def session(self) -> Iterator[None]:
        """Keeps other processes from pruning: hold it from the first blob to the ref that needs it.

        Raises:
            ConflictError: another process has been pruning for ten minutes.
        """
        with hold_lock(self.root / "lock", exclusive=False, wait_s=_SESSION_WAIT_S):
            yield

    def has(self, digest: Digest, size: int | None = None) -> bool:
        """See `Blobs.has`."""
        return self.blobs.has(digest, size)

    def path(self, digest: Digest, size: int | None = None, *, strict: bool = False) -> Path:
        """See `Blobs.path`."""
        return self.blobs.path(digest, size, strict=strict)

    def read(self, digest: Digest, *, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """See `content.BlobReader.read`."""
        return self.blobs.read(digest, start=start, stop=stop)

    def put_ref(
        self,
        reference: Reference,
        digest: Digest,
        *,
        kept: bool = False,
        related: tuple[Digest, ...] = (),
    ) -> Ref:
        """Make `reference` name the manifest `digest`; `kept` and `related` as in `Ref`.

        Raises:
            DiskFullError, ReadOnlyError, StorageError: it was not kept.
        """
        ref = _ref_now(reference, digest, kept, related)
        self._refs.put(ref)
        return ref

    def put_refs(
        self, references: Iterable[Reference], digest: Digest, related: tuple[Digest, ...]
    ) -> None:
        """`put_ref` for each of `references`, in less time.

        Raises:
            DiskFullError, ReadOnlyError, StorageError: not all were kept.
        """
        self._refs.put(*(_ref_now(one, digest, False, related) for one in references))

    def relate(self, location: str, cube: Digest, manifest: Digest) -> None:
        """Let every ref that names `cube` at `location` keep `manifest`, which says something about it, too.

        Raises:
            DiskFullError, ReadOnlyError, StorageError: not every ref does.
        """
        self._refs.put(
            *(
                _ref_now(ref.reference, cube, ref.kept, (*ref.related, manifest))
                for ref in self._refs
                if (ref.reference.location, ref.digest) == (location, cube)
                and manifest not in ref.related
            )
        )

    def ref(self, reference: Reference) -> Ref | None:
        """The ref of `reference`, if the store holds it."""
        return self._refs.get(reference)

    def refs(self) -> list[Ref]:
        """Every ref, sorted by reference."""
        return list(self._refs)

    def touch_ref(self, ref: Ref) -> Ref:
        """Note that `ref` was used now."""
        used = replace(ref, used_at=datetime.now(UTC))
        self._refs.put(used)
        return used

    def remove_ref(self, reference: Reference) -> bool:
        """Forget `reference`; its blobs go with the next pruning. Says whether it was there."""
        return self._refs.remove(reference)

    def release(self, ref: Ref) -> None:
        """Leave what only `ref`, a removed one, needed to the next pruning, however young it is.

        Raises:
            ReadOnlyError, StorageError: the store cannot be written.
        """
        gone = [*ref.digests, *(one for build in self.builds(ref.digest) for one in build.related)]
        self._forget_builds()
        needed = needed_by(self._roots(), self._manifest)
        for digest in needed_by(gone, self._manifest) - needed:
            self.blobs.make_old(digest)

    def put_build(
        self,
        reference: Reference,
        cube: Digest,
        *,
        kept: bool = False,
        related: tuple[Digest, ...] = (),
    ) -> Ref:
        """Keep the build that `reference` names by its digest, as long as a ref names its `cube`.

        `kept` says that this user made it; `related` are manifests that attest to it.

        Raises:
            DiskFullError, ReadOnlyError, StorageError: it was not kept.
        """
        assert reference.digest
        ref = Ref(reference, cube, datetime.now(UTC), kept, (reference.digest, *related))
        self._builds.put(ref)
        return ref

    def remove_build(self, reference: Reference) -> bool:
        """Forget a build; its blobs go with the next pruning. Says whether it was there."""
        return self._builds.remove(reference)

    def builds(self, cube: Digest) -> list[Ref]:
        """The refs of builds of `cube`: `digest` is the cube's, `related` the build's and what attests to it."""
        return [ref for ref in self._builds if ref.digest == cube]

    def locations(self, host: str) -> dict[Digest, str]:
        """Repositories of `host` that are known to hold a blob, from the refs: for mounting."""
        known: dict[Digest, str] = {}
        for ref in self._refs:
            if ref.reference.host == host:
                for digest in needed_by((ref.digest, *ref.related), self._manifest):
                    known.setdefault(digest, ref.reference.name)
        return known

    def disk_bytes(self) -> int:
        """What all blobs take on the disk."""
        return sum(disk_bytes(looks) for _, looks in self.blobs)

    def damaged(self) -> list[Digest]:
        """Blobs whose bytes are not what their digests say; every one is hashed anew.

        Raises:
            StorageError: a file cannot be read.
        """
        found = []
        with self.session():
            for digest, _ in self.blobs:
                try:
                    self.blobs.path(digest, strict=True)
                except IntegrityError:
                    found.append(digest)
                except NotFoundError:
                    continue
        return found

    def prune(
        self,
        *,
        older_than: timedelta | None = None,
        max_bytes: int | None = None,
        young: timedelta = _YOUNG,
    ) -> Pruned:
        """Remove old refs, what only they needed, and other blobs without a ref older than `young`.

        Old are refs unused for `older_than`, then the least recently used ones until the rest fits
        into `max_bytes` of the disk. Kept refs, and what they need, stay.

        Raises:
            ConflictError: another process is using the store.
            ReadOnlyError, StorageError: something could not be removed.
        """
        with hold_lock(self.root / "lock", exclusive=True, wait_s=_PRUNE_WAIT_S):
            now = datetime.now(UTC)
            looks = dict(self.blobs)
            stale = stale_refs(
                self._with_builds(),
                {digest: disk_bytes(look) for digest, look in looks.items()},
                self._manifest,
                used_before=now - older_than if older_than is not None else None,
                max_bytes=max_bytes,
            )
            gone = needed_by((one for ref in stale for one in ref.digests), self._manifest)
            for ref in stale:
                self._refs.remove(ref.reference)
            self._forget_builds()
            freed, removed = self._remove_unneeded(looks, (now - young).timestamp(), gone)
            freed += self._remove_leftovers((now - _LEFTOVER).timestamp())
        return Pruned(tuple(stale), tuple(removed), freed)

    def _remove_unneeded(
        self, looks: dict[Digest, os.stat_result], before_s: float, gone: Set[Digest]
    ) -> tuple[int, list[Digest]]:
        needed = needed_by(self._roots(), self._manifest)
        removed = [
            digest
            for digest, look in looks.items()
            if digest not in needed and (digest in gone or look.st_mtime < before_s)
        ]
        for digest in removed:
            self.blobs.remove(digest)
        return sum(disk_bytes(looks[digest]) for digest in removed), removed

    def _roots(self) -> list[Digest]:
        return [digest for ref in self._with_builds() for digest in ref.digests]

    def _with_builds(self) -> list[Ref]:
        """Every ref, with the builds of its cube among what is kept together with it."""
        made: dict[Digest, tuple[Digest, ...]] = {}
        for build in self._builds:
            made[build.digest] = made.get(build.digest, ()) + build.related
        return [replace(ref, related=ref.related + made.get(ref.digest, ())) for ref in self._refs]

    def _forget_builds(self) -> None:
        """Forget builds of cubes that no ref names any more."""
        named = {ref.digest for ref in self._refs}
        for build in list(self._builds):
            if build.digest not in named:
                self._builds.remove(build.reference)

    def _remove_leftovers(self, before_s: float) -> int:
        """Downloads and upload sessions that nobody went on with for a week."""
        freed = 0
        for folder in (self.blobs.partial, self.uploads.folder):
            for path in folder.iterdir() if folder.is_dir() else ():
                looks = path.lstat()
                if looks.st_mtime < before_s:
                    path.unlink()
                    freed += disk_bytes(looks)
        return freed

    def _manifest(self, digest: Digest) -> bytes | None:
        """Bytes of a blob that may be a manifest: one that is larger cannot be."""
        try:
            if self.blobs.path(digest).stat().st_size > limits.MANIFEST_BYTES:
                return None
            return b"".join(self.blobs.read(digest))
        except (NotFoundError, IntegrityError):
            return None


def _ref_now(reference: Reference, digest: Digest, kept: bool, related: tuple[Digest, ...]) -> Ref:
    """A ref that is made now. Whoever names a cube of a registry has just asked it, or told it of the cube."""
    now = datetime.now(UTC)
    return Ref(reference, digest, now, kept, related, now if reference.host else None)
