"""An activation memory as files: a KV cache, its token ids, its manifest (docs/spec/activation.md).

    activation/<id>/manifest.json    key, source, token chain, block hashes
                    tokens.u32       the token ids, four bytes each, little-endian
                    kv.safetensors   l0.k, l0.v, l1.k, … of shape [tokens, kv_heads, head_dim]

The header of the tensors is padded so that their bytes start at a multiple of 4096; being
token-major, the first n tokens of a tensor are one range of bytes. Stored in eight bits, each tensor has
its scales behind it: l0.k, l0.k.scale, l0.v, … Every tensor is cut into blocks
of 256 tokens, whose BLAKE3 hashes stand in the manifest, so that a prefix can be fetched and
checked alone.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from functools import lru_cache
from typing import Any, Final

from memcube_protocol import canonical_json, limits, tensors
from memcube_protocol.compatibility import INT8, NONE, CompatibilityKey
from memcube_protocol.content import HASH_BYTES, Blocks
from memcube_protocol.digest import Digest
from memcube_protocol.errors import DigestMismatchError, InvalidConfigError, InvalidJsonError
from memcube_protocol.fields import Fields
from memcube_protocol.tensors import Header, Rejection, rejected
from memcube_protocol.values import frozen

MANIFEST_FILE: Final = "manifest.json"
TOKENS_FILE: Final = "tokens.u32"
KV_FILE: Final = "kv.safetensors"
SCALE_DTYPE: Final = "F32"

_TOKEN_BYTES: Final = 4
_CHAIN_CONTEXT: Final = b"memcube-token-chain-v1"
_LAYERS: Final = 4096
_HEX: Final = frozenset("0123456789abcdef")


@frozen
class LayerShape:
    """What one layer keeps per token: `kv_heads` keys and values of these widths."""

    kv_heads: int
    key_dim: int
    value_dim: int

    def __post_init__(self) -> None:
        if min(self.kv_heads, self.key_dim, self.value_dim) < 1:
            raise _invalid(f"a layer of {self.kv_heads} heads, {self.key_dim}, {self.value_dim}")


@frozen
class Source:
    """What the cache was computed from: a text, or only its digest, or neither (ids were given)."""

    text: str | None = None
    digest: Digest | None = None

    def __post_init__(self) -> None:
        if self.text is not None and self.digest not in (None, Digest.of(self.text.encode())):
            raise _invalid("the digest of its source text is not the text's")

    def to_json(self) -> dict[str, str]:
        """The JSON object of this source: the text or its digest, never both."""
        if self.text is not None:
            return {"text": self.text}
        return {"digest": str(self.digest)} if self.digest else {}


@frozen
class KvManifest:
    """`manifest.json`: what a cache fits, where its bytes lie, how they are checked.

    `chain` is the token chain (`token_chain`); `blocks` holds, for every tensor, the hashes of its
    blocks of 256 tokens; `information` is for people and decides nothing.
    """

    id: str
    key: CompatibilityKey
    layers: tuple[LayerShape, ...]
    chain: tuple[bytes, ...]
    blocks: Mapping[str, Blocks]
    source: Source = field(default_factory=Source)
    information: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        if self.key.kv_quantisation not in (NONE, INT8):
            raise _invalid(f"storage {self.key.kv_quantisation}; this memcube knows {NONE}, {INT8}")
        wanted = {name for name, _, _ in self.tensors()}
        if not 1 <= len(self.layers) <= _LAYERS or set(self.blocks) != wanted:
            raise _invalid(f"block hashes of {len(self.blocks)} tensors for {len(wanted)}")
        if len(self.chain) != -(-self.key.token_count // limits.KV_BLOCK_TOKENS):
            raise _invalid(f"{len(self.chain)} links for {self.key.token_count} tokens")
        for name, dtype, shape in self.tensors():
            size = tensors.size_bytes(dtype, shape)
            block = size // shape[0] * limits.KV_BLOCK_TOKENS
            if (self.blocks[name].size, self.blocks[name].block_bytes) != (size, block):
                raise _invalid(f"the block hashes of {name} do not cover blocks of 256 tokens")

    @staticmethod
    def parse(raw: bytes) -> KvManifest:
        """The manifest that `raw` holds.

        Raises:
            LimitExceededError: more than 16 MiB.
            InvalidJsonError: not strict JSON, or not in its canonical form.
            InvalidConfigError, InvalidDigestError, InvalidTensorsError, InvalidManifestError: a
                field is malformed or contradicts another.
        """
        limits.require_at_most("activation manifest", len(raw), limits.KV_MANIFEST_BYTES)
        return _parsed(bytes(raw))

    def to_bytes(self) -> bytes:
        """The canonical bytes of `manifest.json`.

        Raises:
            LimitExceededError: more than 16 MiB.
        """
        raw = canonical_json.dump(self.to_json())
        limits.require_at_most("activation manifest", len(raw), limits.KV_MANIFEST_BYTES)
        return raw

    def to_json(self) -> dict[str, Any]:
        """The JSON object of this manifest."""
        return {
            "mipVersion": "1.0",
            "id": self.id,
            "key": self.key.to_json(),
            "layers": [
                {"kvHeads": at.kv_heads, "keyDim": at.key_dim, "valueDim": at.value_dim}
                for at in self.layers
            ],
            "tokenChain": b"".join(self.chain).hex(),
            "blocks": {
                name: {
                    "start": blocks.start,
                    "size": blocks.size,
                    "blockBytes": blocks.block_bytes,
                    "blake3": b"".join(blocks.hashes).hex(),
                }
                for name, blocks in self.blocks.items()
            },
            "source": self.source.to_json(),
            "information": dict(self.information),
        }

    def tensors(self) -> Iterator[KvTensor]:
        """Name, element type and shape of every tensor, in the order of the file."""
        key = self.key
        return kv_tensors(self.layers, key.token_count, key.kv_dtype, key.kv_quantisation)


@lru_cache(maxsize=4)
def _parsed(raw: bytes) -> KvManifest:
    """See `KvManifest.parse`; remembered, for every mount of a memory reads its manifest."""
    source = Fields(canonical_json.parse_object(raw, what=MANIFEST_FILE), MANIFEST_FILE)
    if (version := source.text("mipVersion")) != "1.0":
        raise source.refuse("mipVersion", f"is {version[:20]}, this memcube reads 1.0")
    manifest = KvManifest(
        id=source.text("id"),
        key=CompatibilityKey.from_fields(source.table("key")),
        layers=tuple(map(_layer, source.tables("layers", count=_LAYERS))),
        chain=_hashes(source, "tokenChain"),
        blocks=_blocks(source.object("blocks")),
        source=_source(source.table("source")),
        information=source.object("information"),
    )
    source.finish()
    if manifest.to_bytes() != raw:
        raise InvalidJsonError(
            f"{MANIFEST_FILE} is not in its canonical form", hint="dump the memory anew"
        )
    return manifest


KvTensor = tuple[str, str, tuple[int, ...]]
"""Name, element type and shape, whose first dimension counts the tokens."""


def kv_tensors(
    layers: Sequence[LayerShape], tokens: int, dtype: str, quantisation: str = NONE
) -> Iterator[KvTensor]:
    """The tensors of a cache of element type `dtype`, in the order of its file."""
    for position, layer in enumerate(layers):
        for part, width in (("k", layer.key_dim), ("v", layer.value_dim)):
            name = f"l{position}.{part}"
            if quantisation == NONE:
                yield name, dtype, (tokens, layer.kv_heads, width)
            else:
                yield name, "I8", (tokens, layer.kv_heads, width)
                yield scale_of(name), SCALE_DTYPE, (tokens, layer.kv_heads)


def scale_of(name: str) -> str:
    """Name of the scales of tensor `name`: value = number x scale of its token and head."""
    return f"{name}.scale"


def kv_header(
    layers: Sequence[LayerShape], tokens: int, dtype: str, quantisation: str = NONE
) -> bytes:
    """The first bytes of `kv.safetensors`, padded to a multiple of 4096."""
    held = kv_tensors(layers, tokens, dtype, quantisation)
    return tensors.write_header(held, {"format": "pt"}, alignment=tensors.PAGE_BYTES)


def encode_tokens(ids: Sequence[int]) -> bytes:
    """`tokens.u32`: four little-endian bytes per token id.

    Raises:
        InvalidConfigError: no ids, or one outside 0 to 2^32 - 1.
        LimitExceededError: more than 16 Mi tokens.
    """
    limits.require_at_most("tokens", len(ids), limits.KV_TOKENS, unit="ids")
    try:
        raw = struct.pack(f"<{len(ids)}I", *ids)
    except struct.error:
        raise _invalid("a token id outside 0 to 2^32 - 1") from None
    if not raw:
        raise _invalid("it has no tokens")
    return raw


def decode_tokens(raw: bytes) -> tuple[int, ...]:
    """The token ids that `tokens.u32` holds.

    Raises:
        InvalidConfigError: empty, or not a multiple of four bytes.
        LimitExceededError: more than 16 Mi tokens.
    """
    count, rest = divmod(len(raw), _TOKEN_BYTES)
    if rest or not count:
        raise _invalid(f"tokens of {len(raw)} bytes")
    limits.require_at_most("tokens", count, limits.KV_TOKENS, unit="ids")
    return struct.unpack(f"<{count}I", raw)


def token_chain(ids: Sequence[int]) -> tuple[bytes, ...]:
    """One SHA-256 per 256 tokens, each over the one before: equal links mean equal beginnings.

    link 0 = SHA-256(context ‖ ids 0 to 255), link i = SHA-256(context ‖ link i-1 ‖ ids of block i),
    with the context `memcube-token-chain-v1` and ids as in `tokens.u32`. The last block may be short.
    """
    links: list[bytes] = []
    for at in range(0, len(ids), limits.KV_BLOCK_TOKENS):
        before = links[-1] if links else b""
        block = encode_tokens(ids[at : at + limits.KV_BLOCK_TOKENS])
        links.append(hashlib.sha256(_CHAIN_CONTEXT + before + block).digest())
    return tuple(links)


def shared_tokens(memory: Sequence[int], wanted: Sequence[int]) -> int:
    """How many tokens `memory` and `wanted` have in common from the first one on."""
    common = min(len(memory), len(wanted))
    for position in range(common):
        if memory[position] != wanted[position]:
            return position
    return common


def prefix_ranges(header: Header, tokens: int) -> dict[str, tuple[int, int]]:
    """Per tensor, the offsets in the file of the bytes of the first `tokens` tokens."""
    ranges = {}
    for tensor in header.tensors:
        start, _ = header.range_of(tensor)
        ranges[tensor.name] = start, start + tensor.size_bytes // tensor.shape[0] * tokens
    return ranges


def check_folder_files(
    manifest: bytes, tokens: bytes, kv_start: bytes | memoryview, kv_bytes: int
) -> KvManifest:
    """The manifest of an activation memory whose three files agree.

    `kv_start` holds at least the header of `kv.safetensors`, `kv_bytes` is the length of that file.
    The bytes of the tensors are checked where they are read, by the manifest's block hashes.

    Raises:
        InvalidTensorsError: the tensors are not those that the manifest promises.
        DigestMismatchError: the token ids are not those of the key.
        InvalidConfigError and all that `KvManifest.parse` raises: the manifest is malformed.
    """
    parsed = KvManifest.parse(manifest)
    ids = decode_tokens(tokens)
    if Digest.of(tokens) != parsed.key.tokens or token_chain(ids) != parsed.chain:
        raise DigestMismatchError(
            f"{TOKENS_FILE} does not hold the {parsed.key.token_count} ids that the manifest names",
            hint="the memory was put together from parts of two: build it anew",
        )
    check_header(parsed, tensors.parse_header(kv_start, kv_bytes))
    return parsed


def check_header(manifest: KvManifest, header: Header) -> None:
    """Refuse tensors of other names, types, shapes or places than `manifest` promises.

    Raises:
        InvalidTensorsError: names the first tensor that differs.
    """
    if header.data_start % tensors.PAGE_BYTES:
        raise rejected(Rejection.UNEXPECTED, f"the tensors start at {header.data_start}")
    present = header.by_name()
    for name, dtype, shape in manifest.tensors():
        tensor = present.pop(name, None)
        if tensor is None or (tensor.dtype, tensor.shape) != (dtype, shape):
            raise rejected(
                Rejection.UNEXPECTED, f"{name} is not {dtype} of shape {list(shape)}: {tensor}"
            )
        if header.range_of(tensor)[0] != manifest.blocks[name].start:
            raise rejected(Rejection.UNEXPECTED, f"{name} lies elsewhere than its block hashes")
    if present:
        raise rejected(Rejection.UNEXPECTED, f"no layer has the tensor {min(present)[:200]!r}")


def _layer(source: Fields) -> LayerShape:
    values = [source.integer(name) or 0 for name in ("kvHeads", "keyDim", "valueDim")]
    source.finish()
    return LayerShape(*values)


def _source(source: Fields) -> Source:
    text, digest = source.take("text"), source.optional_text("digest")
    source.finish()
    if text is not None and not isinstance(text, str):
        raise source.refuse("text", "is not a string")
    if text is not None and digest is not None:
        raise source.refuse("digest", "stands beside the text itself")
    return Source(text, Digest.parse(digest) if digest else None)


def _blocks(table: Mapping[str, Any]) -> dict[str, Blocks]:
    blocks = {}
    for name, value in table.items():
        source = Fields(value, f"blocks of {name[:40]!r}")
        numbers = [source.integer(key) for key in ("blockBytes", "start", "size")]
        if None in numbers:
            raise source.refuse("blockBytes", "start and size are numbers")
        block_bytes, start, size = (number or 0 for number in numbers)
        blocks[name] = Blocks(block_bytes, start, size, _hashes(source, "blake3"))
        source.finish()
    return blocks


def _hashes(source: Fields, key: str) -> tuple[bytes, ...]:
    """Hashes of 32 bytes, written behind each other in lower-case hex."""
    value = source.take(key)
    digits = 2 * HASH_BYTES
    if not isinstance(value, str) or len(value) % digits or not set(value) <= _HEX:
        raise source.refuse(key, "is not a row of 32-byte hashes in lower-case hex")
    return tuple(bytes.fromhex(value[at : at + digits]) for at in range(0, len(value), digits))


def _invalid(what: str) -> InvalidConfigError:
    return InvalidConfigError(
        f"not an acceptable activation memory: {what}", hint="see docs/spec/activation.md"
    )
