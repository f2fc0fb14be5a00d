"""Dump a LoRA adapter as a memory, and mount one through peft after every check (MIP 1.0 section 6).

What peft gets is not the folder's own config but one written from what was checked: full module
paths, no regular expressions, no initialisation that touches the base. After the mount the live
adapter's identity must equal the file's, so that no tensor was left out, added or cast.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import MappingProxyType, TracebackType
from typing import Any, Final, Self

from memcube_protocol import limits, parametric, paths, tensors
from memcube_protocol.errors import (
    ConflictError,
    ForbiddenMediaTypeError,
    IncompatibleError,
    InvalidConfigError,
    NotFoundError,
)
from memcube_protocol.identity import BaseIdentity, TensorIdentity
from memcube_protocol.parametric import Adapter, Base, Level, Verdict
from memcube_protocol.tensors import Rejection

from memcube.memories import making
from memcube.memories.activation_key import adapter_tensors, weight_quantisation
from memcube.memories.model_identity import (
    dtype_name,
    file_tensors,
    live_identity,
    tensor_bytes,
    tensor_identity,
    torch_dtypes,
)
from memcube.memories.parametric_stack import AdapterStack
from memcube.memories.reading import read_small, require_file

FOLDER: Final = "parametric"
_PICKLES: Final = (
    "adapter_model.bin",
    "adapter_model.pt",
    "adapter_model.pth",
    "pytorch_model.bin",
)


def dump_lora(
    source: Any,
    folder: Path,
    *,
    memory_id: str,
    base_identity: BaseIdentity | None = None,
    base_model: str | None = None,
    base_revision: str | None = None,
    adapter_name: str = "default",
    training: Mapping[str, Any] | None = None,
    inputs: making.Inputs = MappingProxyType({}),
) -> Path:
    """The folder `parametric/<memory_id>` below `folder`, made from a PeftModel or from a PEFT folder.

    A PeftModel's base is hashed unless `base_identity` is given; a folder's is recorded only if it
    is given. Local paths in the config are cut to their last component. The header of the tensors
    tells the base, `training`, the digests of `inputs` (what it was trained on: files, or digests) and
    the versions of what wrote it; the tensors' bytes are the adapter's own.

    Raises:
        ConflictError: the memory exists already.
        ForbiddenMediaTypeError: the folder holds a pickle instead of safetensors.
        UnsupportedError, InvalidTensorsError, InvalidConfigError: no adapter that can be mounted.
        StorageError: an input cannot be read.
    """
    if isinstance(source, str | Path):
        config, named, header = _from_folder(Path(source))
    else:
        config, named, header = _from_model(source, adapter_name)
        base_identity = base_identity or live_identity(source)
    adapter = parametric.check(config, header)
    base = Base(
        base_model or adapter.base.model,
        base_revision or adapter.base.revision,
        base_identity or adapter.base.identity,
        adapter.base.form if isinstance(source, str | Path) else model_form(source),
    )
    target = folder / FOLDER / _file_name(memory_id)
    if target.exists():
        raise ConflictError(f"memory {memory_id!r} exists", hint="choose another id or remove it")
    about = parametric.metadata(base, _trained(training or adapter.training, inputs))
    _write(target, config, header, about, named)
    return target


def read_adapter(folder: Path) -> Adapter:
    """The adapter in `folder`, its files checked against each other; no tensor is read.

    Raises:
        NotFoundError: a file is missing.
        ForbiddenMediaTypeError: a pickle instead of safetensors.
        UnsupportedError, InvalidTensorsError, InvalidConfigError: no adapter that can be mounted.
    """
    config, file = folder / parametric.CONFIG_FILE, folder / parametric.TENSORS_FILE
    if not file.is_file() and any((folder / name).exists() for name in _PICKLES):
        raise ForbiddenMediaTypeError(
            f"{folder.name} holds its weights in a pickle, which is never loaded",
            hint="save the adapter with safe_serialization=True",
        )
    raw_config = read_small(config, limits.CONFIG_BYTES)
    require_file(file)
    size = file.stat().st_size
    with file.open("rb") as opened:
        start = opened.read(tensors.LENGTH_BYTES)
        start += opened.read(tensors.header_length(start, size))
    return parametric.check(raw_config, tensors.parse_header(start, size))


def mount_lora(
    folder: Path,
    model: Any,
    *,
    base_identity: BaseIdentity | None = None,
    base: Base | None = None,
    allow_unverified_base: bool = False,
) -> MountedLora:
    """The adapter in `folder`, active on `model` beside what was active before.

    `base` says which model is loaded where the caller knows better than its config; the model is
    hashed only if the adapter names an identity and none is given.

    Raises:
        IncompatibleError: the base is unknown and not allowed, or peft took the adapter otherwise
            than it is.
        InvalidTensorsError: damaged, not finite, or of other modules and shapes than the model's.
        ConflictError: the same adapter is mounted already.
        NotFoundError, ForbiddenMediaTypeError, UnsupportedError, InvalidConfigError: see `read_adapter`.
    """
    adapter = read_adapter(folder)
    verdict = parametric.judge(adapter.base, _loaded_base(model, adapter, base, base_identity))
    if verdict.level is Level.UNKNOWN and not allow_unverified_base:
        raise IncompatibleError(
            f"it is not known that this adapter belongs to this model: {verdict.why}",
            hint="load the adapter's own base, or allow it with --allow-unverified-base",
        )
    parametric.require_fit(adapter, module_shapes(model))
    state = _mapped_tensors(folder / parametric.TENSORS_FILE, adapter)
    identity = parametric.adapter_identity(file_tensors(folder / parametric.TENSORS_FILE))
    name = f"memcube_{identity.root.hex()[:16]}"
    stack = AdapterStack.of(model)
    widen = any(tensor.dtype != model.dtype for tensor in state.values())
    stack.mount(name, _peft_config(adapter, model), state, widen=widen)
    mounted = MountedLora(adapter, verdict, name, lambda: stack.unmount(name))
    if not _is_held(state, adapter_tensors(model, name)):
        mounted.unmount()
        raise IncompatibleError(
            "peft did not take this adapter as it is: tensors were left out, added or narrowed",
            hint="check its target modules and dtype against the model's",
        )
    return mounted


class MountedLora:
    """A LoRA memory on a model; `verdict` says how sure it is that its base is right."""

    def __init__(
        self, adapter: Adapter, verdict: Verdict, name: str, unmount: Callable[[], None]
    ) -> None:
        self.adapter = adapter
        self.verdict = verdict
        self.name = name
        self._unmount: Callable[[], None] | None = unmount

    def unmount(self) -> None:
        """Take the adapter off: weights, state_dict keys and module classes are as before."""
        unmount, self._unmount = self._unmount, None
        if unmount:
            unmount()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.unmount()


def module_shapes(model: Any) -> dict[str, tuple[int, int]]:
    """[out, in] of every module of the base of `model` that an adapter can change, by full path."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    shapes: dict[str, tuple[int, int]] = {}
    for path, module in base.named_modules():
        own = module.get_base_layer() if hasattr(module, "get_base_layer") else module
        if hasattr(own, "in_features") and hasattr(own, "out_features"):
            shapes[path] = (own.out_features, own.in_features)
        elif hasattr(own, "num_embeddings") and hasattr(own, "embedding_dim"):
            shapes[path] = (own.embedding_dim, own.num_embeddings)
        elif hasattr(own, "nf") and hasattr(own, "weight"):
            shapes[path] = (own.nf, own.weight.shape[0])
    return shapes


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
        known = live_identity(model)
    return Base(base.model, base.revision, known, base.form or model_form(model), base.origin)


def _mapped_tensors(file: Path, adapter: Adapter) -> dict[str, Any]:
    """The adapter's tensors, mapped from `file` under their own names, every value finite.

    Raises:
        InvalidTensorsError: NaN or infinity in a tensor.
    """
    import torch

    storage: Any = torch.UntypedStorage.from_file(str(file), False, adapter.header.file_bytes)
    raw = torch.empty(0, dtype=torch.uint8).set_(storage)
    state = {}
    for tensor in adapter.header.tensors:
        start, stop = adapter.header.range_of(tensor)
        part = raw[start:stop]
        dtype = torch_dtypes()[tensor.dtype]
        part = part if start % tensors.DTYPE_BYTES[tensor.dtype] == 0 else part.clone()
        state[tensor.name] = part.view(dtype).reshape(tensor.shape)
        if tensor.size_bytes and not torch.isfinite(state[tensor.name].abs().max()):
            raise tensors.rejected(
                Rejection.NOT_FINITE, f"{tensor.name[:200]!r} holds NaN or infinity"
            )
    return state


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
    """A LoraConfig that names exactly the modules that were checked."""
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
        modules_to_save=list(config.modules_to_save) or None,
        fan_in_fan_out=bool(config.raw.get("fan_in_fan_out", False)),
        init_lora_weights=False,
        inference_mode=True,
        base_model_name_or_path=getattr(model.config, "_name_or_path", None),
    )


def _from_folder(folder: Path) -> tuple[bytes, Callable[[str], Any], tensors.Header]:
    adapter = read_adapter(folder)
    state = _mapped_tensors(folder / parametric.TENSORS_FILE, adapter)
    config = _without_local_paths(dict(adapter.config.raw))
    return config, state.__getitem__, adapter.header


def _from_model(
    model: Any, adapter_name: str
) -> tuple[bytes, Callable[[str], Any], tensors.Header]:
    """Config, tensors and header of an adapter of a live PeftModel, as `save_pretrained` has them."""
    from peft import get_peft_model_state_dict

    if adapter_name not in model.peft_config:
        raise NotFoundError(
            f"the model has no adapter {adapter_name!r}",
            hint=f"it has: {', '.join(sorted(model.peft_config))}",
        )
    state = get_peft_model_state_dict(model, adapter_name=adapter_name, save_embedding_layers=False)
    header = tensors.parse_header(
        start := tensors.write_header(
            (name, dtype_name(tensor.dtype), tuple(tensor.shape))
            for name, tensor in sorted(state.items())
        ),
        len(start) + sum(tensor.nbytes for tensor in state.values()),
    )
    values = {**model.peft_config[adapter_name].to_dict(), "inference_mode": True}
    return _without_local_paths(values), state.__getitem__, header


def _without_local_paths(values: dict[str, Any]) -> bytes:
    """`adapter_config.json` of `values`, sets as sorted lists, local folders cut to their last name."""
    base = values.get("base_model_name_or_path")
    if isinstance(base, str) and base:
        local = PurePosixPath(base).is_absolute() or PureWindowsPath(base).is_absolute()
        if local or base.startswith((".", "~")) or "\\" in base:
            values["base_model_name_or_path"] = PureWindowsPath(base).name
    text = json.dumps(values, indent=2, sort_keys=True, default=_json_of, allow_nan=False)
    return text.encode() + b"\n"


def _json_of(value: Any) -> Any:
    if isinstance(value, set | frozenset):
        return sorted(value)
    if hasattr(value, "value"):
        return value.value
    raise InvalidConfigError(
        f"the adapter's config holds a {type(value).__name__}, which JSON cannot",
        hint="save it with peft first and dump the folder",
    )


def _write(
    target: Path,
    config: bytes,
    header: tensors.Header,
    about: Mapping[str, str],
    named: Callable[[str], Any],
) -> None:
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        (partial / parametric.CONFIG_FILE).write_bytes(config)
        with (partial / parametric.TENSORS_FILE).open("xb") as file:
            file.write(
                tensors.write_header(
                    ((tensor.name, tensor.dtype, tensor.shape) for tensor in header.tensors), about
                )
            )
            for tensor in header.tensors:
                file.write(tensor_bytes(named(tensor.name)))
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _trained(training: Mapping[str, Any], inputs: making.Inputs) -> dict[str, Any]:
    """`training` with how this dump was made; inputs that an earlier dump recorded stay."""
    earlier = training.get(making.KEY)
    known = earlier.get(making.INPUTS) if isinstance(earlier, dict) else None
    digests = {**(known if isinstance(known, dict) else {}), **making.digests_of(inputs)}
    made = {making.BUILDER: making.builder("peft", "torch", "transformers"), making.INPUTS: digests}
    return {**training, making.KEY: made}


def _file_name(memory_id: str) -> str:
    if "/" in paths.require_safe(memory_id):
        raise InvalidConfigError(
            f"{memory_id!r} is not the id of a memory", hint="use letters, digits, '-' and '_'"
        )
    return memory_id
