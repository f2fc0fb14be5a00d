"""The adapters that memcube has put on one model, and the way back to the model as it was."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Self

from memcube_protocol.errors import ConflictError, InvalidError, NotFoundError, UnsupportedError
from memcube_protocol.parametric import PEFT_PREFIX, Adapter

from memcube.memories.biases import Biases, stand_in
from memcube.memories.model_identity import base_of, without_tuner
from memcube.memories.parametric.slots import (
    Slot,
    SlotPool,
    forget,
    is_linear,
    is_linear_layer,
    is_plain,
)

_ATTRIBUTE: Final = "_memcube_adapter_stack"
_ABSENT: Final = object()
_NOBODY: Final = "memcube_nobody"
_PEFT_ASKS_OLD_NAME: Final = "`is_gradient_checkpointing` is deprecated"
"""What transformers says to peft, not to our user."""


class AdapterStack:
    """Mounts adapters on a model, switches between them and takes them off in any order.

    What was there before the first mount is remembered by reference: modules, gradient and
    training flags, active adapters. When the last one goes, all of it is put back.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self._base: Any = base_of(model)
        self._before = _Snapshot(self._base, model)
        self._given = model is not self._base
        self._peft: Any = model if self._given else None
        self._active: list[str] = list(model.active_adapters) if self._given else []
        self._saves_modules = self._given and any(
            getattr(config, "modules_to_save", None) for config in model.peft_config.values()
        )
        self._has_biases = self._given and any(
            getattr(config, "bias", "none") != "none" for config in model.peft_config.values()
        )
        self._biases = Biases(self._base)
        self._stand_ins: dict[str, dict[str, tuple[Any, Any]]] = {}
        self._pool = SlotPool.of(self._base)
        self._adapters: dict[str, Adapter] = {}
        self._configs: dict[str, Callable[[], Any]] = {}
        self._slots: dict[str, Slot] = {}
        self._gates: dict[str, float] = {}
        if not self._given and "peft_config" in vars(self._base):
            raise UnsupportedError(
                "this model carries adapters that were put on it without a PeftModel",
                hint="pass the PeftModel itself, or load the adapters through peft",
            )

    @classmethod
    def of(cls, model: Any) -> Self:
        """The stack of `model`, kept with the base model while something is mounted."""
        stack: Any = vars(base_of(model)).get(_ATTRIBUTE)
        return stack if isinstance(stack, cls) else cls(model)

    @property
    def modules(self) -> Mapping[str, Any]:
        """The modules of the base model by path, as they were before the first mount."""
        return self._before.modules

    @property
    def gates(self) -> dict[str, float]:
        """The mounted adapters that take part in a forward pass, each with the factor on its effect."""
        return dict(self._gates)

    def require_free(self, name: str, adapter: Adapter) -> None:
        """Refuse the `name` of an adapter that is mounted, and biases whose places are taken.

        Raises:
            ConflictError: it is, or another adapter with biases is in use.
        """
        if name in self._adapters:
            raise ConflictError("this adapter is mounted already", hint="unmount it first")
        self._require_one_with_biases([*(self._adapters[gate] for gate in self._gates), adapter])

    def mount(
        self,
        name: str,
        adapter: Adapter,
        state: Mapping[str, Any],
        config: Callable[[], Any],
        biases: Mapping[str, Any],
    ) -> bool:
        """Put `adapter` with the tensors of `state` on the model, and make it active; True if in a slot.

        `config` gives peft's own, where peft has to build what no kept slot fits; `biases` are those
        for the places of the model's own. Where the model's own type is another than that of
        `state`, what is narrower than float32 becomes float32.

        Raises:
            ConflictError: it is mounted already, or another adapter with biases is in use.
            InvalidTensorsError, UnsupportedError: see `stand_in`.
        """
        self.require_free(name, adapter)
        widen = {tensor.dtype for tensor in state.values()} != {self.model.dtype}
        stand_ins = {path: self._stand_in(path, bias) for path, bias in biases.items()}
        try:
            vars(self._base)[_ATTRIBUTE] = self
            self._stand_ins[name] = stand_ins
            self._adapters[name], self._configs[name] = adapter, config
            in_slot = self._fill(name, adapter, state, widen=widen)
            if not in_slot:
                self._build(name, adapter, state, widen=widen)
            self._gates[name] = 1.0
            self._activate()
        except BaseException:
            self.unmount(name)
            raise
        return in_slot

    def unmount(self, name: str) -> None:
        """Take the adapter `name` off, if it is on; the last one leaves the model as it was before the first."""
        try:
            self._take_off(name)
        except KeyboardInterrupt:
            self._take_off(name)  # each step can be done twice; half a model is no use to anybody
            raise

    def _take_off(self, name: str) -> None:
        self._gates.pop(name, None)
        self._place_biases()
        self._stand_ins.pop(name, None)
        slot = self._slots.get(name)
        last = not self._adapters.keys() - {name}
        if slot:
            slot.empty(name, self._tuned(slot.parts))
            self._pool.keep_slot(slot)
            del self._slots[name]
        elif self._given or not last:
            self._delete(name)
        if self._peft:
            self._peft.peft_config.pop(name, None)
        elif not self._given:  # peft was interrupted
            vars(self._base).pop("peft_config", None)
        self._adapters.pop(name, None)
        self._configs.pop(name, None)
        if last:
            self._restore()
        else:
            self._activate()
            self._before.restore_trainable()

    def switch(self, gates: Mapping[str, float]) -> None:
        """Activate exactly these mounted adapters, each with this factor on its effect.

        Adapters that the user had put on the model before stay as they are.

        Raises:
            NotFoundError: one of them is not mounted.
            InvalidError: a factor is not finite.
            UnsupportedError: a factor on an adapter that is more than two factors a module.
            ConflictError: more than one has biases.
        """
        for name, gate in gates.items():
            if name not in self._adapters:
                raise NotFoundError(f"no adapter {name} is mounted", hint="mount it first")
            if not math.isfinite(gate):
                raise InvalidError(f"{gate} is no factor", hint="use a finite number")
            if gate != 1.0 and not self._adapters[name].is_additive:
                raise UnsupportedError(
                    "an adapter with DoRA, biases or modules of its own has no effect that can be scaled",
                    hint="use it whole, or not at all",
                )
        self._require_one_with_biases(self._adapters[name] for name in gates)
        before = self._gates
        try:
            self._set_gates(dict(gates))
        except BaseException:
            self._set_gates(before)
            raise

    def _set_gates(self, gates: dict[str, float]) -> None:
        changed = {name for name, gate in gates.items() if self._gates.get(name) != gate}
        self._gates = gates
        for name in changed:
            adapter = self._adapters[name]
            for module in adapter.modules:
                scale = adapter.config.scale_of(module.path)
                self._live(module.path).scaling[name] = gates[name] * scale
        self._activate()

    def _fill(self, name: str, adapter: Adapter, state: Mapping[str, Any], *, widen: bool) -> bool:
        """Put the adapter into a kept slot, if there is one that fits it and the model."""
        if self._given or not is_plain(adapter, state):
            return False
        layers = self._linear_layers(adapter)
        if layers is None:
            return False
        slot = self._pool.slot(layers)
        if slot is None:
            return False
        self._slots[name] = slot
        for path, layer in layers.items():
            self._place(path, layer)
        slot.fill(adapter, name, layers, _placed(state, layers, widen=widen))
        if self._before.was_training:
            self._base.eval()
        return True

    def _linear_layers(self, adapter: Adapter) -> dict[str, Any] | None:
        """The layer of peft for each module of `adapter`, in place or kept; None if one is missing or other."""
        layers = {}
        for module in adapter.modules:
            live = self._live(module.path)
            layer = self._pool.layer(module.path, live) if is_linear(live) else live
            if layer is None or (layer is live and not is_linear_layer(layer)):
                return None
            layers[module.path] = layer
        return layers

    def _build(self, name: str, adapter: Adapter, state: Mapping[str, Any], *, widen: bool) -> None:
        """Have peft put the adapter on; what it builds for a plain one is kept as a slot later."""
        from peft import set_peft_model_state_dict

        with _refusals_of_peft():
            self._add(name, widen=widen)
            set_peft_model_state_dict(
                self._peft, dict(state), adapter_name=name, low_cpu_mem_usage=not widen
            )
            names = [*self._active, *self._gates, name]
            self._peft.base_model.set_adapter(names, inference_mode=True)
        self._before.restore_trainable()
        layers = self._linear_layers(adapter)
        if not self._given and layers is not None and is_plain(adapter, state):
            self._slots[name] = Slot.of(name, layers)
            self._pool.learn(self._slots[name])

    def _add(self, name: str, *, widen: bool) -> None:
        from peft import PeftModel

        config = self._configs[name]()
        options = {"low_cpu_mem_usage": not widen, "autocast_adapter_dtype": widen}
        if self._peft is None:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", _PEFT_ASKS_OLD_NAME, FutureWarning)
                self._peft = PeftModel(self._base, config, adapter_name=name, **options)
        else:
            for other in self._slots.keys() - self._peft.peft_config.keys():
                self._peft.peft_config[other] = self._configs[other]()
            self._peft.add_adapter(name, config, **options)
        self._peft.eval()

    def _activate(self) -> None:
        """Make the user's own adapters and those with a gate active, in the order of their mounting."""
        self._place_biases()
        mine = [name for name in self._adapters if name in self._gates]
        names = [*self._active, *mine]
        if self._saves_modules or any(a.saved for a in self._adapters.values()):
            # peft refuses an empty list here, and passes over the name of no adapter.
            with _refusals_of_peft():
                self._peft.base_model.set_adapter(names or [_NOBODY], inference_mode=True)
            self._before.restore_trainable()
            return
        # peft's own way looks at every parameter to freeze it; ours are frozen from the start.
        for layer in self._tuned(self._before.modules):
            vars(layer)["_active_adapter"] = names
        if self._peft:
            self._peft.base_model.active_adapter = names

    def _delete(self, name: str) -> None:
        if self._peft and name in self._peft.peft_config:
            others = [*self._active, *(other for other in self._adapters if other != name)]
            if others:
                self._peft.base_model.set_adapter(others, inference_mode=True)
            self._peft.delete_adapter(name)
        for layer in self._tuned(self._before.modules):
            forget(layer, name)

    def _restore(self) -> None:
        if not self._given:
            for path in self._before.modules.keys() - {""}:
                layer = self._live(path)
                if _is_tuned(layer) and is_linear_layer(layer) and not layer.lora_A:
                    self._pool.keep_layer(path, layer)
        self._before.restore()
        if self._given and self._active:
            self._peft.base_model.set_adapter(self._active, inference_mode=True)
            self._before.restore_flags()
        self._pool.let_go()
        vars(self._base).pop(_ATTRIBUTE, None)

    def _require_one_with_biases(self, adapters: Iterable[Adapter]) -> None:
        """Refuse `adapters` in use together of which more than one has biases: each bias has one place.

        Raises:
            ConflictError: more than one, or one beside the user's own with biases.
        """
        if sum(bool(adapter.biases) for adapter in adapters) + self._has_biases > 1:
            raise ConflictError(
                "only one adapter with biases can be in use at a time",
                hint="switch to the others, or unmount one of them",
            )

    def _stand_in(self, path: str, bias: Any) -> tuple[Any, Any]:
        """The module at `path`, and a parameter of the values of `bias` for its own one's place."""
        module = without_tuner(self._before.modules[path])
        return module, stand_in(module._parameters["bias"], bias, path)

    def _place_biases(self) -> None:
        """Put the biases of the adapter in use that has some into their places, or the model's own back."""
        name = next((name for name in self._gates if self._stand_ins.get(name)), None)
        if name is None:
            self._biases.put_back()
        else:
            self._biases.put(name, self._stand_ins[name])

    def _tuned(self, paths: Iterable[str]) -> Iterator[Any]:
        """What peft has put around the modules at `paths`, where it has."""
        return filter(_is_tuned, (self._live(path) for path in paths if path))

    def _live(self, path: str) -> Any:
        """What stands at `path` now: the module itself, or what was put around it."""
        holder, name = self._before.places[path]
        return holder[name]

    def _place(self, path: str, layer: Any) -> None:
        """Put peft's `layer` around the module at `path`, if it is not there yet."""
        holder, name = self._before.places[path]
        if holder[name] is not layer:
            layer._modules["base_layer"] = holder[name]
            holder[name] = layer


class _Snapshot:
    """The modules of a model by path, and the flags that mounting changes."""

    def __init__(self, base: Any, model: Any) -> None:
        self._base = base
        self.modules: dict[str, Any] = {}
        self.places: dict[str, tuple[dict[str, Any], str]] = {}
        self._walk()
        modules = self.modules.values() if model is base else model.modules()
        self._training = [(module, module.training) for module in modules]
        self.was_training = any(training for _, training in self._training)
        self._trainable = [
            tensor
            for module in self.modules.values()
            for tensor in module._parameters.values()
            if tensor is not None and tensor.requires_grad
        ]
        self._peft_config = vars(base).get("peft_config", _ABSENT)
        self._parallelism = getattr(base.config, "pretraining_tp", _ABSENT)

    def _walk(self) -> None:
        """Find every module, the outermost first, as `named_modules` does, and where its parent holds it."""
        seen: set[int] = set()
        pending: list[tuple[str, Any, dict[str, Any], str]] = [("", self._base, {}, "")]
        while pending:
            path, module, holder, name = pending.pop()
            if id(module) in seen:
                continue
            seen.add(id(module))
            self.modules[path], self.places[path] = module, (holder, name)
            below = f"{path}." if path else ""
            children = module._modules
            pending += [
                (below + key, child, children, key)
                for key, child in reversed(children.items())
                if child is not None
            ]

    def restore(self) -> None:
        """Put every module back where it was, the outermost first, then the flags."""
        for path, module in self.modules.items():
            holder, name = self.places[path]
            if path and holder[name] is not module:
                holder[name] = module
        if self._peft_config is _ABSENT:
            vars(self._base).pop("peft_config", None)
        if self._parallelism is not _ABSENT:
            self._base.config.pretraining_tp = self._parallelism
        self.restore_flags()

    def restore_flags(self) -> None:
        """Training mode of every module, and what was trainable, as they were."""
        for module, training in self._training:
            if module.training != training:
                module.training = training
        self.restore_trainable()

    def restore_trainable(self) -> None:
        """Thaw what peft froze: a mount has nothing to say about that."""
        for tensor in self._trainable:
            tensor.requires_grad_(True)


@contextmanager
def _refusals_of_peft() -> Iterator[None]:
    """Turns what peft raises about adapters that it cannot combine into our error.

    Raises:
        UnsupportedError: with peft's own words.
    """
    try:
        yield
    except (TypeError, ValueError) as error:
        raise UnsupportedError(
            f"peft cannot put this adapter beside what is on the model: {str(error)[:200]}",
            hint="unmount the others, or switch to one of them",
        ) from error


def _placed(state: Mapping[str, Any], layers: Mapping[str, Any], *, widen: bool) -> dict[str, Any]:
    """The tensors of `state` without peft's prefix, each on its module's device."""
    import torch

    placed = {key.removeprefix(PEFT_PREFIX): tensor for key, tensor in state.items()}
    for path, layer in layers.items():
        device = layer._modules["base_layer"].weight.device
        for name in (f"{path}.lora_A.weight", f"{path}.lora_B.weight"):
            tensor = placed[name]
            narrow = widen and tensor.dtype in (torch.bfloat16, torch.float16)
            if narrow or tensor.device != device:
                placed[name] = tensor.to(device, torch.float32 if narrow else tensor.dtype)
    return placed


def _is_tuned(layer: Any) -> bool:
    """Whether `layer` is one that peft has put around a module."""
    return "lora_A" in layer._modules
