"""The identity of a loaded model, hashed once and known until its weights change.

Hashing a model of 16 GB takes seconds, mounting a memory on it milliseconds. What is known belongs
to the model object, and to how its tensors look now: where they lie, their shapes, the counters that
torch raises when it writes into them, and a few values of each. A change in place that passes by the
counters (through `.data`) *and* misses those values goes unseen: `live_identity` always hashes.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any, Final

from memcube_protocol.errors import UnsupportedError
from memcube_protocol.identity import BaseIdentity

from memcube.memories.biases import own_biases
from memcube.memories.model_identity import base_of, live_identity, tuner_classes, uncompiled

_SAMPLES: Final = 16
"""Values of each tensor that are compared, evenly spread over it."""
_KNOWN: Final[weakref.WeakKeyDictionary[Any, tuple[object, BaseIdentity]]] = (
    weakref.WeakKeyDictionary()
)


def known_identity(model: Any) -> BaseIdentity:
    """The identity of `model` without its adapters; hashed anew only if its weights look different."""
    base = base_of(uncompiled(model))
    try:
        looks = _looks(base)
    except (RuntimeError, TypeError):  # tensors of a kind of their own, which show no memory
        return live_identity(base)
    known = _KNOWN.get(base)
    if known is not None and known[0] == looks:
        return known[1]
    identity = live_identity(base)
    _KNOWN[base] = looks, identity
    return identity


def _looks(base: Any) -> object:
    """What tells the weights of `base` from others, short of reading all of them."""
    import torch

    places = []
    samples: dict[Any, list[Any]] = {}
    for name, tensor in _weights(base):
        places.append((name, tensor.data_ptr(), tensor.shape, tensor.dtype, _writes(tensor)))
        count = tensor.numel()
        if count and not tensor.is_meta:
            flat = tensor.detach() if tensor.is_contiguous() else tensor.detach().reshape(-1)
            picked = flat.as_strided((min(count, _SAMPLES),), (max(1, count // _SAMPLES),))
            samples.setdefault(tensor.device, []).append(picked.clone().view(torch.uint8))
    values = [torch.cat(picked).cpu().numpy().tobytes() for picked in samples.values()]
    return places, values


def _weights(base: Any) -> Iterator[tuple[str, Any]]:
    """The weights of `base` by name, as if no adapter were on it; what `state_dict` lists."""
    tuned, aside = tuner_classes(), {f".{path}.bias": own for path, own in own_biases(base).items()}
    pending: list[tuple[str, Any]] = [("", base)]
    while pending:
        path, module = pending.pop()
        if isinstance(module, tuned):
            held = module._modules
            inner = held.get("base_layer", held.get("original_module"))
            if inner is None:
                raise UnsupportedError(
                    f"weights under peft's {type(module).__name__} cannot be told from the adapter's",
                    hint="train the adapter without trainable_token_indices",
                )
            pending.append((path, inner))
            continue
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None and name not in module._non_persistent_buffers_set:
                yield f"{path}.{name}", aside.get(f"{path}.{name}", tensor)
        pending += [
            (f"{path}.{n}", child) for n, child in module._modules.items() if child is not None
        ]


def _writes(tensor: Any) -> int:
    """How often torch has written into `tensor`; tensors made for inference do not count."""
    return -1 if tensor.is_inference() else tensor._version
