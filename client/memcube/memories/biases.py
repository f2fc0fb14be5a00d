"""Whose biases a model computes with: its own, or those of an adapter in their places.

peft writes the biases of an adapter over those of the model, and nothing brings the model's back. Here
its own parameters step aside, untouched, and others take their places until they return: what the
model is told by (its identity) are the ones that stepped aside.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Self

from memcube_protocol.errors import UnsupportedError
from memcube_protocol.tensors import Rejection, rejected

_ATTRIBUTE: Final = "_memcube_biases"


class Biases:
    """The biases of one adapter on the model `base`, and the model's own beside; kept with it while there are some."""

    def __init__(self, base: Any) -> None:
        self._base = base
        self._places: dict[str, tuple[Any, Any]] = {}
        self.adapter: str | None = None

    @classmethod
    def of(cls, base: Any) -> Self | None:
        """Those on the model `base`; None while it computes with its own."""
        held: Any = vars(base).get(_ATTRIBUTE)
        return held if isinstance(held, cls) else None

    @property
    def own(self) -> dict[str, Any]:
        """The model's own parameters that have stepped aside, by path of the module."""
        return {path: own for path, (_, own) in self._places.items()}

    @property
    def held(self) -> dict[str, Any]:
        """What stands in their places, by path of the module."""
        return {path: module._parameters["bias"] for path, (module, _) in self._places.items()}

    def put(self, adapter: str, places: Mapping[str, tuple[Any, Any]]) -> None:
        """Have `adapter` in use: for each path, a parameter in the place of the bias of a module.

        Where this is interrupted, `put_back` does all that is left to do.
        """
        if adapter == self.adapter:
            return
        self.put_back()
        vars(self._base)[_ATTRIBUTE] = self
        for path, (module, bias) in places.items():
            self._places[path] = module, module._parameters["bias"]
            _exchange(module, bias)
        self.adapter = adapter

    def put_back(self) -> None:
        """Have the model's own biases in their places, if they are not."""
        self.adapter = None
        for path, (module, own) in [*self._places.items()]:
            _exchange(module, own)
            del self._places[path]
        vars(self._base).pop(_ATTRIBUTE, None)


def own_biases(base: Any) -> Mapping[str, Any]:
    """The parameters of the model `base` that have stepped aside, by path of the module."""
    biases = Biases.of(base)
    return biases.own if biases else {}


def stand_in(own: Any, tensor: Any, path: str) -> Any:
    """A parameter with the values of `tensor` for the place of `own`: of its type, rounded as peft does.

    Raises:
        InvalidTensorsError: a value that the type of `own` does not hold.
        UnsupportedError: `own` is no plain parameter in memory.
    """
    import torch

    if type(own) is not torch.nn.Parameter or own.is_meta:
        raise UnsupportedError(
            f"the bias of {path[:200]} is sharded, offloaded or of a type of its own",
            hint="load the whole model, with nothing offloaded to a disk",
        )
    values = tensor.to(own.device, own.dtype, copy=True)
    if not torch.isfinite(values).all():
        raise rejected(
            Rejection.NOT_FINITE, f"the bias of {path[:200]} is too large for {own.dtype}"
        )
    return torch.nn.Parameter(values, requires_grad=False)


def _exchange(module: Any, bias: Any) -> None:
    """Put `bias` in the place of the one that `module` has, wherever the model was moved to meanwhile."""
    held = module._parameters["bias"]
    if (bias.device, bias.dtype) != (held.device, held.dtype):
        bias.data = bias.data.to(held.device, held.dtype)
    module._parameters["bias"] = bias
