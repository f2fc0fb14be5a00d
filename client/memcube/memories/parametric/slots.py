"""Slots: what peft builds for one adapter, kept after the adapter is gone, to be filled again.

Building it takes peft a few hundred milliseconds; pointing a slot at other tensors takes a few. What
peft builds for a module serves every later adapter of that module, whatever its rank, scale and type.
Nothing in a pool refers to the model or holds a tensor, so both are freed when their user lets them go.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from typing import Any, Final, Self

from memcube_protocol.parametric import PEFT_PREFIX, Adapter
from memcube_protocol.values import frozen

_FREE_PARTS: Final = 16
_HALVES: Final = ("lora_A", "lora_B")


@frozen
class Slot:
    """What peft keeps of one adapter in each layer, by module path and then by attribute of the layer."""

    parts: Mapping[str, Mapping[str, Any]]

    @classmethod
    def of(cls, name: str, layers: Mapping[str, Any]) -> Self:
        """The slot that the adapter called `name` fills now; it stays in the `layers`."""
        parts = {}
        for path, layer in layers.items():
            held = ((attribute, getattr(layer, attribute)) for attribute in _attributes(layer))
            parts[path] = {key: values[name] for key, values in held if name in values}
        return cls(parts)

    def fill(
        self, adapter: Adapter, name: str, layers: Mapping[str, Any], state: Mapping[str, Any]
    ) -> None:
        """Put the adapter called `name` with the tensors of `state` into the `layers`."""
        from torch.nn import Parameter

        config = adapter.config
        for module in adapter.modules:
            layer, part = layers[module.path], self.parts[module.path]
            for half in _HALVES:
                tensor = state[f"{module.path}.{half}.weight"]
                # What `part[half].weight = …` comes to, at a tenth of its time.
                part[half]._parameters["weight"] = Parameter(tensor, requires_grad=False)
            if part["lora_A"].out_features != module.rank:
                part["lora_A"].out_features = part["lora_B"].in_features = module.rank
            own = {
                "r": module.rank,
                "lora_alpha": config.alpha_of(module.path),
                "scaling": config.scale_of(module.path),
                "use_rslora": config.rank_stabilised,
            }
            for attribute, value in part.items():
                _held(layer, attribute)[name] = own.get(attribute, value)

    def empty(self, name: str, layers: Iterable[Any]) -> None:
        """Take the adapter called `name` out of the `layers`, and let its tensors go."""
        for layer in layers:
            forget(layer, name)
        for part in self.parts.values():
            for half in _HALVES:
                part[half]._parameters["weight"] = None


class SlotPool:
    """Empty slots of one model, module by module, and peft's layers for its modules, taken off the model."""

    _pools: Final[weakref.WeakKeyDictionary[Any, SlotPool]] = weakref.WeakKeyDictionary()

    def __init__(self) -> None:
        self._patterns: dict[str, Mapping[str, Any]] = {}
        self._free: dict[str, list[Mapping[str, Any]]] = {}
        self._layers: dict[str, Any] = {}

    @classmethod
    def of(cls, base: Any) -> SlotPool:
        """The pool of the model `base`; it lives as long as the model."""
        return cls._pools.setdefault(base, cls())

    def learn(self, slot: Slot) -> None:
        """Remember how peft built `slot`, which is in use."""
        for path, part in slot.parts.items():
            self._patterns.setdefault(path, _without_tensors(part))

    def slot(self, paths: Iterable[str]) -> Slot | None:
        """An empty slot for the modules at `paths`; None if peft has not built for one of them yet."""
        parts = {}
        for path in paths:
            free, pattern = self._free.get(path), self._patterns.get(path)
            if pattern is None:
                return None
            parts[path] = free.pop() if free else _without_tensors(pattern)
        return Slot(parts)

    def keep_slot(self, slot: Slot) -> None:
        """Keep an empty slot, up to a bound."""
        for path, part in slot.parts.items():
            free = self._free.setdefault(path, [])
            if len(free) < _FREE_PARTS and all(part is not other for other in free):
                free.append(part)

    def layer(self, path: str, module: Any) -> Any | None:
        """The kept layer that fits `module` at `path`, around nothing yet; None if there is none."""
        layer = self._layers.get(path)
        shape = (module.in_features, module.out_features)
        fits = layer is not None and (layer.in_features, layer.out_features) == shape
        return layer if fits else None

    def keep_layer(self, path: str, layer: Any) -> None:
        """Keep `layer`, which holds no adapter; see `let_go`."""
        self._layers[path] = layer

    def let_go(self) -> None:
        """Forget the modules that the kept layers were around: they are the model's."""
        for layer in self._layers.values():
            layer._modules["base_layer"] = None
            layer._active_adapter = []


def forget(layer: Any, name: str) -> None:
    """Take all that peft's `layer` keeps of the adapter called `name` out of it."""
    for attribute in (*_attributes(layer), "lora_variant"):
        held = getattr(layer, attribute, {})
        if name in held:
            del held[name]


def is_plain(adapter: Adapter, state: Mapping[str, Any]) -> bool:
    """Whether `adapter` with the tensors of `state` is nothing but two factors for each linear module."""
    import torch

    factors = {
        f"{module.path}.lora_{half}.weight" for module in adapter.modules for half in ("A", "B")
    }
    names = {name.removeprefix(PEFT_PREFIX) for name in state}
    doubles = any(tensor.dtype == torch.float64 for tensor in state.values())
    return not adapter.config.dora and not doubles and factors == names


def is_linear(module: Any) -> bool:
    """Whether `module` is torch's own linear layer with its own weights in memory, not one derived from it."""
    import torch

    if type(module) is not torch.nn.Linear:
        return False
    weight = module._parameters["weight"]
    return type(weight) is torch.nn.Parameter and not weight.is_meta


def is_linear_layer(layer: Any) -> bool:
    """Whether `layer` is peft's layer around such a module."""
    from peft.tuners.lora.layer import Linear

    return type(layer) is Linear and is_linear(layer.base_layer)


def _attributes(layer: Any) -> tuple[str, ...]:
    """The attributes in which peft keeps something for each adapter."""
    names = (*layer.adapter_layer_names, *layer.other_param_names)
    return tuple(name for name in names if hasattr(getattr(layer, name), "keys"))


def _held(layer: Any, attribute: str) -> dict[str, Any]:
    """Where peft's `layer` keeps one thing of each adapter; torch's own way there takes ten times as long."""
    values = vars(layer)
    held = values[attribute] if attribute in values else values["_modules"][attribute]
    return held if isinstance(held, dict) else vars(held)["_modules"]


def _without_tensors(part: Mapping[str, Any]) -> dict[str, Any]:
    """A part of a slot like `part`, sharing no module with it."""
    return {key: _twin(value) for key, value in part.items()}


def _twin(value: Any) -> Any:
    """A copy of a module without its weight; other values as they are."""
    from torch.nn import Module

    if not isinstance(value, Module):
        return value
    kind: Any = type(value)
    twin = kind.__new__(kind)
    vars(twin).update(
        {key: item.copy() if isinstance(item, dict) else item for key, item in vars(value).items()}
    )
    if "weight" in twin._parameters:
        twin._parameters["weight"] = None
    return twin
