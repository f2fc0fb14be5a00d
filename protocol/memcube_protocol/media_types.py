"""The media types of MIP 1.0 (docs/spec/media-types.md). What is not listed here is never loaded."""

from __future__ import annotations

from typing import Final

OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_EMPTY: Final = "application/vnd.oci.empty.v1+json"

CUBE: Final = "application/vnd.memcube.cube.v1+json"
BUILD: Final = "application/vnd.memcube.build.v1+json"
CONFIG: Final = "application/vnd.memcube.config.v1+json"
BUILD_CONFIG: Final = "application/vnd.memcube.build.config.v1+json"

RECORDS: Final = "application/vnd.memcube.plaintext.records.v1.jsonl+zstd"
VECTORS: Final = "application/vnd.memcube.plaintext.vectors.v1.safetensors"
KV: Final = "application/vnd.memcube.activation.kv.v1.safetensors"
KV_TOKENS: Final = "application/vnd.memcube.activation.tokens.v1"
KV_MANIFEST: Final = "application/vnd.memcube.activation.manifest.v1+json"
LORA: Final = "application/vnd.memcube.parametric.lora.v1.safetensors"
LORA_CONFIG: Final = "application/vnd.memcube.parametric.lora.config.v1+json"
CARD: Final = "application/vnd.memcube.card.v1+markdown"
ATTACHMENT: Final = "application/vnd.memcube.attachment.v1"

IN_TOTO: Final = "application/vnd.in-toto+json"
SIGSTORE_BUNDLE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"

LAYERS: Final = frozenset(
    {RECORDS, VECTORS, KV, KV_TOKENS, KV_MANIFEST, LORA, LORA_CONFIG, CARD, ATTACHMENT}
)

TITLE: Final = "org.opencontainers.image.title"
CREATED: Final = "org.opencontainers.image.created"
FILEPATH: Final = "org.cncf.model.filepath"
MEMORY: Final = "org.memcube.memory"
ATTACHMENT_TYPE: Final = "org.memcube.mediaType"
UNCOMPRESSED_DIGEST: Final = "org.memcube.uncompressed.digest"
UNCOMPRESSED_SIZE: Final = "org.memcube.uncompressed.size"
BUNDLE_CONTENT: Final = "dev.sigstore.bundle.content"
BUNDLE_PREDICATE: Final = "dev.sigstore.bundle.predicateType"
PUBLISHER_KEY: Final = "org.memcube.publisher.key"
RECORD_COUNT: Final = "org.memcube.records"
