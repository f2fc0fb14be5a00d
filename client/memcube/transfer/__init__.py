"""Blobs and manifests between the local store and a registry: parallel, resumed, verified.

    settings = Settings.load()
    store = Store(settings.store_path)
    http = HttpClient(settings)
    registry = Registry("127.0.0.1:7070", http, settings)

    with store.session():                                     # nobody prunes meanwhile
        manifest = registry.manifest("ann/notes", "1.0.0")    # pull
        store.blobs.add(manifest.raw)
        report = pull_blobs(registry, "ann/notes", manifest.blobs, store)
        store.put_ref(Reference(registry.host, "ann/notes", "1.0.0"), manifest.digest)

    with store.session():                                     # push
        if not is_published(registry, "ann/notes", manifest, "1.0.0"):
            push_blobs(registry, "ann/notes", manifest.blobs, store)
            push_manifest_if_changed(registry, "ann/notes", manifest)          # by digest
            push_manifest_if_changed(registry, "ann/notes", manifest, "1.0.0") # tag last

Memory stays flat: a thread holds one piece of 512 KiB. A killed transfer goes on where it stopped.
"""

from __future__ import annotations

import shutil
from collections.abc import Container, Iterable, Sequence

from memcube_protocol import limits, oci
from memcube_protocol.content import Blocks
from memcube_protocol.digest import Digest
from memcube_protocol.errors import DiskFullError
from memcube_protocol.oci import Descriptor

from memcube.remote import Registry
from memcube.remote.interface import Remote
from memcube.store import Store
from memcube.transfer.download import Download
from memcube.transfer.early import EarlySender
from memcube.transfer.progress import Moved, Outcome, Progress, Report, Silent, distinct
from memcube.transfer.relay import Repository, relay_blobs
from memcube.transfer.together import TakesTogether
from memcube.transfer.upload import Sender
from memcube.transfer.workers import run

__all__ = [
    "EarlySender",
    "Moved",
    "Outcome",
    "Progress",
    "Report",
    "Repository",
    "Silent",
    "TakesTogether",
    "is_published",
    "pull_blobs",
    "push_blobs",
    "push_manifest_if_changed",
    "read_range",
    "relay_blobs",
]


def pull_blobs(
    registry: Remote,
    name: str,
    blobs: Iterable[Descriptor],
    store: Store,
    *,
    progress: Progress | None = None,
    parallel: int = 4,
) -> Report:
    """Make the store hold `blobs` of repository `name`; those that it holds are not fetched.

    Raises:
        DiskFullError: they will not fit, or did not; what has arrived is kept.
        SizeMismatchError, DigestMismatchError: the registry sent something else; nothing is kept.
        NotFoundError, NetworkError, UnauthenticatedError, PaymentRequiredError …: as it answers.
    """
    watched, wanted = progress or Silent(), distinct(blobs)
    watched.expect(wanted)
    with store.session():
        _require_space(store, wanted)
        return Report(tuple(run(Download(registry, name, store, watched), wanted, parallel)))


def push_blobs(
    registry: Remote,
    name: str,
    blobs: Iterable[Descriptor],
    store: Store,
    *,
    held: Container[Digest] = (),
    progress: Progress | None = None,
    parallel: int = 4,
) -> Report:
    """Make repository `name` hold `blobs`: found there, mounted from another repository, or sent.

    Those in `held`, which it is known to hold, are passed over.

    Raises:
        NotFoundError: the store does not hold one that the registry lacks.
        SizeMismatchError, DigestMismatchError: the store's copy, or what arrived, is damaged.
        NetworkError, UnauthenticatedError, ForbiddenError, QuotaExceededError …: as it answers.
    """
    watched = progress or Silent()
    wanted = [blob for blob in distinct(blobs) if blob.digest not in held]
    watched.expect(wanted)
    with store.session():
        if isinstance(registry, Registry):
            sender = Sender.of(registry, name, store, watched, parallel)
            return Report(tuple(run(sender, wanted, parallel)))
        assert isinstance(registry, TakesTogether)
        return Report(tuple(registry.take(name, wanted, store, watched)))


def is_published(
    registry: Remote, name: str, manifest: oci.Manifest | oci.Index, target: str
) -> bool:
    """Whether tag or digest `target` names exactly `manifest`; one request.

    A registry shows a manifest only when it holds every blob of it, so nothing else need be asked.
    """
    found = registry.manifest_descriptor(name, target)
    return found is not None and found.digest == manifest.digest


def push_manifest_if_changed(
    registry: Remote,
    name: str,
    manifest: oci.Manifest | oci.Index,
    target: str | None = None,
) -> bool:
    """Make `target` (default: its digest) name `manifest`; returns whether anything had to be sent.

    Raises:
        ConflictError: an immutable tag names another manifest.
        NotFoundError: the registry misses a blob of it.
    """
    if is_published(registry, name, manifest, target or str(manifest.digest)):
        return False
    registry.put_manifest(name, manifest, target)
    return True


def read_range(
    registry: Remote, name: str, blob: Descriptor, blocks: Blocks, start: int, stop: int
) -> bytes:
    """Bytes `start` to `stop` of `blob`, verified by the block hashes of a signed manifest.

    Raises:
        SizeMismatchError, DigestMismatchError: the registry sent something else.
        LimitExceededError: the range is longer than a blob read into memory may be.
    """
    first, end = blocks.covering(start, stop)
    limits.require_at_most("range", end - first, limits.SAFETENSORS_HEADER_BYTES)
    with registry.open_blob(name, blob.digest, start=first, stop=end) as response:
        whole = response.status == 200
        if whole:
            limits.require_at_most(
                "blob without ranges", blob.size, limits.SAFETENSORS_HEADER_BYTES
            )
        content = response.content(blob.size if whole else end - first)
    content = content[first:end] if whole else content
    blocks.verify(content, first)
    return content[start - first : stop - first]


def _require_space(store: Store, blobs: Sequence[Descriptor]) -> None:
    """Refuse at once what cannot fit: better than after an hour."""
    missing = sum(blob.size - store.blobs.held_bytes(blob.digest) for blob in blobs)
    if missing <= 0:
        return
    free = shutil.disk_usage(next(p for p in (store.root, *store.root.parents) if p.exists())).free
    if missing > free:
        raise DiskFullError(
            f"{missing} bytes are to be fetched, {free} are free where {store.root} lies",
            hint="free some space (`memcube prune`), or set MEMCUBE_HOME to a larger disk",
        )
