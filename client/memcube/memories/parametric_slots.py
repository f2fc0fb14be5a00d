"""Slots: what peft builds for one adapter, kept after the adapter is gone, to be filled again.

Building it takes peft a few hundred milliseconds; pointing a slot at other tensors takes a few. A slot
fits every adapter with the same rank in the same modules. Nothing in a pool refers to the model or
holds a tensor, so both are freed when their user lets them go.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from memcube_protocol.parametric import Adapter

Ranks = tuple[tuple[str, int], ...]
"""The rank of each module that an adapter changes, by full path: what has to be equal."""

_FREE_SLOTS: Final = 16
_HALVES: Final = ("lora_A", "lora_B")


@dataclass(frozen=True, slots=True)
class Slot:
    """What peft keeps of one adapter in each layer, by module path and then by attribute of the layer."""

    ranks: Ranks
    parts: Mapping[str, Mapping[str, Any]]

    @classmethod
    def of(cls, adapter: Adapter, name: str, layers: Mapping[str, Any]) -> Self:
        """The slot that the adapter called `name` fills now; it stays in the `layers`."""
        parts = {}
        for path, layer in layers.items():
            held = ((attribute, getattr(layer, attribute)) for attribute in _attributes(layer))
            parts[path] = {key: values[name] for key, values in held if name in values}
        return cls(ranks_of(adapter), parts)

    def fill(
        self, adapter: Adapter, name: str, layers: Mapping[str, Any], state: Mapping[str, Any]
    ) -> None:
        """Put the adapter called `name` with the tensors of `state` into the `layers`."""
        from torch.nn import Parameter

        config = adapter.config
        for path, layer in layers.items():
            part = self.parts[path]
            for half in _HALVES:
                tensor = state[f"{path}.{half}.weight"]
                part[half].weight = Parameter(tensor, requires_grad=False)
            for attribute, value in part.items():
                getattr(layer, attribute)[name] = value
            layer.lora_alpha[name] = config.alpha_of(path)
            layer.use_rslora[name] = config.rank_stabilised
            layer.set_scale(name, 1.0)

    def empty(self, name: str, layers: Iterable[Any]) -> None:
        """Take the adapter called `name` out of the `layers`, and let its tensors go."""
        for layer in layers:
            forget(layer, name)
        for part in self.parts.values():
            for half in _HALVES:
                part[half].weight = None

    def another(self) -> Self:
        """An empty slot like this one, which may be in use."""
        parts = {
            path: {key: _without_tensors(value) for key, value in part.items()}
            for path, part in self.parts.items()
        }
        return type(self)(self.ranks, parts)


class SlotPool:
    """The empty slots of one model, and peft's layers for its modules, taken off the model."""

    _pools: Final[weakref.WeakKeyDictionary[Any, SlotPool]] = weakref.WeakKeyDictionary()

    def __init__(self) -> None:
        self._slots: list[Slot] = []
        self._layers: dict[str, Any] = {}

    @classmethod
    def of(cls, base: Any) -> SlotPool:
        """The pool of the model `base`; it lives as long as the model."""
        return cls._pools.setdefault(base, cls())

    def take_slot(self, ranks: Ranks) -> Slot | None:
        """An empty slot for adapters of these `ranks`, if one was kept."""
        for slot in self._slots:
            if slot.ranks == ranks:
                self._slots.remove(slot)
                return slot
        return None

    def keep_slot(self, slot: Slot) -> None:
        """Keep an empty slot; the oldest of many goes."""
        self._slots.append(slot)
        del self._slots[:-_FREE_SLOTS]

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
            layer.base_layer = None
            layer._active_adapter = []


def forget(layer: Any, name: str) -> None:
    """Take all that peft's `layer` keeps of the adapter called `name` out of it."""
    for attribute in (*_attributes(layer), "lora_variant"):
        held = getattr(layer, attribute, {})
        if name in held:
            del held[name]


def ranks_of(adapter: Adapter) -> Ranks:
    """What decides which slots fit `adapter`."""
    return tuple((module.path, module.rank) for module in adapter.modules)


def is_plain(adapter: Adapter, state: Mapping[str, Any]) -> bool:
    """Whether `adapter` is nothing but two factors for each module; the tensors are without prefix."""
    factors = {
        f"{module.path}.lora_{half}.weight" for module in adapter.modules for half in ("A", "B")
    }
    return not adapter.config.dora and factors == state.keys()


def is_linear(module: Any) -> bool:
    """Whether `module` is torch's own linear layer with its own weights in memory, not one derived from it."""
    import torch

    if type(module) is not torch.nn.Linear:
        return False
    return type(module.weight) is torch.nn.Parameter and not module.weight.is_meta


def is_linear_layer(layer: Any) -> bool:
    """Whether `layer` is peft's layer around such a module."""
    from peft.tuners.lora.layer import Linear

    return type(layer) is Linear and is_linear(layer.base_layer)


def _attributes(layer: Any) -> tuple[str, ...]:
    """The attributes in which peft keeps something for each adapter."""
    names = (*layer.adapter_layer_names, *layer.other_param_names)
    return tuple(name for name in names if hasattr(getattr(layer, name), "keys"))


def _without_tensors(value: Any) -> Any:
    """A copy of a module of a slot that shares nothing with it; other values as they are."""
    from torch.nn import Module

    if not isinstance(value, Module):
        return value
    twin = type(value).__new__(type(value))
    vars(twin).update(
        {key: item.copy() if isinstance(item, dict) else item for key, item in vars(value).items()}
    )
    if "weight" in twin._parameters:
        twin.weight = None
    return twin
