"""Key documents in a registry: one artifact in a repository of the namespace, one layer a bundle.

A copy of a cube in another namespace brings those of its origin along: the same, attached to the cube.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from memcube_protocol import limits, media_types, oci
from memcube_protocol.errors import InvalidManifestError

from memcube_signing.authority.chain import MAX_BUNDLES
from memcube_signing.bundle import Bundle

NAME: Final = "memcube-keys"
"""Last component of the repository's name; its tag is `latest`."""
TAG: Final = "latest"


def repository_of(authority: str) -> str:
    """The repository of the key documents of `authority`, without the host."""
    return f"{authority.partition('/')[2]}/{NAME}"


def write(bundles: Sequence[Bundle], *, subject: oci.Descriptor | None = None) -> oci.Manifest:
    """The manifest that carries `bundles`; its blobs are `{}` and their exact bytes.

    With a copied cube it is attached to that, its `subject`.
    """
    return oci.write_manifest(
        artifact_type=media_types.KEYS,
        config=oci.EMPTY,
        layers=[oci.Descriptor.of(media_types.SIGSTORE_BUNDLE, bundle.raw) for bundle in bundles],
        subject=subject,
    )


def read(manifest: oci.Manifest | oci.Index) -> tuple[oci.Descriptor, ...]:
    """The bundles that `manifest` carries.

    Raises:
        InvalidManifestError: it carries something else.
        LimitExceededError: too many, or together too large: readers hold all of them in memory.
    """
    if (
        not isinstance(manifest, oci.Manifest)
        or manifest.effective_artifact_type != media_types.KEYS
        or any(layer.media_type != media_types.SIGSTORE_BUNDLE for layer in manifest.layers)
    ):
        raise InvalidManifestError(
            "the manifest does not carry key documents", hint="see docs/spec/keys.md"
        )
    limits.require_at_most("key documents", len(manifest.layers), MAX_BUNDLES, unit="bundles")
    size_bytes = sum(layer.size for layer in manifest.layers)
    limits.require_at_most("key documents", size_bytes, limits.KEY_DOCUMENTS_BYTES)
    return manifest.layers
