"""Keys and values of a live cache, one for every token, or why it cannot give them.

DynamicLayer, StaticLayer                  every token
DynamicSlidingWindowLayer, StaticSliding…  every token as long as the window has not moved on
a mounted memory that went on              as the layer that it stands for
quantised, indexed, linear attention, …    refused
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memcube_protocol.errors import InvalidConfigError, UnsupportedError

if TYPE_CHECKING:
    from memcube.memories.activation.layers import LayerView


def captured(cache: Any, tokens: int) -> tuple[LayerView, ...]:
    """Keys and values of every layer of `cache`, which has seen exactly `tokens` tokens.

    Raises:
        InvalidConfigError: it has seen another number of tokens, or holds several sequences.
        UnsupportedError: a layer has dropped tokens, or keeps something else.
    """
    layers = getattr(cache, "layers", None)
    if not layers:
        raise no_kv(cache)
    return tuple(_captured(layer, position, tokens) for position, layer in enumerate(layers))


def attention_layers(model: Any) -> int:
    """How many layers of `model` keep keys and values.

    Raises:
        UnsupportedError: one keeps a state that cannot be cut or laid out by token.
    """
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

    layers = DynamicCache(config=model.config).layers
    for layer in layers:
        if type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer):
            raise no_kv(layer)
    return len(layers)


def no_kv(layer: Any) -> UnsupportedError:
    """The refusal of a layer that keeps a state which cannot be cut by token."""
    return UnsupportedError(
        f"a {type(layer).__name__} of this model keeps no key and value for every token",
        hint="use the cube's text for this model: only attention layers can be dumped and mounted",
    )


def _captured(layer: Any, position: int, tokens: int) -> LayerView:
    from memcube.memories.activation.layers import LayerView

    _require_kept(layer)
    seen = int(layer.get_seq_length()) if layer.is_initialized else 0
    if seen != tokens:
        raise InvalidConfigError(
            f"layer {position} of the cache has seen {seen} tokens, {tokens} ids were given",
            hint="give the ids of all tokens that went through the model: of those that generate() "
            "returns the last one did not",
        )
    keys, values = layer.keys[:, :, :tokens], layer.values[:, :, :tokens]
    if keys.shape[-2] < tokens:
        raise UnsupportedError(
            f"layer {position} attends to a window and has dropped {tokens - keys.shape[-2]} of {tokens} "
            "tokens",
            hint="dump from the text or the ids: they are computed anew, and every token is kept",
        )
    if keys.shape[0] != 1:
        raise InvalidConfigError(
            f"the cache holds {keys.shape[0]} sequences",
            hint="take one out with cache.batch_select_indices",
        )
    return LayerView(keys, values)


def _require_kept(layer: Any) -> None:
    """Refuse layers of other classes than those that are known to hold plain keys and values."""
    from transformers import cache_utils

    from memcube.memories.activation.layers import LyingMemoryLayer, MemoryLayer, MemoryWindowLayer

    kept = (
        cache_utils.DynamicLayer,
        cache_utils.DynamicSlidingWindowLayer,
        cache_utils.StaticLayer,
        cache_utils.StaticSlidingWindowLayer,
        MemoryLayer,
        LyingMemoryLayer,
        MemoryWindowLayer,
    )
    if type(layer) in kept:
        return
    name = type(layer).__name__
    if "Quantized" in name:
        raise UnsupportedError(
            f"a {name} keeps rounded keys and values: a memory of them would equal no other",
            hint="dump from a DynamicCache; storage='int8-token' makes the file small",
        )
    raise no_kv(layer)
