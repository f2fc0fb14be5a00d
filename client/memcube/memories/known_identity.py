"""The identity of a loaded model, hashed once and known until its weights change.

Hashing a model of 16 GB takes seconds, mounting a memory on it milliseconds. What is known belongs
to the model object, and to how its tensors look now: where they lie, their shapes, the counters that
torch raises when it writes into them, and a few values of each. A change in place that passes by the
counters (through `.data`) *and* misses those values goes unseen: `live_identity` always hashes.
"""

from __future__ import annotations

import weakref
from typing import Any, Final

from memcube_protocol.identity import BaseIdentity

from memcube.memories.model_identity import base_state, live_identity

_SAMPLES: Final = 16
"""Values of each tensor that are compared, evenly spread over it."""
_KNOWN: Final[weakref.WeakKeyDictionary[Any, tuple[object, BaseIdentity]]] = (
    weakref.WeakKeyDictionary()
)


def known_identity(model: Any) -> BaseIdentity:
    """The identity of `model` without its adapters; hashed anew only if its weights look different."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    looks = _looks(base)
    known = _KNOWN.get(base)
    if known is not None and known[0] == looks:
        return known[1]
    identity = live_identity(base)
    _KNOWN[base] = looks, identity
    return identity


def _looks(base: Any) -> object:
    """What tells the weights of `base` from others, short of reading all of them."""
    import torch

    tensors = base_state(base)
    places = [
        (name, tensor.data_ptr(), tuple(tensor.shape), tensor.dtype, _writes(tensor))
        for name, tensor in tensors.items()
    ]
    samples: dict[Any, list[Any]] = {}
    for tensor in tensors.values():
        if tensor.numel() and not tensor.is_meta:
            flat = tensor.detach().reshape(-1)
            picked = flat[:: max(1, flat.numel() // _SAMPLES)][: _SAMPLES + 1]
            samples.setdefault(tensor.device, []).append(picked.float())
    values = [torch.cat(picked).cpu().numpy().tobytes() for picked in samples.values()]
    return places, values


def _writes(tensor: Any) -> int:
    """How often torch has written into `tensor`; tensors made for inference do not count."""
    return -1 if tensor.is_inference() else tensor._version
