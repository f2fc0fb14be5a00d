"""A small activation memory made of bytes alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from memcube_protocol import activation, limits, tensors
from memcube_protocol.activation import KvManifest, LayerShape, Source
from memcube_protocol.compatibility import NONE, CompatibilityKey
from memcube_protocol.content import Blocks
from memcube_protocol.digest import Digest
from memcube_protocol.identity import BaseIdentity

IDS = tuple(range(300))
LAYERS = (LayerShape(2, 4, 4), LayerShape(2, 4, 6))
KEY = CompatibilityKey(
    base=BaseIdentity(b"m" * 32),
    compute_dtype="F32",
    weight_quantisation="none",
    architecture=Digest.of(b"architecture"),
    rope='{"rope_theta":10000}',
    kv_dtype="F32",
    kv_quantisation="none",
    adapters=(),
    tokenizer=Digest.of(b"tokenizer"),
    special_tokens="bare",
    tokens=Digest.of(activation.encode_tokens(IDS)),
    token_count=len(IDS),
)


def kv_file(
    layers: tuple[LayerShape, ...] = LAYERS,
    tokens: int = len(IDS),
    dtype: str = "F32",
    storage: str = NONE,
) -> bytes:
    """`kv.safetensors` whose bytes count up."""
    held = activation.kv_tensors(layers, tokens, dtype, storage)
    size = sum(tensors.size_bytes(each, shape) for _, each, shape in held)
    header = activation.kv_header(layers, tokens, dtype, storage)
    return header + bytes(position * 7 % 251 for position in range(size))


def kv_manifest(text: str | None = "three hundred tokens", storage: str = NONE) -> KvManifest:
    """The manifest that belongs to `kv_file(storage=storage)` and `IDS`."""
    file = kv_file(storage=storage)
    header = tensors.parse_header(file)
    blocks = {}
    for tensor in header.tensors:
        start, stop = header.range_of(tensor)
        row = tensor.size_bytes // len(IDS)
        blocks[tensor.name] = Blocks.of(file[start:stop], row * limits.KV_BLOCK_TOKENS, start)
    key = dataclasses.replace(KEY, kv_quantisation=storage)
    return KvManifest("kv", key, LAYERS, activation.token_chain(IDS), blocks, Source(text))


def with_text_of(one: Path, other: Path) -> None:
    """Put text, tokens and key of the memory in `other` beside the numbers of `one`, all consistent."""
    ours, theirs = (
        KvManifest.parse((folder / activation.MANIFEST_FILE).read_bytes())
        for folder in (one, other)
    )
    forged = dataclasses.replace(
        ours, source=theirs.source, key=theirs.key, chain=theirs.chain, id=ours.id
    )
    (one / activation.MANIFEST_FILE).write_bytes(forged.to_bytes())
    tokens = (other / activation.TOKENS_FILE).read_bytes()
    (one / activation.TOKENS_FILE).write_bytes(tokens)


def kv_folder(folder: Path, text: str | None, memory_id: str = "kv") -> Path:
    """A KV memory that carries `text`, below the cube folder `folder`."""
    place = folder / "activation" / memory_id
    place.mkdir(parents=True)
    manifest = dataclasses.replace(kv_manifest(text), id=memory_id)
    (place / activation.MANIFEST_FILE).write_bytes(manifest.to_bytes())
    (place / activation.TOKENS_FILE).write_bytes(activation.encode_tokens(IDS))
    (place / activation.KV_FILE).write_bytes(kv_file())
    return place
