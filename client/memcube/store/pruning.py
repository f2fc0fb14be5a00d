"""Which refs and blobs of the local store may go: a pure choice, made before anything is removed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import field
from datetime import datetime

from memcube_protocol import oci
from memcube_protocol.digest import Digest
from memcube_protocol.errors import MemcubeError
from memcube_protocol.values import frozen

from memcube.store.refs import Ref

ReadManifest = Callable[[Digest], bytes | None]
"""Bytes of a manifest, or nothing where the store does not hold it."""


@frozen
class Pruned:
    """What pruning removed: refs, blobs, and the bytes that became free on the disk.

    `freed_bytes` counts blobs and leftovers. `made_bytes` counts apart what had been made of cubes
    that are gone, by the folder of the user's home that it lay in.
    """

    refs: tuple[Ref, ...]
    blobs: tuple[Digest, ...]
    freed_bytes: int
    made_bytes: Mapping[str, int] = field(default_factory=dict[str, int])


def needed_by(roots: Iterable[Digest], read: ReadManifest) -> set[Digest]:
    """Every digest that the manifests `roots` name, directly or through an index or a subject."""
    seen: set[Digest] = set()
    pending = list(roots)
    while pending:
        digest = pending.pop()
        if digest in seen:
            continue
        seen.add(digest)
        leaves, manifests = _named_in(read(digest))
        seen |= leaves
        pending += manifests
    return seen


def stale_refs(
    refs: Iterable[Ref],
    sizes: Mapping[Digest, int],
    read: ReadManifest,
    *,
    used_before: datetime | None,
    max_bytes: int | None,
) -> list[Ref]:
    """Refs to let go, none of them kept.

    First those last used before `used_before`, then the least recently used ones until the bytes
    that the others need, by `sizes`, are at most `max_bytes`.
    """
    left = sorted(refs, key=lambda ref: ref.used_at)
    stale = [ref for ref in left if not ref.kept and used_before and ref.used_at < used_before]
    left = [ref for ref in left if ref not in stale]
    if max_bytes is None:
        return stale
    needs = {ref.reference: needed_by((ref.digest, *ref.related), read) for ref in left}
    for ref in [ref for ref in left if not ref.kept]:
        held = set().union(*needs.values())
        if sum(sizes.get(digest, 0) for digest in held) <= max_bytes:
            break
        stale.append(ref)
        del needs[ref.reference]
    return stale


def _named_in(raw: bytes | None) -> tuple[set[Digest], list[Digest]]:
    """Blobs and manifests that a manifest names; nothing where it is absent or not a manifest."""
    if raw is None:
        return set(), []
    try:
        manifest = oci.parse(raw)
    except MemcubeError:
        return set(), []
    subject = [manifest.subject.digest] if manifest.subject else []
    if isinstance(manifest, oci.Index):
        return set(), [child.digest for child in manifest.manifests] + subject
    return {blob.digest for blob in manifest.blobs}, subject
