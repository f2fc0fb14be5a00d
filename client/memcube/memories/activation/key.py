"""The compatibility key that a live model, with what is active on it now, asks of a KV cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from functools import lru_cache
from typing import Any, Final

from memcube_protocol import canonical_json, parametric
from memcube_protocol.compatibility import NONE, ActiveAdapter, CompatibilityKey
from memcube_protocol.digest import Digest
from memcube_protocol.errors import UnsupportedError
from memcube_protocol.identity import BaseIdentity, TensorIdentity
from memcube_protocol.parametric import adapter_identity

from memcube.memories.biases import Biases
from memcube.memories.model_identity import (
    base_of,
    base_state,
    dtype_name,
    tensor_identity,
    tuner_layers,
)

_SHAPE_FIELDS: Final = (
    "model_type",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "hidden_size",
    "vocab_size",
    "layer_types",
    "sliding_window",
    "attention_chunk_size",
)
"""What always stands in the architecture's hash, with the value that is in force."""

_VOLATILE_FIELDS: Final = frozenset(
    {
        "_name_or_path",
        "architectures",
        "attn_implementation",
        "auto_map",
        "bos_token_id",
        "dtype",
        "eos_token_id",
        "pad_token_id",
        "quantization_config",
        "rope_parameters",
        "rope_scaling",
        "rope_theta",
        "tie_word_embeddings",
        "torch_dtype",
        "transformers_version",
        "use_cache",
    }
)
"""What two loads of one model may differ in without another result, or what has its own field."""


def model_key(
    model: Any,
    tokenizer: Any,
    *,
    base: BaseIdentity,
    tokens: bytes,
    special_tokens: str,
    storage: str = NONE,
) -> CompatibilityKey:
    """The key of the cache that `model` would compute now for `tokens` (the bytes of `tokens.u32`)."""
    return CompatibilityKey(
        base=base,
        compute_dtype=compute_dtype(model),
        weight_quantisation=weight_quantisation(model.config),
        architecture=architecture_hash(model.config),
        rope=rope_json(model.config),
        kv_dtype=dtype_name(model.dtype),
        kv_quantisation=storage,
        adapters=active_adapters(model),
        tokenizer=tokenizer_hash(tokenizer),
        special_tokens=special_tokens,
        tokens=Digest.of(tokens),
        token_count=len(tokens) // 4,
    )


def compute_dtype(model: Any) -> str:
    """The element type that `model` computes in now: that of autocast where it is on, else its own."""
    import torch

    kind = model.device.type
    autocast = torch.is_autocast_enabled(kind)
    return dtype_name(torch.get_autocast_dtype(kind) if autocast else model.dtype)


def architecture_hash(config: Any) -> Digest:
    """SHA-256 over what shapes the computation: layers, heads, windows, and all that is not default."""
    text = config.get_text_config(decoder=True)
    values = {
        name: value
        for name, value in text.to_diff_dict().items()
        if name not in _VOLATILE_FIELDS and value is not None
    }
    values |= {
        name: value for name in _SHAPE_FIELDS if (value := getattr(text, name, None)) is not None
    }
    return Digest.of(canonical_json.dump(_plain(values)))


def rope_json(config: Any) -> str:
    """Canonical JSON of the whole RoPE configuration, with the length that dynamic kinds scale by."""
    text = config.get_text_config(decoder=True)
    names = ("rope_parameters", "max_position_embeddings", "original_max_position_embeddings")
    values = {name: value for name in names if (value := getattr(text, name, None)) is not None}
    return canonical_json.dump(_plain(values)).decode()


def weight_quantisation(config: Any) -> str:
    """`none`, or `sha256:` over the quantisation's configuration."""
    quantisation = getattr(config, "quantization_config", None)
    if quantisation is None:
        return NONE
    values = quantisation if isinstance(quantisation, dict) else quantisation.to_dict()
    return str(Digest.of(canonical_json.dump(_plain(values))))


def tokenizer_hash(tokenizer: Any) -> Digest:
    """SHA-256 over the canonical JSON of the tokenizer without padding and truncation, which use changes.

    Raises:
        UnsupportedError: there is none, or one without a backend that can be written as JSON.
    """
    if tokenizer is None:
        raise UnsupportedError(
            "the model came without its tokenizer, which tells whether a cache fits",
            hint="give tokenizer= beside model=",
        )
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise UnsupportedError(
            "this tokenizer cannot be identified: it has no tokenizers backend",
            hint="load the fast tokenizer (a tokenizer.json)",
        )
    return _tokenizer_json_hash(backend.to_str())


def special_tokens(tokenizer: Any, *, added: bool) -> str:
    """The policy's tag: `bare`, or `added:` and the ids that the tokenizer puts around a text."""
    if not added:
        return "bare"
    return "added:" + ",".join(map(str, tokenizer("", add_special_tokens=True)["input_ids"]))


def active_adapters(model: Any) -> tuple[ActiveAdapter, ...]:
    """The adapters that take part in a forward pass now, in order, each with identity and scale.

    Raises:
        UnsupportedError: the biases of an adapter take part, and the rest of it does not.
    """
    biases = Biases.of(base_of(model))
    names = active_adapter_names(model)
    if biases and biases.adapter not in names:
        raise UnsupportedError(
            "the biases of an adapter are in use, its other tensors are disabled or merged",
            hint="enable it again, or unmount it",
        )
    return tuple(
        ActiveAdapter(
            adapter_identity(adapter_tensors(model, name)), _scale_tag(adapter_scales(model, name))
        )
        for name in names
    )


def active_adapter_names(model: Any) -> tuple[str, ...]:
    """Names of the adapters that take part in a forward pass now; merged ones are weights already."""
    names: dict[str, None] = {}
    for _, layer in tuner_layers(model):
        if getattr(layer, "disable_adapters", False) or getattr(layer, "merged", False):
            continue
        held = _held_adapters(layer)
        names |= dict.fromkeys(name for name in layer.active_adapters if name in held)
    return tuple(names)


def active_adapter_scales(model: Any) -> tuple[tuple[str, str], ...]:
    """As `active_adapter_names`, each with its scale: what changes when somebody switches or weighs them."""
    return tuple(
        (name, _scale_tag(adapter_scales(model, name))) for name in active_adapter_names(model)
    )


def adapter_tensors(model: Any, name: str) -> list[TensorIdentity]:
    """The tensors of the adapter called `name`, under the names that its file has (no prefix)."""
    return injected_tensors(model, name) + _bias_tensors(model, name)


def injected_tensors(model: Any, name: str) -> list[TensorIdentity]:
    """Those tensors of the adapter called `name` that stand beside the model's own, as `adapter_tensors`."""
    base = base_of(model)
    return [
        tensor_identity(f"{path}.{part}", tensor)
        for path, layer in tuner_layers(base)
        for key, tensor in layer.state_dict(keep_vars=True).items()
        if (part := _file_part(key.split("."), name))
    ]


def adapter_scales(model: Any, name: str) -> dict[str, float]:
    """The factor of the adapter called `name` in each module that it changes."""
    base = base_of(model)
    return {
        path: float(layer.scaling[name])
        for path, layer in tuner_layers(base)
        if name in getattr(layer, "scaling", ())
    }


def _bias_tensors(model: Any, name: str) -> list[TensorIdentity]:
    """The biases that go with the adapter called `name`, under the names that its file has."""
    base = base_of(model)
    factors = adapter_scales(base, name)
    return [
        tensor_identity(parametric.bias_name(path, inner=path in factors), tensor)
        for path, tensor in _biases(base, name, factors).items()
    ]


def _biases(base: Any, name: str, factors: Collection[str]) -> dict[str, Any]:
    """Those in the places of the model's own, or that peft has written over these, by path of the module."""
    aside = Biases.of(base)
    if aside and aside.adapter == name:
        return aside.held
    kind = getattr(vars(base).get("peft_config", {}).get(name), "bias", NONE)
    if kind == NONE:
        return {}
    return {
        path: tensor
        for key, tensor in base_state(base).items()
        if (path := key.removesuffix(".bias")) != key and (kind == "all" or path in factors)
    }


def _held_adapters(layer: Any) -> set[str]:
    names = getattr(layer, "adapter_layer_names", ("modules_to_save",))
    return {name for part in names for name in getattr(layer, part, ())}


def _file_part(parts: list[str], adapter: str) -> str | None:
    """What peft calls `lora_A.<adapter>.weight` in a file; None for what is not the adapter's."""
    holder = parts[0]
    if adapter not in parts[1:2] or not (holder.startswith("lora_") or holder == "modules_to_save"):
        return None
    rest = parts[2:]
    if holder == "modules_to_save":
        return ".".join(rest)
    return holder if holder == "lora_magnitude_vector" else ".".join([holder, *rest])


def _scale_tag(scales: dict[str, float]) -> str:
    different = set(scales.values())
    if len(different) == 1:
        return canonical_json.dump(different.pop()).decode()
    return str(Digest.of(canonical_json.dump(scales)))


@lru_cache(maxsize=8)
def _tokenizer_json_hash(text: str) -> Digest:
    """The hash, remembered for the last few: canonical JSON of a large vocabulary takes a second."""
    values = json.loads(text)
    values["padding"] = values["truncation"] = None
    return Digest("sha256", hashlib.sha256(canonical_json.dump(values)).hexdigest())


def _plain(value: Any) -> Any:
    """`value` in types of JSON; what has none is written as text."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)
