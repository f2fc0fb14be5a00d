"""Keys moved to other positions: the rotary embedding turned on by an offset, tried out on the very model.

A rotation by a + b is one by a and then by b, so keys taken at position 0 become those of position `offset` by
one more rotation, in 32-bit floating point. Values know no position.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from memcube_protocol.errors import UnsupportedError

from memcube.memories.activation.capture import captured
from memcube.memories.activation.recompute import ROUNDING
from memcube.memories.model_identity import dtype_name

FIXED_KINDS: Final = frozenset({"default", "linear", "llama3", "yarn"})
"""RoPE kinds whose frequencies do not depend on how long the text is."""
_TRIAL_TOKENS: Final = 8


@dataclass(frozen=True, slots=True, eq=False)
class Rotation:
    """Cosine and sine, [width], of one offset in one layer; elements beyond `width` are not rotated."""

    cos: Any
    sin: Any

    def __call__(self, keys: Any) -> Any:
        """`keys` [1, heads, tokens, width] moved on by the offset, in their own element type."""
        import torch

        width = self.cos.shape[-1]
        turned, rest = keys[..., :width].float(), keys[..., width:]
        first, second = turned.chunk(2, dim=-1)
        moved = turned * self.cos + torch.cat((-second, first), dim=-1) * self.sin
        return torch.cat((moved.to(keys.dtype), rest), dim=-1)


def rotations(model: Any, offset: int) -> tuple[Rotation, ...]:
    """What moves the keys of each layer of `model` on by `offset` positions.

    Raises:
        UnsupportedError: it has no rotary embedding, or one that changes with the length of the text.
    """
    config = model.config.get_text_config(decoder=True)
    kinds = getattr(config, "layer_types", None) or [""] * config.num_hidden_layers
    _require_fixed(config)
    rotary = getattr(model.get_decoder(), "rotary_emb", None)
    if rotary is None:
        raise _not_movable("it has no rotary position embedding that memcube knows")
    by_kind = {kind: _rotation(rotary, kind, offset, model.device) for kind in dict.fromkeys(kinds)}
    return tuple(by_kind[kind] for kind in kinds)


def require_movable(model: Any, ids: Sequence[int], offset: int) -> None:
    """Refuse a model whose keys do not move as `rotations` says: a few of `ids` are computed at both places.

    Raises:
        UnsupportedError: they differ by more than rounding.
    """
    tried = list(ids[:_TRIAL_TOKENS])
    here, there = (_keys_at(model, tried, position) for position in (0, offset))
    tolerance = ROUNDING.get(dtype_name(model.dtype), ROUNDING["BF16"])
    for turn, start, wanted in zip(rotations(model, offset), here, there, strict=True):
        away = (turn(start).float() - wanted.float()).norm() / wanted.float().norm()
        if not away <= tolerance:
            raise _not_movable(f"moved keys differ by {float(away):.2g} from computed ones")


def _keys_at(model: Any, ids: Sequence[int], position: int) -> list[Any]:
    import torch
    from transformers import DynamicCache

    cache = DynamicCache()
    with torch.inference_mode():
        model(
            input_ids=torch.tensor([list(ids)], device=model.device),
            position_ids=torch.arange(position, position + len(ids), device=model.device)[None],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
    return [view.keys for view in captured(cache, len(ids))]


def _rotation(rotary: Any, kind: str, offset: int, device: Any) -> Rotation:
    import torch

    sample = torch.empty(0, dtype=torch.float32, device=device)
    at = torch.tensor([[offset]], device=device)
    named = "layer_type" in inspect.signature(rotary.forward).parameters
    cos, sin = rotary(sample, at, kind) if named else rotary(sample, at)
    length = (cos.square() + sin.square()).sqrt()  # some kinds scale both: keys are scaled already
    return Rotation((cos / length)[0, 0], (sin / length)[0, 0])


def _require_fixed(config: Any) -> None:
    parameters = getattr(config, "rope_parameters", None)
    if not isinstance(parameters, Mapping):
        raise _not_movable("its configuration names no rotary position embedding")
    nested = [each for each in parameters.values() if isinstance(each, Mapping)]
    for each in nested or [parameters]:
        if (kind := each.get("rope_type", "default")) not in FIXED_KINDS:
            raise _not_movable(f"its rotary position embedding of kind {kind!r} is not a fixed one")


def _not_movable(why: str) -> UnsupportedError:
    return UnsupportedError(
        f"the keys of this model cannot be moved to other positions: {why}",
        hint="mount one memory, and give the others as text",
    )
