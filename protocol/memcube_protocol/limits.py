"""The limits of MIP 1.0 (docs/spec/limits.md): every size that a parser refuses to exceed.

Sizes are bytes unless the name says otherwise.
"""

from __future__ import annotations

from typing import Final

from memcube_protocol.errors import LimitExceededError

KIB: Final = 1024
MIB: Final = 1024 * KIB

MANIFEST_BYTES: Final = 4 * MIB
"""A manifest or an index."""
MANIFEST_LAYERS: Final = 8192
"""Layers of a manifest, and entries of an index."""
CONFIG_BYTES: Final = 1 * MIB
"""The config of a cube or a build, `memcube.toml`, `adapter_config.json`."""
RECORD_BYTES: Final = 1 * MIB
"""One record: a line without its newline."""
SAFETENSORS_HEADER_BYTES: Final = 100 * MIB
"""The header of a safetensors file."""
TENSOR_RANK: Final = 16
"""Dimensions of a tensor."""
KV_MANIFEST_BYTES: Final = 16 * MIB
"""`manifest.json` of an activation memory."""
KV_TOKENS: Final = 16 * MIB
"""Tokens of an activation memory."""
LORA_RANK: Final = 65536
"""Rank of an adapter."""
MAGNITUDE: Final = 65536
"""Exclusive bound on the absolute value of the numbers of an adapter or a cache, and of an adapter's alpha."""
STATEMENT_BYTES: Final = 1 * MIB
"""A signed statement."""
BUNDLE_BYTES: Final = 2 * MIB
"""A bundle: a signed statement with its signature."""
STATEMENTS_BYTES: Final = 64 * MIB
"""Bundles about one manifest that a reader takes into account, with the manifests that attach them, together."""
KEY_DOCUMENTS_BYTES: Final = 16 * MIB
"""The key documents of a namespace, together."""
PROOF_BYTES: Final = 64 * MIB
"""A `.memproof` file."""
CARD_BYTES: Final = 4 * MIB
"""The card of a cube."""
JSON_DEPTH: Final = 64
"""Levels of nested JSON."""
PATH_BYTES: Final = 1024
"""A path in a cube, in UTF-8; each component has at most 255."""
NAME_CHARS: Final = 255
"""Host and name of a reference, with the `/` between them."""
TAG_CHARS: Final = 128
"""A tag."""

SHARD_TARGET_BYTES: Final = 1 * MIB
"""Largest target size of a shard, uncompressed, as long as one manifest can name all shards."""
SHARD_MIN_BYTES: Final = 64 * KIB
"""Smallest shard that may end at a cut point, uncompressed."""
SHARD_MAX_BYTES: Final = 8 * MIB
"""A shard, uncompressed."""

KV_BLOCK_TOKENS: Final = 256
"""Tokens in a block of a KV tensor, the unit of block hashes."""
RANGE_BLOCK_BYTES: Final = 1 * MIB
"""Block of any other content, the unit of block hashes."""


def require_at_most(what: str, actual: int, limit: int, *, unit: str = "bytes") -> None:
    """Refuse `actual` above `limit`.

    Raises:
        LimitExceededError: naming the thing, both numbers and the rule.
    """
    if actual > limit:
        raise LimitExceededError(
            f"{what} has {actual} {unit}, the limit is {limit}",
            hint="split it into smaller parts; docs/spec/limits.md lists every limit",
        )
