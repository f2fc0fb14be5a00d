"""Dump a KV cache from a live transformers model, and mount it again without copying (MIP 1.0 section 5).

A mounted cache equals the live one to the bit, or the mount is refused with every field that
differs. Loading maps the file; each question gets a fresh cache object over the same mapped
tensors, because a used one carries the question before.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from memcube_protocol import activation, limits, paths, tensors
from memcube_protocol.activation import KvManifest, LayerShape, Source
from memcube_protocol.compatibility import (
    CompatibilityKey,
    Mismatch,
    compare,
    incompatible,
)
from memcube_protocol.content import Blocks
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    ConflictError,
    InvalidConfigError,
    NotFoundError,
    UnsupportedError,
)
from memcube_protocol.identity import BaseIdentity

from memcube.memories import making
from memcube.memories.activation_key import (
    active_adapter_names,
    model_key,
    special_tokens,
)
from memcube.memories.model_identity import (
    dtype_name,
    live_identity,
    tensor_bytes,
    torch_dtypes,
)
from memcube.memories.reading import read_small, require_file

FOLDER: Final = "activation"
_GIVEN: Final = "given"


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
) -> Path:
    """The folder `activation/<memory_id>` below `folder`, written with the KV cache of a text or of ids.

    The adapters that are active on `model` become part of the key; `cube_adapters` are the ids of
    the cube's LoRA memories behind them, for people. `base_identity` spares hashing the model.
    `keep_text=False` keeps only the digest of the text.

    Raises:
        ConflictError: the memory exists already.
        UnsupportedError: a layer of the model keeps something else than keys and values.
        InvalidConfigError: neither text nor ids, or both, or no tokens.
    """
    ids = _ids(tokenizer, text, token_ids, add_special_tokens)
    raw_ids = activation.encode_tokens(ids)
    policy = _GIVEN if text is None else special_tokens(tokenizer, added=add_special_tokens)
    base = base_identity or live_identity(model)
    key = model_key(model, tokenizer, base=base, tokens=raw_ids, special_tokens=policy)
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


def mount_kv(
    folder: Path,
    model: Any,
    tokenizer: Any,
    *,
    base_identity: BaseIdentity | None = None,
    prefix_tokens: int | None = None,
    expected_ids: Sequence[int] | None = None,
    verify_blocks: bool = True,
) -> MountedKv:
    """The memory in `folder`, mapped and ready for `model`; mount the cube's LoRA before it.

    `prefix_tokens` mounts only the beginning; `expected_ids` are the ids that the prompt will
    start with, where the caller knows them; `verify_blocks=False` skips the hashes of files that
    were verified a moment ago.

    Raises:
        IncompatibleError: names every field of the key that differs, and what to do.
        InvalidTensorsError, DigestMismatchError, InvalidConfigError: the files are damaged.
        NotFoundError: a file is missing.
        UnsupportedError: the model has layers that keep no keys and values.
    """
    manifest, ids, storage = open_kv(folder)
    require_attention(model)
    base = base_identity or live_identity(model)
    mismatches = list(compare(manifest.key, asked_key(manifest, ids, model, tokenizer, base)))
    mismatches += _id_mismatches(ids, expected_ids, prefix_tokens)
    if mismatches:
        raise incompatible(mismatches)
    count = len(ids) if prefix_tokens is None else prefix_tokens
    if not 1 <= count <= len(ids):
        raise NotFoundError(
            f"a prefix of {count} tokens of a memory of {len(ids)}", hint="ask for fewer tokens"
        )
    if verify_blocks:
        _verify_blocks(manifest, storage, count)
    return MountedKv(manifest, ids[:count], model, tuple(views(manifest, storage, count, model)))


@dataclass(frozen=True, slots=True, eq=False)
class LayerView:
    """Keys and values of one layer as the cache wants them: [1, heads, tokens, width], mapped."""

    keys: Any
    values: Any


class MountedKv:
    """A KV memory on a model: the token ids that every prompt starts with, and fresh caches for them."""

    def __init__(
        self,
        manifest: KvManifest,
        token_ids: tuple[int, ...],
        model: Any,
        layers: tuple[LayerView, ...],
    ) -> None:
        self.manifest = manifest
        self.token_ids = token_ids
        self._model = model
        self._layers: tuple[LayerView, ...] | None = layers
        self._adapters = active_adapter_names(model)

    def new_cache(self) -> Any:
        """A cache for one question: it shares the mapped tensors and starts behind the memory.

        Raises:
            ConflictError: the memory was unmounted, or the active adapters have changed since.
        """
        from transformers import DynamicCache

        if self._layers is None:
            raise ConflictError("this memory was unmounted", hint="mount it again")
        if active_adapter_names(self._model) != self._adapters:
            raise ConflictError(
                "other adapters are active than when this memory was mounted",
                hint="unmount KV memories before the LoRA memory that they rest on",
            )
        cache = DynamicCache(config=self._model.config)
        for layer, view in zip(cache.layers, self._layers, strict=True):
            _fill(layer, view, len(self.token_ids))
        return cache

    def unmount(self) -> None:
        """Let go of the mapped tensors; caches in use keep theirs."""
        self._layers = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.unmount()


def _ids(
    tokenizer: Any, text: str | None, token_ids: Sequence[int] | None, add_special_tokens: bool
) -> list[int]:
    if (text is None) == (token_ids is None):
        raise InvalidConfigError(
            "a KV memory is made from a text or from token ids", hint="give exactly one of them"
        )
    if token_ids is not None:
        return list(token_ids)
    ids: list[int] = tokenizer(text, add_special_tokens=add_special_tokens)["input_ids"]
    return ids


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
        raise _no_kv(cache)
    _require_dtype(cache, key.kv_dtype)
    header = activation.kv_header(layers, len(ids), key.kv_dtype)
    blocks: dict[str, Blocks] = {}
    with (folder / activation.KV_FILE).open("xb") as file:
        file.write(header)
        for name, tensor in _token_major(cache):
            content = tensor_bytes(tensor)
            row = content.nbytes // len(ids)
            blocks[name] = Blocks.of(content, row * limits.KV_BLOCK_TOKENS, file.tell())
            file.write(content)
    return KvManifest(memory_id, key, layers, activation.token_chain(ids), blocks)


def _layer_shape(layer: Any, tokens: int) -> LayerShape:
    keys, values = getattr(layer, "keys", None), getattr(layer, "values", None)
    if keys is None or values is None or keys.dim() != 4 or keys.shape[-2] != tokens:
        raise _no_kv(layer)
    return LayerShape(keys.shape[1], keys.shape[3], values.shape[3])


def _require_dtype(cache: Any, wanted: str) -> None:
    """Refuse a cache of another element type than the model's: the key could not tell how it was made."""
    held = {dtype_name(t.dtype) for layer in cache.layers for t in (layer.keys, layer.values)}
    if held != {wanted}:
        raise UnsupportedError(
            f"this model keeps {', '.join(sorted(held))} where its weights are {wanted}",
            hint="dump without autocast, from a model whose weights have one type",
        )


def _token_major(cache: Any) -> Iterator[tuple[str, Any]]:
    for position, layer in enumerate(cache.layers):
        yield f"l{position}.k", layer.keys[0].transpose(0, 1)
        yield f"l{position}.v", layer.values[0].transpose(0, 1)


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


def open_kv(folder: Path) -> tuple[KvManifest, tuple[int, ...], Any]:
    """Manifest, ids and mapped bytes of a memory whose files agree."""
    import torch

    raw_ids = read_small(folder / activation.TOKENS_FILE, 4 * limits.KV_TOKENS)
    raw_manifest = read_small(folder / activation.MANIFEST_FILE, limits.KV_MANIFEST_BYTES)
    kv = folder / activation.KV_FILE
    require_file(kv)
    size = kv.stat().st_size
    storage = torch.UntypedStorage.from_file(str(kv), False, size) if size else b""
    start = _bytes_of(storage, 0, size) if size else b""
    manifest = activation.check_folder_files(raw_manifest, raw_ids, start, size)
    return manifest, activation.decode_tokens(raw_ids), storage


def asked_key(
    manifest: KvManifest, ids: Sequence[int], model: Any, tokenizer: Any, base: BaseIdentity
) -> CompatibilityKey:
    """The key that `model` asks for: the memory's own ids, or those of its text where it carries one."""
    policy = manifest.key.special_tokens
    if policy != _GIVEN:
        policy = special_tokens(tokenizer, added=policy != "bare")
    if manifest.source.text is not None and policy != _GIVEN:
        ids = ids_of_text(tokenizer, manifest.source.text, policy)
    raw = activation.encode_tokens(ids)
    return model_key(model, tokenizer, base=base, tokens=raw, special_tokens=policy)


def ids_of_text(tokenizer: Any, text: str, policy: str) -> tuple[int, ...]:
    """The token ids of `text` under the special-token `policy` of a key."""
    return tuple(_ids(tokenizer, text, None, policy != "bare"))


def _id_mismatches(
    ids: Sequence[int], expected: Sequence[int] | None, prefix_tokens: int | None
) -> list[Mismatch]:
    if expected is None:
        return []
    count = len(ids) if prefix_tokens is None else prefix_tokens
    shared = activation.shared_tokens(ids, expected)
    if shared >= count:
        return []
    return [
        Mismatch(
            "tokens",
            f"{ids[shared]} at position {shared}",
            str(expected[shared]) if shared < len(expected) else "the end of the prompt",
            f"mount at most the {shared} tokens that they have in common",
        )
    ]


def _verify_blocks(manifest: KvManifest, storage: Any, tokens: int) -> None:
    """Check the blocks that hold the first `tokens` tokens of every tensor.

    Raises:
        DigestMismatchError: a block differs from its signed hash.
    """
    for blocks in manifest.blocks.values():
        row = blocks.block_bytes // limits.KV_BLOCK_TOKENS
        first, last = blocks.covering(blocks.start, blocks.start + row * tokens)
        blocks.verify(_bytes_of(storage, first, last), first)


def views(manifest: KvManifest, storage: Any, tokens: int, model: Any) -> Iterator[LayerView]:
    """The first `tokens` tokens of every layer, as views of `storage` on the model's device."""
    import torch

    dtype = torch_dtypes()[manifest.key.kv_dtype]
    width = tensors.DTYPE_BYTES[manifest.key.kv_dtype]

    def view(name: str, heads: int, dim: int) -> Any:
        offset = manifest.blocks[name].start // width
        rows = torch.empty(0, dtype=dtype).set_(
            storage, offset, (tokens, heads, dim), (heads * dim, dim, 1)
        )
        return rows.to(model.device).transpose(0, 1)[None]

    for position, layer in enumerate(manifest.layers):
        yield LayerView(
            view(f"l{position}.k", layer.kv_heads, layer.key_dim),
            view(f"l{position}.v", layer.kv_heads, layer.value_dim),
        )


def require_attention(model: Any) -> None:
    """Refuse a model with layers that keep a state which cannot be cut or laid out by token."""
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

    for layer in DynamicCache(config=model.config).layers:
        if type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer):
            raise _no_kv(layer)


def _fill(layer: Any, view: LayerView, tokens: int) -> None:
    """Point an empty cache layer at mapped tensors: `update` would copy, and attributes alone lose them."""
    layer.lazy_initialization(view.keys, view.values)
    start = 0
    if layer.is_sliding:
        start = max(0, tokens - layer.sliding_window + 1)
        layer.cumulative_length = tokens
    layer.keys, layer.values = view.keys[:, :, start:], view.values[:, :, start:]


def _bytes_of(storage: Any, start: int, stop: int) -> memoryview:
    import torch

    flat: Any = torch.empty(0, dtype=torch.uint8).set_(storage, start, (stop - start,), (1,))
    return memoryview(flat.numpy())


def _no_kv(layer: Any) -> UnsupportedError:
    return UnsupportedError(
        f"a {type(layer).__name__} of this model keeps no key and value for every token",
        hint="use the cube's text for this model: only attention layers can be dumped and mounted",
    )
