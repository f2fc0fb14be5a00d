"""Dump a LoRA adapter from a model or a folder into the files of a memory, and read it (docs/spec/parametric.md).

    dump_lora(peft_model, cube_folder, memory_id="style")
    read_adapter(cube_folder / "parametric" / "style").base

Mounting is in `mount`, what is done with several mounted adapters in `adapters`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import MappingProxyType
from typing import Any, Final

from memcube_protocol import adapter_config, parametric, tensors
from memcube_protocol.errors import InvalidConfigError, NotFoundError
from memcube_protocol.identity import BaseIdentity
from memcube_protocol.parametric import Adapter, Base

from memcube.memories import making
from memcube.memories.known_identity import known_identity
from memcube.memories.model_identity import base_of, base_state, dtype_name, tensor_bytes
from memcube.memories.parametric.files import AdapterFiles, require_bounded
from memcube.memories.parametric.mount import model_form

FOLDER: Final = "parametric"
_ALIGNMENT: Final = 64
"""Of the tensors in a file: what torch gives its own, so that mapped ones are read as fast."""


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

    A PeftModel's base is hashed unless `base_identity` is given or known; a folder's is recorded only if it
    is given, and so is that of a PeftModel with biases, as these have taken the place of the base's own. Local paths in the config are cut to their last component. The header of the tensors
    tells the base, `training`, the digests of `inputs` (what it was trained on: files, or digests) and
    the versions of what wrote it; the tensors' bytes are the adapter's own.

    Raises:
        ConflictError: the memory exists already.
        ForbiddenMediaTypeError: the folder holds a pickle instead of safetensors.
        InvalidConfigError: no id of a memory.
        UnsupportedError, InvalidTensorsError, InvalidConfigError: no adapter that can be mounted.
        StorageError: an input cannot be read.
    """
    target = making.new_folder(folder / FOLDER, memory_id)
    if isinstance(source, str | Path):
        config, named, header = _from_folder(Path(source))
    else:
        config, named, header = _from_model(source, adapter_name)
        if not base_identity and not _has_biases(source):
            base_identity = known_identity(source)
    adapter = parametric.check(config, header)
    base = Base(
        base_model or adapter.base.model,
        base_revision or adapter.base.revision,
        base_identity or adapter.base.identity,
        adapter.base.form if isinstance(source, str | Path) else model_form(source),
    )
    about = parametric.metadata(base, _trained(training or adapter.training, inputs))
    _write(target, config, header, about, named)
    return target


def read_adapter(folder: Path) -> Adapter:
    """The adapter in `folder`, its files checked against each other; no tensor is read.

    Raises:
        MemcubeError: see `AdapterFiles.open`.
    """
    return AdapterFiles.open(folder).adapter


def _from_folder(folder: Path) -> tuple[bytes, Callable[[str], Any], tensors.Header]:
    files = AdapterFiles.open(folder)
    files.identity()
    config = _without_local_paths(dict(files.adapter.config.raw))
    return config, files.tensors().__getitem__, files.adapter.header


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
    require_bounded(state)
    values = {**model.peft_config[adapter_name].to_dict(), "inference_mode": True}
    return _without_local_paths(values), state.__getitem__, header


def _has_biases(model: Any) -> bool:
    """Whether peft has written the biases of an adapter over those of the base of `model`."""
    is_told = any(getattr(told, "bias", "none") != "none" for told in model.peft_config.values())
    return is_told and any(name.endswith(".bias") for name in base_state(base_of(model)))


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
        (partial / adapter_config.CONFIG_FILE).write_bytes(config)
        with (partial / parametric.TENSORS_FILE).open("xb") as file:
            file.write(
                tensors.write_header(
                    ((tensor.name, tensor.dtype, tensor.shape) for tensor in header.tensors),
                    about,
                    alignment=_ALIGNMENT,
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
