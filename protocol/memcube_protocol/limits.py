"""The limits of MIP 1.0 (docs/spec/limits.md): every size that a parser refuses to exceed.

Sizes are bytes unless the name says otherwise.
"""

from __future__ import annotations

from typing import Final

from memcube_protocol.errors import LimitExceededError

KIB: Final = 1024
MIB: Final = 1024 * KIB

MANIFEST_BYTES: Final = 4 * MIB
MANIFEST_LAYERS: Final = 8192
CONFIG_BYTES: Final = 1 * MIB
RECORD_BYTES: Final = 1 * MIB
SAFETENSORS_HEADER_BYTES: Final = 100 * MIB
TENSOR_RANK: Final = 16
KV_MANIFEST_BYTES: Final = 16 * MIB
KV_TOKENS: Final = 16 * MIB
LORA_RANK: Final = 65536
STATEMENT_BYTES: Final = 1 * MIB
BUNDLE_BYTES: Final = 2 * MIB
CARD_BYTES: Final = 4 * MIB
JSON_DEPTH: Final = 64
PATH_BYTES: Final = 1024
NAME_CHARS: Final = 255
TAG_CHARS: Final = 128

SHARD_TARGET_BYTES: Final = 1 * MIB
SHARD_MIN_BYTES: Final = 64 * KIB
SHARD_MAX_BYTES: Final = 8 * MIB

KV_BLOCK_TOKENS: Final = 256
RANGE_BLOCK_BYTES: Final = 1 * MIB


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
