"""Builds in the local store: those that were made here, and those that were pulled."""

from __future__ import annotations

from pathlib import Path

from memcube_protocol import oci
from memcube_protocol.build import Build, require_build
from memcube_protocol.content import BlobReader, read_verified
from memcube_protocol.digest import Digest
from memcube_protocol.errors import NotFoundError
from memcube_protocol.reference import Reference
from memcube_protocol.values import frozen

from memcube.consuming.finding import stored_attestation
from memcube.consuming.holdings import files_folder
from memcube.context import Context
from memcube.store import Ref
from memcube.trust import Attestation


@frozen
class HeldBuild:
    """A build in the store with what is attested about it; `is_own` says that this user made it."""

    reference: Reference
    build: Build
    attestations: tuple[Attestation, ...]
    is_own: bool

    def folder(self, context: Context) -> Path:
        """A plain folder with the files of its memory, checked now; see `holdings.memory_folder`."""
        memory = self.build.memory
        return files_folder(context, self.build.digest, memory.id, memory.kind, self.build.files)


def keep(
    context: Context,
    place: Reference,
    build: Build,
    *,
    is_own: bool,
    attestations: tuple[Attestation, ...] = (),
) -> None:
    """Name `build`, whose layers the store holds, as one of `place`: of host and name, or of here.

    Raises:
        DiskFullError, ReadOnlyError, StorageError: it was not kept.
    """
    store = context.store
    for attestation in attestations:
        store.blobs.add(b"{}")
        store.blobs.add(attestation.bundle)
        store.blobs.add(attestation.referrer.raw)
    store.blobs.add(build.config)
    store.blobs.add(build.manifest.raw)
    store.put_build(
        Reference(place.host, place.name).with_digest(build.digest),
        build.subject.digest,
        kept=is_own,
        related=tuple(one.referrer.digest for one in attestations),
    )


def held_builds(context: Context, cube: Digest) -> tuple[HeldBuild, ...]:
    """The builds of `cube` that the store holds whole, those made here first.

    Raises:
        IntegrityError, InvalidError: one is damaged.
    """
    found = [_held(context.store, ref) for ref in context.store.builds(cube)]
    whole = [one for one in found if one and _is_whole(context, one.build)]
    return tuple(sorted(whole, key=lambda one: (not one.is_own, str(one.build.digest))))


def forget_build(context: Context, cube: Digest, digest: Digest) -> None:
    """Forget the build `digest` of `cube`, here only: what a registry holds of it stays there.

    Raises:
        NotFoundError: the store does not hold it.
    """
    refs = [one for one in context.store.builds(cube) if one.related[0] == digest]
    if not any(context.store.remove_build(one.reference) for one in refs):
        raise NotFoundError(
            f"the local store holds no build {digest} of this cube",
            hint="memcube builds REF lists what it holds",
        )


def read_build(blobs: BlobReader, digest: Digest) -> Build:
    """The build whose manifest is `digest`.

    Raises:
        NotFoundError: the manifest or its config is not there.
        IntegrityError, InvalidError: it is damaged, or no build.
    """
    manifest = oci.parse_manifest(read_verified(blobs, digest))
    return Build.read(manifest, read_verified(blobs, require_build(manifest).digest))


def _held(store: BlobReader, ref: Ref) -> HeldBuild | None:
    digest, *attested = ref.related
    try:
        build = read_build(store, digest)
        attestations = tuple(stored_attestation(store, one) for one in attested)
    except NotFoundError:
        return None
    return HeldBuild(ref.reference, build, attestations, ref.kept)


def _is_whole(context: Context, build: Build) -> bool:
    return all(context.store.has(file.digest, file.size) for file in build.files)
