"""Mounting a LoRA adapter on a model after every check (docs/spec/parametric.md).

What peft gets is not the folder's own config but one written from what was checked: full module
paths, no regular expressions, no initialisation that touches the base. After a mount through peft the
live adapter's identity must equal the file's, so that no tensor was left out, added or cast; a slot
holds the file's tensors themselves.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from memcube_protocol import parametric
from memcube_protocol.errors import ConflictError, IncompatibleError
from memcube_protocol.identity import BaseIdentity, TensorIdentity
from memcube_protocol.parametric import Adapter, Base, Level, Verdict

from memcube.closing import Closing
from memcube.memories.activation.key import injected_tensors, weight_quantisation
from memcube.memories.known_identity import known_identity
from memcube.memories.model_identity import (
    dtype_name,
    tensor_identity,
    torch_dtypes,
    without_tuner,
)
from memcube.memories.parametric.files import AdapterFiles
from memcube.memories.parametric.stack import AdapterStack
from memcube.memories.turns import changing, turn
from memcube.store.checks import FileChecks


def mount_lora(
    folder: Path,
    model: Any,
    *,
    base_identity: BaseIdentity | None = None,
    base: Base | None = None,
    allow_unverified_base: bool = False,
    checks: FileChecks | None = None,
) -> MountedLora:
    """The adapter in `folder`, active on `model` beside what was active before.

    `base` says which model is loaded where the caller knows better than its config; the model is
    hashed only if the adapter names an identity, none is given and none is known. With `checks`, a
    file that was looked through before and has not changed is not read again.

    Raises:
        IncompatibleError: the base is unknown and not allowed, or peft took the adapter otherwise
            than it is.
        InvalidTensorsError: damaged, not finite, or of other modules and shapes than the model's.
        ConflictError: the same adapter is mounted already, or another one with biases is in use.
        IntegrityError: somebody writes into the file.
        NotFoundError, ForbiddenMediaTypeError, UnsupportedError, InvalidConfigError: see `AdapterFiles`.
    """
    files = AdapterFiles.open(folder)
    adapter = files.adapter
    with turn(model):
        verdict = parametric.judge(adapter.base, _loaded_base(model, adapter, base, base_identity))
        if verdict.level is Level.UNKNOWN and not allow_unverified_base:
            raise IncompatibleError(
                f"it is not known that this adapter belongs to this model: {verdict.why}",
                hint="load the adapter's own base; a mount takes another with --allow-unverified-base",
            )
        stack = AdapterStack.of(model)
        _require_fit(adapter, stack.modules)
        name = f"memcube_{files.identity(checks).root.hex()[:16]}"
        mounted = MountedLora(adapter, verdict, name, files.tensors(), stack, files)
        try:
            mounted.mount()
            return mounted
        except BaseException:
            mounted.unmount()
            raise


def mount_fitting(
    folders: Mapping[str, Callable[[], Path]],
    model: Any,
    undo: ExitStack,
    *,
    base_identity: BaseIdentity | None = None,
) -> tuple[list[str], list[str]]:
    """Mount those adapters, given by id and folder, that belong to `model`; `undo` takes them off again.

    Returns the ids of those that are active now, and in words why the others are not.

    Raises:
        InvalidTensorsError, NotFoundError, InvalidConfigError: see `mount_lora`.
    """
    mounted, passed_over = [], []
    for memory_id, folder in folders.items():
        try:
            adapter = mount_lora(folder(), model, base_identity=base_identity)
        except (IncompatibleError, ConflictError) as error:
            passed_over.append(f"made without the adapter {memory_id}: {error}")
            continue
        undo.callback(adapter.unmount)
        mounted.append(memory_id)
    return mounted, passed_over


class MountedLora(Closing):
    """A LoRA memory on a model; `verdict` says how sure it is that its base is right.

    `tensors` are those of its file under their own names, or those that were computed for it.
    """

    def __init__(
        self,
        adapter: Adapter,
        verdict: Verdict,
        name: str,
        tensors: Mapping[str, Any],
        stack: AdapterStack,
        files: AdapterFiles | None = None,
    ) -> None:
        self.adapter = adapter
        self.verdict = verdict
        self.name = name
        self.tensors = tensors
        self.stack = stack
        self._files = files
        self._is_mounted = False

    @property
    def is_file(self) -> bool:
        """Whether its tensors are those of a file."""
        return self._files is not None

    def mount(self) -> None:
        """Put it on the model of its stack; see `mount_lora`.

        Raises:
            ConflictError: the same adapter is mounted already, or another one with biases is in use.
            IncompatibleError: peft took the adapter otherwise than it is.
        """
        model = self.stack.model
        held = {tensor.name for tensor in self.adapter.biases.values()}
        beside = {name: tensor for name, tensor in self.tensors.items() if name not in held}
        biases = {path: self.tensors[bias.name] for path, bias in self.adapter.biases.items()}

        def config() -> Any:
            return _peft_config(self.adapter, model)

        with turn(model):
            self.stack.require_free(self.name, self.adapter)
            self._is_mounted = True
            try:
                with changing(model):
                    in_slot = self.stack.mount(self.name, self.adapter, beside, config, biases)
                if not in_slot and not _is_held(beside, injected_tensors(model, self.name)):
                    raise IncompatibleError(
                        "peft did not take this adapter as it is: tensors were left out, added or narrowed",
                        hint="check its target modules and dtype against the model's",
                    )
            except BaseException:
                self.unmount()
                raise

    def require_usable(self) -> None:
        """Refuse what is unmounted, or whose file was written into meanwhile.

        Raises:
            ConflictError: it is unmounted.
            IntegrityError: somebody writes into its file.
        """
        if not self._is_mounted:
            raise ConflictError("this adapter is unmounted", hint="mount the memory again")
        if self._files:
            self._files.require_unchanged()

    def unmount(self) -> None:
        """Take the adapter off: weights, state_dict keys and module classes are as before."""
        with turn(self.stack.model), changing(self.stack.model):
            if self._is_mounted:
                self.stack.unmount(self.name)
                self._is_mounted = False
                self.tensors, self._files = {}, None

    def close(self) -> None:
        """As `unmount`."""
        self.unmount()


def _require_fit(adapter: Adapter, modules: Mapping[str, Any]) -> None:
    parametric.require_fit(
        adapter,
        _shapes(modules, adapter),
        _bias_shapes(modules, adapter),
        _saved_shapes(modules, adapter),
    )


def _shapes(modules: Mapping[str, Any], adapter: Adapter) -> dict[str, tuple[int, int]]:
    """Shapes of those `modules` that `adapter` wants to change, by full path."""
    paths = (module.path for module in adapter.modules if module.path in modules)
    shapes = {path: module_shape(modules[path]) for path in paths}
    return {path: shape for path, shape in shapes.items() if shape}


def _bias_shapes(modules: Mapping[str, Any], adapter: Adapter) -> dict[str, tuple[int, ...]]:
    """Shapes of the biases that those `modules` have which `adapter` has others for, by full path."""
    found = {path: without_tuner(modules[path]) for path in adapter.biases if path in modules}
    held = {path: module._parameters.get("bias") for path, module in found.items()}
    return {path: tuple(bias.shape) for path, bias in held.items() if bias is not None}


def _saved_shapes(
    modules: Mapping[str, Any], adapter: Adapter
) -> dict[str, dict[str, tuple[int, ...]]]:
    """Shapes of all tensors of those modules that `adapter` replaces as a whole, by full path."""
    found = {path: without_tuner(modules[path]) for path in adapter.saved if path in modules}
    own = {path: module._modules.get("original_module") or module for path, module in found.items()}
    return {
        path: {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
        for path, module in own.items()
    }


def module_shape(module: Any) -> tuple[int, int] | None:
    """[out, in] of a module that an adapter can change; None of any other."""
    own = without_tuner(module)
    held = vars(own)
    if "in_features" in held and "out_features" in held:
        return held["out_features"], held["in_features"]
    if "num_embeddings" in held and "embedding_dim" in held:
        return held["embedding_dim"], held["num_embeddings"]
    if "nf" in held and hasattr(own, "weight"):
        return held["nf"], own.weight.shape[0]
    return None


def model_form(model: Any) -> str:
    """How the weights of `model` are held: their dtype, or their quantisation."""
    quantisation = weight_quantisation(model.config)
    return dtype_name(model.dtype) if quantisation == "none" else quantisation


def _loaded_base(
    model: Any, adapter: Adapter, base: Base | None, identity: BaseIdentity | None
) -> Base:
    if base is None:
        config = model.config
        name = getattr(config, "_name_or_path", None) or None
        base = Base(name, getattr(config, "_commit_hash", None))
    known = identity or base.identity
    if known is None and adapter.base.identity:
        known = known_identity(model)
    return Base(base.model, base.revision, known, base.form or model_form(model), base.origin)


def _is_held(state: Mapping[str, Any], live: Iterable[TensorIdentity]) -> bool:
    """Whether the `live` tensors are those of `state`, all of them, to the bit or widened."""
    import torch

    wanted = {name.removeprefix(parametric.PEFT_PREFIX): tensor for name, tensor in state.items()}
    for part in live:
        tensor, dtype = wanted.pop(part.name, None), torch_dtypes()[part.dtype]
        if tensor is None or torch.promote_types(tensor.dtype, dtype) != dtype:
            return False
        if tensor_identity(part.name, tensor.to(dtype)) != part:
            return False
    return not wanted


def _peft_config(adapter: Adapter, model: Any) -> Any:
    """A LoraConfig that names exactly the modules that were checked; of biases peft hears nothing."""
    from peft import LoraConfig

    config = adapter.config
    alpha: Any = config.alpha
    escaped = {module.path: f"^{re.escape(module.path)}" for module in adapter.modules}
    return LoraConfig(
        r=config.rank,
        lora_alpha=alpha,
        target_modules=list(escaped),
        rank_pattern={escaped[module.path]: module.rank for module in adapter.modules},
        alpha_pattern={escaped[path]: config.alpha_of(path) for path in escaped},
        use_rslora=config.rank_stabilised,
        use_dora=config.dora,
        modules_to_save=list(adapter.saved) or None,
        fan_in_fan_out=bool(config.raw.get("fan_in_fan_out", False)),
        init_lora_weights=False,
        inference_mode=True,
        base_model_name_or_path=getattr(model.config, "_name_or_path", None),
    )
