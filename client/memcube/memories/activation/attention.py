"""Attention over keys that lie in two places: a memory, and the tokens behind it.

transformers' attention wants all keys in one tensor. To put tokens behind a memory is then to copy it, and under
the mask of several new tokens every key is copied once more for each head of its group. Here the memory
stays where it lies: each part gives an average of its values and the logarithm of the sum of its weights, and
the averages are weighed by these sums, as FlashDecoding does it.

    memory  every token sees all of it: no mask, and the heads of a group are further rows of one head
    behind  under its own part of the mask

The kernel is the one that torch takes on a CPU anyway; the result differs from that of one pass by rounding. What
does not fit (a mask that hides some of the memory, dropout, gradients, …) goes the usual way, as does everything
that has nothing to do with a memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Self

import torch
from torch.utils._pytree import tree_map_only
from transformers import AttentionInterface

NAME: Final = "sdpa"
"""The attention of transformers that `attend` stands before."""

_USUAL: Final = AttentionInterface()[NAME]
_KERNEL: Final = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)
_OTHERWISE: Final = ("position_bias", "cache", "softcap", "output_attentions")
"""What may be asked of attention that only the usual one knows, or refuses."""


def why_copied(model: Any) -> str | None:
    """Why each question copies the memory on a CPU; None where it stays where it lies."""
    kind = getattr(model.config.get_text_config(decoder=True), "_attn_implementation", None)
    if kind != NAME:
        return f"attention {kind!r} wants it in one piece with the question; {NAME!r} does not"
    if _KERNEL is None:
        return "this torch has no attention kernel that gives the sum of its weights"
    return None


def install() -> None:
    """Put `attend` before transformers' attention from now on; it passes on all but `TwoParts`."""
    AttentionInterface.register(NAME, attend)


class TwoParts(torch.Tensor):
    """Keys or values of a memory and of the tokens behind it, as one tensor [batch, heads, tokens, width].

    What is done to it is done to a copy of both in one piece; only `attend` looks at the parts.
    """

    memory: Any
    behind: Any

    def __new__(cls, memory: Any, behind: Any) -> Self:
        """Both as one; a memory of one sequence stands before each of a batch."""
        tokens = memory.shape[-2] + behind.shape[-2]
        made: Self = torch.Tensor._make_wrapper_subclass(
            cls,
            (*behind.shape[:-2], tokens, behind.shape[-1]),
            dtype=behind.dtype,
            device=behind.device,
        )
        made.memory, made.behind = memory.expand(len(behind), -1, -1, -1), behind
        return made

    @classmethod
    def __torch_dispatch__(
        cls, act: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Do `act` to plain tensors."""
        args, kwargs = tree_map_only(cls, cls.joined, (args, kwargs or {}))
        return act(*args, **kwargs)

    def joined(self) -> Any:
        """A copy in one piece."""
        return torch.cat([self.memory, self.behind], dim=-2)


def attend(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    dropout: float = 0.0,
    scaling: float | None = None,
    **more: Any,
) -> tuple[Any, Any]:
    """Attention as transformers asks for it: [batch, tokens, heads, width], and no weights."""
    if not _fits(query, key, value, attention_mask) or dropout or _asks_otherwise(more):
        return _USUAL(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **more
        )
    batch, heads, tokens, width = query.shape
    groups = heads // key.shape[1]
    rows = query.reshape(batch, -1, groups * tokens, width)
    mask = _behind_memory(attention_mask, key, query.dtype, groups)
    assert _KERNEL is not None
    far, far_sum = _KERNEL(rows, key.memory, value.memory, scale=scaling)
    near, near_sum = _KERNEL(rows, key.behind, value.behind, attn_mask=mask, scale=scaling)
    share = torch.sigmoid(near_sum - far_sum)[..., None]
    merged = torch.lerp(far.float(), near.float(), share).to(query.dtype)
    return merged.reshape(query.shape).transpose(1, 2).contiguous(), None


def _fits(query: Any, key: Any, value: Any, mask: Any) -> bool:
    """Whether `key` and `value` are in two parts, and every token of `query` sees all of the memory."""
    if not (isinstance(key, TwoParts) and isinstance(value, TwoParts)) or query.requires_grad:
        return False
    if query.dtype != key.dtype or query.shape[-1] != value.shape[-1]:
        return False
    if mask is None:
        return bool(query.shape[-2] == 1)
    if mask.dtype != torch.bool or mask.shape[1] != 1 or mask.shape[-1] != key.shape[-2]:
        return False
    memory, behind = mask.view(torch.uint8).split([key.memory.shape[-2], key.behind.shape[-2]], -1)
    # `amin` takes a tenth of the time of `all`. A row without any weight has no logarithm of their sum.
    return bool(memory.amin()) and bool(behind.amax(-1).amin())


def _asks_otherwise(more: dict[str, Any]) -> bool:
    return any(more.get(name) is not None and more[name] is not False for name in _OTHERWISE)


def _behind_memory(mask: Any, key: Any, dtype: Any, groups: int) -> Any:
    """The part of `mask` that is for the tokens behind the memory, as what is added to their weights."""
    if mask is None:
        return None
    hidden = ~mask[..., key.memory.shape[-2] :]
    added = torch.zeros((), dtype=dtype, device=mask.device).masked_fill(hidden, float("-inf"))
    return added.repeat(1, 1, groups, 1)
