"""What a publication sends: the blobs of a manifest, asked for as little as possible, then the manifest."""

from __future__ import annotations

from memcube_protocol import oci
from memcube_protocol.digest import Digest
from memcube_protocol.errors import MissingContentError, NotFoundError

from memcube.context import Context
from memcube.publishing.tags import LATEST
from memcube.remote.interface import Remote
from memcube.transfer import EarlySender, push_blobs
from memcube.trust import SignedCube


def push_manifest(
    context: Context,
    registry: Remote,
    name: str,
    manifest: oci.Manifest,
    early: EarlySender | None,
) -> int:
    """Push blobs and manifest, asking for no blob that is known to be there; bytes sent."""
    if early:
        early.wait()
    held = _blobs_of_latest(registry, name) | (early.sent if early else set())
    sent = _push_blobs(context, registry, name, manifest, held)
    try:
        registry.put_manifest(name, manifest)
    except (NotFoundError, MissingContentError):
        if not held:
            raise
        # The registry lost a blob of its own cube, or the tag moved meanwhile: ask for each.
        sent += _push_blobs(context, registry, name, manifest)
        registry.put_manifest(name, manifest)
    return sent


def _blobs_of_latest(registry: Remote, name: str) -> frozenset[Digest]:
    """Blobs that the registry holds because a tag keeps them: most of a new version's."""
    try:
        manifest = registry.manifest(name, LATEST)
    except NotFoundError:
        return frozenset()
    return frozenset(
        blob.digest for blob in (manifest.blobs if isinstance(manifest, oci.Manifest) else ())
    )


def _push_blobs(
    context: Context,
    registry: Remote,
    name: str,
    manifest: oci.Manifest,
    held: frozenset[Digest] = frozenset(),
) -> int:
    report = push_blobs(
        registry,
        name,
        manifest.blobs,
        context.store,
        held=held,
        progress=context.progress,
        parallel=context.settings.parallel,
    )
    return report.moved_bytes


def attach(context: Context, registry: Remote, name: str, signed: SignedCube) -> int:
    """Push the signature's blobs, and the referrer that attaches it; bytes sent."""
    for content in signed.blobs:
        context.store.blobs.add(content)
    context.store.blobs.add(signed.manifest.raw)
    sent = _push_blobs(context, registry, name, signed.manifest)
    registry.put_manifest(name, signed.manifest)
    return sent
