"""How keys and values are stored: as they are, or in eight bits with a scale a row (docs/spec/activation.md)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from memcube_protocol import limits
from memcube_protocol.activation import scale_of
from memcube_protocol.compatibility import INT8
from memcube_protocol.tensors import Rejection, rejected

_LARGEST: Final = 127
_LARGEST_VALUE: Final = {"F16": 65504.0}
_SLACK: Final = 1.0001
"""A scale is rounded: times 127 it may be a little more than the largest value."""
_BITS: Final = {
    "F8_E4M3": ("u1", 0x7F, 0x7F),
    "F8_E5M2": ("u1", 0x7F, 0x7C),
    "F16": ("<u2", 0x7FFF, 0x7C00),
    "BF16": ("<u2", 0x7FFF, 0x4780),
    "F32": ("<u4", 0x7FFF_FFFF, 0x4780_0000),
    "F64": ("<u8", 0x7FFF_FFFF_FFFF_FFFF, 0x40F0_0000_0000_0000),
}
"""Per element type: its bits as a number, all but the sign, and those of the first value that is refused.

That is `limits.MAGNITUDE`, or where the type ends before, infinity or NaN. Larger values have larger bits.
"""
_PORTION: Final = 1 << 16
"""Numbers looked at together: they stay in the processor's cache."""
_DECODED: Final = 1 << 18
"""Numbers decoded together on a CPU, whose float32 torch keeps in memory: an eighth of the time of all at once."""


def stored(name: str, tensor: Any, quantisation: str) -> Iterator[tuple[str, Any]]:
    """The tensors that stand in the file for `tensor` [tokens, heads, width], in their order."""
    if quantisation != INT8:
        yield name, tensor
        return
    numbers, scales = quantise(tensor)
    yield name, numbers
    yield scale_of(name), scales


def quantise(tensor: Any) -> tuple[Any, Any]:
    """`tensor` [..., width] as int8 of that shape and float32 scales [...]: one a row.

    A row of zeros has scale 0. The error is at most half a step, 1/254 of the row's largest value.
    """
    import torch

    rows = tensor.float()
    scales = rows.abs().amax(dim=-1) / _LARGEST
    steps = torch.where(scales == 0, 1, scales).unsqueeze(-1)
    numbers = (rows / steps).round().clamp(-_LARGEST, _LARGEST)
    return numbers.to(torch.int8), scales


def dequantise(numbers: Any, scales: Any, dtype: Any, *, out: Any = None) -> Any:
    """Numbers [..., width] times scales [...], in float32, rounded to `dtype`; into `out` if given."""
    import torch

    target = torch.empty(numbers.shape, dtype=dtype, device=numbers.device) if out is None else out
    steps = scales.unsqueeze(-1)
    count = len(numbers)
    if numbers.device.type == "cpu" and numbers.numel() > _DECODED:
        count = max(1, _DECODED * count // numbers.numel())
    parts = (each.split(count) for each in (numbers, steps, target))
    for some, step, into in zip(*parts, strict=True):
        torch.mul(some, step, out=into)
    return target


def require_scales(scales: Any, dtype: str) -> None:
    """Refuse scales (a NumPy array) that no writer of values of type `dtype` makes.

    Raises:
        InvalidTensorsError: one is negative, not finite, or leads to values beyond the type's.
    """
    import numpy as np

    largest = _LARGEST_VALUE.get(dtype, limits.MAGNITUDE) / _LARGEST * _SLACK
    if not (np.isfinite(scales).all() and (scales >= 0).all() and (scales <= largest).all()):
        raise rejected(
            Rejection.UNEXPECTED, "a scale of the cache is negative, too large or not finite"
        )


def require_bounded(content: memoryview, name: str, dtype: str) -> None:
    """Refuse NaN, infinity and what no cache holds in `content`, elements of type `dtype` of the tensor `name`.

    Raises:
        InvalidTensorsError: there is one.
    """
    import numpy as np

    if dtype not in _BITS:
        return
    kind, mask, limit = _BITS[dtype]
    numbers = np.frombuffer(content, kind)
    for at in range(0, len(numbers), _PORTION):
        if (numbers[at : at + _PORTION] & numbers.dtype.type(mask)).max() >= limit:
            raise rejected(
                Rejection.NOT_FINITE,
                f"{name} of the cache holds NaN, infinity or a number beyond {limits.MAGNITUDE}",
            )
