"""The adapters that memcube has put on one model, and the way back to the model as it was."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Final, Self

from memcube_protocol.errors import ConflictError, UnsupportedError

_ATTRIBUTE: Final = "_memcube_adapter_stack"
_ABSENT: Final = object()
_PEFT_ASKS_OLD_NAME: Final = "`is_gradient_checkpointing` is deprecated"
"""What transformers says to peft, not to our user."""


class AdapterStack:
    """Mounts adapters on a model and takes them off in any order.

    What was there before the first mount is remembered by reference: modules, gradient and
    training flags, active adapters. When the last one goes, all of it is put back.
    """

    def __init__(self, model: Any) -> None:
        self._base: Any = base_of(model)
        self._before = _Snapshot(self._base, model)
        self._given = model is not self._base
        self._peft: Any = model if self._given else None
        self._active: list[str] = list(model.active_adapters) if self._given else []
        self._names: list[str] = []
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

    def mount(
        self, name: str, config: Any, state: Mapping[str, Any], *, widen: bool = False
    ) -> None:
        """Put the adapter `name` with the tensors of `state` on the model, and make it active.

        `widen` holds it in float32 where the model's own type could not hold every value; then the
        tensors are copied, as peft's way without a copy narrows them to the model's type.

        Raises:
            ConflictError: it is mounted already.
        """
        from peft import set_peft_model_state_dict

        if name in self._names:
            raise ConflictError("this adapter is mounted already", hint="unmount it first")
        vars(self._base)[_ATTRIBUTE] = self
        self._names.append(name)
        try:
            self._add(name, config, widen=widen)
            set_peft_model_state_dict(
                self._peft, dict(state), adapter_name=name, low_cpu_mem_usage=not widen
            )
            self._activate()
        except BaseException:
            self.unmount(name)
            raise

    def unmount(self, name: str) -> None:
        """Take the adapter `name` off; the last one leaves the model as it was before the first."""
        self._names.remove(name)
        if self._names or self._given:
            self._delete(name)
        if self._names:
            self._activate()
            return
        self._before.restore()
        if self._given and self._active:
            self._peft.base_model.set_adapter(self._active, inference_mode=True)
            self._before.restore_flags()
        vars(self._base).pop(_ATTRIBUTE, None)

    def _add(self, name: str, config: Any, *, widen: bool) -> None:
        from peft import PeftModel

        if self._peft is None:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", _PEFT_ASKS_OLD_NAME, FutureWarning)
                self._peft = PeftModel(
                    self._base,
                    config,
                    adapter_name=name,
                    autocast_adapter_dtype=widen,
                    low_cpu_mem_usage=not widen,
                )
        else:
            self._peft.add_adapter(
                name, config, low_cpu_mem_usage=not widen, autocast_adapter_dtype=widen
            )
        self._peft.eval()

    def _activate(self) -> None:
        self._peft.base_model.set_adapter([*self._active, *self._names], inference_mode=True)

    def _delete(self, name: str) -> None:
        if name in self._peft.peft_config:
            others = [*self._active, *(other for other in self._names if other != name)]
            if others:
                self._peft.base_model.set_adapter(others, inference_mode=True)
            self._peft.delete_adapter(name)


class _Snapshot:
    """The modules of a model by path, and the flags that mounting changes."""

    def __init__(self, base: Any, model: Any) -> None:
        self._base = base
        self._modules = dict(base.named_modules())
        self._training = [(module, module.training) for module in model.modules()]
        self._gradients = [(tensor, tensor.requires_grad) for tensor in base.parameters()]
        self._peft_config = vars(base).get("peft_config", _ABSENT)
        self._parallelism = getattr(base.config, "pretraining_tp", _ABSENT)

    def restore(self) -> None:
        """Put every module back where it was, the outermost first, then the flags."""
        for path, module in self._modules.items():
            parent_path, _, name = path.rpartition(".")
            if path and getattr(self._modules[parent_path], name) is not module:
                setattr(self._modules[parent_path], name, module)
        if self._peft_config is _ABSENT:
            vars(self._base).pop("peft_config", None)
        if self._parallelism is not _ABSENT:
            self._base.config.pretraining_tp = self._parallelism
        self.restore_flags()

    def restore_flags(self) -> None:
        """Training mode of every module and gradients of every parameter, as they were."""
        for module, training in self._training:
            module.training = training
        for tensor, gradient in self._gradients:
            tensor.requires_grad_(gradient)


def base_of(model: Any) -> Any:
    """The model without peft's wrapper, if it has one."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
