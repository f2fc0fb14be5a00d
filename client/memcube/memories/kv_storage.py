"""How keys and values are stored: as they are, or in eight bits with a scale a row (docs/spec/activation.md)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from memcube_protocol.activation import scale_of
from memcube_protocol.compatibility import INT8
from memcube_protocol.tensors import Rejection, rejected

_LARGEST: Final = 127


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
    return torch.mul(numbers, scales.unsqueeze(-1), out=target)


def require_scales(scales: Any) -> None:
    """Refuse scales (a NumPy array) that no writer makes.

    Raises:
        InvalidTensorsError: one is negative or not finite.
    """
    import numpy as np

    if not (np.isfinite(scales).all() and (scales >= 0).all()):
        raise rejected(Rejection.UNEXPECTED, "a scale of the cache is negative or not finite")
