"""Dump a KV cache from a live transformers model into the files of a memory (docs/spec/activation.md)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from memcube_protocol import activation, limits
from memcube_protocol.activation import KvManifest, LayerShape, Source
from memcube_protocol.compatibility import INT8, NONE, CompatibilityKey
from memcube_protocol.content import Blocks
from memcube_protocol.digest import Digest
from memcube_protocol.errors import UnsupportedError
from memcube_protocol.identity import BaseIdentity

from memcube.memories import making
from memcube.memories.activation.capture import attention_layers, captured, no_kv
from memcube.memories.activation.chat import Message
from memcube.memories.activation.key import model_key
from memcube.memories.activation.mount import FOLDER
from memcube.memories.activation.prompt import Prompt, prompt_of
from memcube.memories.activation.room import room_errors
from memcube.memories.activation.storage import require_bounded, stored
from memcube.memories.model_identity import dtype_name, live_identity, tensor_bytes

if TYPE_CHECKING:
    from memcube.memories.activation.layers import LayerView

PREFILL: Final = "prefill"
"""The keys and values were computed by one forward pass over all tokens."""
LIVE: Final = "live"
"""They were taken from a cache in use, which grew as it did."""


def dump_kv(
    model: Any,
    tokenizer: Any,
    *,
    text: str | None = None,
    token_ids: Sequence[int] | None = None,
    messages: Sequence[Message] | None = None,
    tools: Sequence[Mapping[str, Any]] | None = None,
    cache: Any = None,
    folder: Path,
    memory_id: str,
    base_identity: BaseIdentity | None = None,
    cube_adapters: Sequence[str] = (),
    add_special_tokens: bool = True,
    control_tokens: bool = False,
    keep_text: bool = True,
    storage: str = NONE,
) -> Path:
    """The folder `activation/<memory_id>` below `folder`, written with the KV cache of a prompt.

    The prompt is one of `text`, `token_ids`, and `messages`: a chat, in the template of the tokenizer, with
    the `tools` that it offers. `cache` is a live cache of transformers that has seen exactly this prompt;
    nothing is computed then, and that the ids are those it has seen is the caller's word.
    `control_tokens` takes a text that spells control tokens of the model: a template wrote them.

    The adapters that are active on `model` become part of the key; `cube_adapters` are the ids of
    the cube's LoRA memories behind them, for people. `base_identity` spares hashing the model.
    `keep_text=False` keeps only the digest of the text. `storage` is `none`, exact, or `int8-token`:
    half the bytes, and a mounted cache that is no longer equal to the live one.

    Raises:
        ConflictError: the memory exists already.
        UnsupportedError: a layer of the model or of the cache keeps something else than a key and a value of
            every token, the tokenizer has no chat template, or there is no such storage.
        InvalidConfigError: no id of a memory, no prompt or several, no tokens, a cache that has seen another number of them, or
            a text or message that spells a control token.
        InvalidTensorsError: the model computes NaN or infinity.
        LimitExceededError: there is no room to compute it.
    """
    _require_storage(storage)
    target = making.new_folder(folder / FOLDER, memory_id)
    prompt = prompt_of(
        tokenizer,
        text=text,
        token_ids=token_ids,
        messages=messages,
        tools=tools,
        add_special_tokens=add_special_tokens,
        control_tokens=control_tokens,
    )
    raw_ids = activation.encode_tokens(prompt.ids)
    key = model_key(
        model,
        tokenizer,
        base=base_identity or live_identity(model),
        tokens=raw_ids,
        special_tokens=prompt.policy,
        storage=storage,
    )
    views = _views(model, prompt, cache)
    how = {**prompt.information, "from": PREFILL if cache is None else LIVE}
    described = _described(model, prompt, how, keep_text=keep_text, cube_adapters=cube_adapters)
    partial = target.with_name(f".{memory_id}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        manifest = replace(_write(partial, views, key, prompt.ids, memory_id), **described)
        (partial / activation.TOKENS_FILE).write_bytes(raw_ids)
        (partial / activation.MANIFEST_FILE).write_bytes(manifest.to_bytes())
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def prefill(model: Any, ids: Sequence[int]) -> Any:
    """The cache after one forward pass over `ids`, every token of every layer kept.

    Raises:
        LimitExceededError: there is no room for it.
    """
    import torch
    from transformers import DynamicCache

    cache = DynamicCache()
    training = model.training
    model.eval()
    try:
        with torch.inference_mode(), room_errors():
            model(
                input_ids=torch.tensor([list(ids)], device=model.device),
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
    finally:
        model.train(training)
    return cache


def _views(model: Any, prompt: Prompt, cache: Any) -> tuple[LayerView, ...]:
    """Keys and values of every layer: those in `cache`, or computed."""
    wanted = attention_layers(model)
    held = prefill(model, prompt.ids) if cache is None else cache
    views = captured(held, len(prompt.ids))
    if len(views) != wanted:
        raise no_kv(held)
    return views


def _write(
    folder: Path,
    views: Sequence[LayerView],
    key: CompatibilityKey,
    ids: Sequence[int],
    memory_id: str,
) -> KvManifest:
    """The manifest of `views`, whose tensors are written to `kv.safetensors` layer by layer."""
    _require_dtype(views, key.kv_dtype)
    layers = tuple(
        LayerShape(view.keys.shape[1], view.keys.shape[3], view.values.shape[3]) for view in views
    )
    header = activation.kv_header(layers, len(ids), key.kv_dtype, key.kv_quantisation)
    blocks: dict[str, Blocks] = {}
    with (folder / activation.KV_FILE).open("xb") as file:
        file.write(header)
        for name, tensor in _stored(views, key.kv_quantisation):
            content = tensor_bytes(tensor)
            require_bounded(content, name, dtype_name(tensor.dtype))
            row = content.nbytes // len(ids)
            blocks[name] = Blocks.of(content, row * limits.KV_BLOCK_TOKENS, file.tell())
            file.write(content)
    return KvManifest(memory_id, key, layers, activation.token_chain(ids), blocks)


def _require_dtype(views: Sequence[LayerView], wanted: str) -> None:
    """Refuse a cache of another element type than the model's: the key could not tell how it was made."""
    held = {dtype_name(tensor.dtype) for view in views for tensor in (view.keys, view.values)}
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


def _stored(views: Sequence[LayerView], storage: str) -> Iterator[tuple[str, Any]]:
    """The tensors of the file, token-major."""
    for position, view in enumerate(views):
        for part, tensor in (("k", view.keys), ("v", view.values)):
            yield from stored(f"l{position}.{part}", tensor[0].transpose(0, 1), storage)


def _described(
    model: Any,
    prompt: Prompt,
    how: Mapping[str, Any],
    *,
    keep_text: bool,
    cube_adapters: Sequence[str],
) -> dict[str, Any]:
    """What a manifest says of where the cache came from: its `source` and its `information`."""
    import torch
    import transformers

    information = {
        making.BUILDER: making.builder(),
        "attention": str(getattr(model.config, "_attn_implementation", None)),
        "device": model.device.type,
        "libraries": {"torch": torch.__version__, "transformers": transformers.__version__},
        "adapterMemories": list(cube_adapters),
        **how,
    }
    digest = Digest.of(prompt.text.encode()) if prompt.text is not None else None
    source = Source(prompt.text if keep_text else None, digest)
    return {"source": source, "information": information}
