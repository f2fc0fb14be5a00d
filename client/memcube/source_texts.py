"""The texts that KV memories were made from, for models whose caches nobody can reach.

A KV memory tells its text in its manifest: a few kilobytes beside the gigabytes of its tensors, of
which none is fetched.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from memcube_protocol import limits
from memcube_protocol.activation import MANIFEST_FILE, KvManifest
from memcube_protocol.config import ACTIVATION
from memcube_protocol.content import read_verified
from memcube_protocol.errors import NotFoundError

if TYPE_CHECKING:
    from memcube_protocol.cube import CubeFile

    from memcube.consume import Verified
    from memcube.context import Context


def source_texts(context: Context, verified: Verified) -> Iterator[str]:
    """The texts that the KV memories of a verified cube carry, in the order of its config.

    Raises:
        NotFoundError: a manifest is not in the store, and memcube is offline.
        IntegrityError, InvalidError, LimitExceededError: a manifest is damaged or hostile.
        NetworkError: the registry does not answer.
    """
    files = {file.path: file for file in verified.cube.files}
    for memory in verified.cube.config.memories:
        manifest = files.get(f"{ACTIVATION}/{memory.id}/{MANIFEST_FILE}")
        if memory.kind == ACTIVATION and manifest is not None:
            text = KvManifest.parse(_content(context, verified, manifest)).source.text
            if text is not None:
                yield text


def _content(context: Context, verified: Verified, file: CubeFile) -> bytes:
    """The bytes of a small file, fetched and kept where the store lacks it."""
    store, reference = context.store, verified.reference
    if store.has(file.digest, file.size):
        return read_verified(store, file.digest)
    if context.settings.offline or not reference.host:
        raise NotFoundError(
            f"the local store does not hold {file.path} of {reference}",
            hint=f"pull it while online: memcube pull {reference}",
        )
    with store.session():
        remote = context.remote(reference.host)
        content = remote.read_blob(reference.name, file.descriptor(), limits.KV_MANIFEST_BYTES)
        store.blobs.add(content, file.digest.algorithm)
    return content
