"""Dump a KV cache from a live transformers model into the files of a memory (MIP 1.0 section 5)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from memcube_protocol import activation, limits, paths
from memcube_protocol.activation import KvManifest, LayerShape, Source
from memcube_protocol.compatibility import INT8, NONE, CompatibilityKey
from memcube_protocol.content import Blocks
from memcube_protocol.digest import Digest
from memcube_protocol.errors import ConflictError, UnsupportedError
from memcube_protocol.identity import BaseIdentity

from memcube.memories import making
from memcube.memories.activation import FOLDER, GIVEN, ids_of, no_kv, require_attention
from memcube.memories.activation_key import model_key, special_tokens
from memcube.memories.kv_storage import stored
from memcube.memories.model_identity import dtype_name, live_identity, tensor_bytes


def dump_kv(
    model: Any,
    tokenizer: Any,
    *,
    text: str | None = None,
    token_ids: Sequence[int] | None = None,
    folder: Path,
    memory_id: str,
    base_identity: BaseIdentity | None = None,
    cube_adapters: Sequence[str] = (),
    add_special_tokens: bool = True,
    keep_text: bool = True,
    storage: str = NONE,
) -> Path:
    """The folder `activation/<memory_id>` below `folder`, written with the KV cache of a text or of ids.

    The adapters that are active on `model` become part of the key; `cube_adapters` are the ids of
    the cube's LoRA memories behind them, for people. `base_identity` spares hashing the model.
    `keep_text=False` keeps only the digest of the text. `storage` is `none`, exact, or `int8-token`:
    half the bytes, and a mounted cache that is no longer equal to the live one.

    Raises:
        ConflictError: the memory exists already.
        UnsupportedError: a layer of the model keeps something else than keys and values, or there
            is no such storage.
        InvalidConfigError: neither text nor ids, or both, or no tokens.
    """
    _require_storage(storage)
    ids = ids_of(tokenizer, text, token_ids, add_special_tokens)
    raw_ids = activation.encode_tokens(ids)
    policy = GIVEN if text is None else special_tokens(tokenizer, added=add_special_tokens)
    base = base_identity or live_identity(model)
    key = model_key(
        model, tokenizer, base=base, tokens=raw_ids, special_tokens=policy, storage=storage
    )
    target = _new_folder(folder, memory_id)
    require_attention(model)
    cache = prefill(model, ids)
    partial = target.with_name(f".{memory_id}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        manifest = _write(partial, cache, key, ids, memory_id)
        manifest = _described(manifest, model, text if keep_text else None, text, cube_adapters)
        (partial / activation.TOKENS_FILE).write_bytes(raw_ids)
        (partial / activation.MANIFEST_FILE).write_bytes(manifest.to_bytes())
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def prefill(model: Any, ids: Sequence[int]) -> Any:
    """The cache after one forward pass over `ids`, every token of every layer kept."""
    import torch
    from transformers import DynamicCache

    cache = DynamicCache()
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            model(
                input_ids=torch.tensor([list(ids)], device=model.device),
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
    finally:
        model.train(training)
    return cache


def _new_folder(folder: Path, memory_id: str) -> Path:
    target = folder / FOLDER / paths.require_safe(memory_id)
    if "/" in memory_id or target.exists():
        raise ConflictError(
            f"memory {memory_id!r} exists already or is not one file name",
            hint="choose another id, or remove its folder first",
        )
    return target


def _write(
    folder: Path, cache: Any, key: CompatibilityKey, ids: Sequence[int], memory_id: str
) -> KvManifest:
    """The manifest of `cache`, whose tensors are written to `kv.safetensors` layer by layer."""
    layers = tuple(_layer_shape(layer, len(ids)) for layer in cache.layers)
    if not layers:
        raise no_kv(cache)
    _require_dtype(cache, key.kv_dtype)
    header = activation.kv_header(layers, len(ids), key.kv_dtype, key.kv_quantisation)
    blocks: dict[str, Blocks] = {}
    with (folder / activation.KV_FILE).open("xb") as file:
        file.write(header)
        for name, tensor in _stored(cache, key.kv_quantisation):
            content = tensor_bytes(tensor)
            row = content.nbytes // len(ids)
            blocks[name] = Blocks.of(content, row * limits.KV_BLOCK_TOKENS, file.tell())
            file.write(content)
    return KvManifest(memory_id, key, layers, activation.token_chain(ids), blocks)


def _layer_shape(layer: Any, tokens: int) -> LayerShape:
    keys, values = getattr(layer, "keys", None), getattr(layer, "values", None)
    if keys is None or values is None or keys.dim() != 4 or keys.shape[-2] != tokens:
        raise no_kv(layer)
    return LayerShape(keys.shape[1], keys.shape[3], values.shape[3])


def _require_dtype(cache: Any, wanted: str) -> None:
    """Refuse a cache of another element type than the model's: the key could not tell how it was made."""
    held = {dtype_name(t.dtype) for layer in cache.layers for t in (layer.keys, layer.values)}
    if held != {wanted}:
        raise UnsupportedError(
            f"this model keeps {', '.join(sorted(held))} where its weights are {wanted}",
            hint="dump without autocast, from a model whose weights have one type",
        )


def _require_storage(storage: str) -> None:
    if storage not in (NONE, INT8):
        raise UnsupportedError(
            f"there is no storage {storage!r} of a KV cache", hint=f"choose {NONE} or {INT8}"
        )


def _stored(cache: Any, storage: str) -> Iterator[tuple[str, Any]]:
    """The tensors of the file, token-major."""
    for position, layer in enumerate(cache.layers):
        for part, tensor in (("k", layer.keys), ("v", layer.values)):
            yield from stored(f"l{position}.{part}", tensor[0].transpose(0, 1), storage)


def _described(
    manifest: KvManifest,
    model: Any,
    kept_text: str | None,
    text: str | None,
    cube_adapters: Sequence[str],
) -> KvManifest:
    import torch
    import transformers

    information = {
        making.BUILDER: making.builder(),
        "attention": str(getattr(model.config, "_attn_implementation", None)),
        "device": model.device.type,
        "libraries": {"torch": torch.__version__, "transformers": transformers.__version__},
        "adapterMemories": list(cube_adapters),
    }
    digest = Digest.of(text.encode()) if text is not None else None
    return replace(manifest, source=Source(kept_text, digest), information=information)
