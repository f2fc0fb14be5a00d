"""Which weights a checkpoint or a live model has: its base identity (docs/spec/identity.md).

Both give the same identity where the weights are the same to the bit: sharding, tied heads, an
injected adapter and the fusing that transformers does while loading make no difference. A cast or
a quantisation does.
"""

from __future__ import annotations

import json
import mmap
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from blake3 import blake3
from memcube_protocol.errors import NotFoundError, UnsupportedError
from memcube_protocol.identity import BaseIdentity, TensorIdentity
from memcube_protocol.tensors import parse_header

from memcube.memories.biases import own_biases
from memcube.memories.reading import require_file
from memcube.store.checks import FileChecks

_INDEX: Final = "model.safetensors.index.json"
_PARALLEL_BYTES: Final = 1 << 22
_TENSORS: Final = "tensors"
"""The kind of finding that lists the tensors of a file with their hashes."""


def checkpoint_identity(folder: Path, *, checks: FileChecks | None = None) -> BaseIdentity:
    """Identity of the checkpoint in `folder`: one or many safetensors files.

    With `checks`, files that were hashed before and have not changed are not read again.

    Raises:
        NotFoundError: the folder holds no safetensors, or its index names a file that is missing.
        InvalidTensorsError: a file is damaged, or two hold the same tensor.
    """
    parts: list[TensorIdentity] = []
    for shard in _shards(folder):
        parts += _shard_tensors(shard, checks)
    return BaseIdentity.of(parts)


def live_identity(model: Any) -> BaseIdentity:
    """Identity of a loaded `model` by a full hash of its tensors; active adapters do not count.

    Nothing is remembered here; see `known_identity.known_identity`.
    """
    return BaseIdentity.of(
        tensor_identity(name, tensor) for name, tensor in base_tensors(model).items()
    )


def file_tensors(file: Path) -> list[TensorIdentity]:
    """Every tensor of a safetensors `file`, hashed.

    Raises:
        NotFoundError: no such file.
        InvalidTensorsError: the file is damaged or hostile.
    """
    require_file(file)
    if not file.stat().st_size:
        parse_header(b"")
    with (
        file.open("rb") as opened,
        mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data,
        memoryview(data) as view,
    ):
        return list(hashed_tensors(view))


def write_tensors(parts: Iterable[TensorIdentity]) -> str:
    """`parts` as JSON text, for `read_tensors`."""
    return json.dumps([(part.name, part.dtype, part.shape, part.blake3.hex()) for part in parts])


def read_tensors(text: str) -> list[TensorIdentity]:
    """The tensors that `write_tensors` wrote."""
    return [
        TensorIdentity(name, dtype, tuple(shape), bytes.fromhex(digest))
        for name, dtype, shape, digest in json.loads(text)
    ]


def tensor_identity(name: str, tensor: Any) -> TensorIdentity:
    """Identity of a torch `tensor` under `name`.

    Raises:
        UnsupportedError: an element type that safetensors has no word for.
    """
    return TensorIdentity(
        name, dtype_name(tensor.dtype), tuple(tensor.shape), _blake3(tensor_bytes(tensor))
    )


def tensor_bytes(tensor: Any) -> memoryview:
    """The bytes of a torch `tensor`, row-major; copied only where it is not so already.

    Raises:
        UnsupportedError: it is on the device `meta` and has none.
    """
    import torch

    if tensor.is_meta:
        raise UnsupportedError(
            "weights of the model are not in memory: they are on the device `meta`",
            hint="load the whole model, with nothing offloaded to a disk",
        )
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy())


def dtype_name(dtype: Any) -> str:
    """The word that safetensors has for a torch `dtype`.

    Raises:
        UnsupportedError: it has none.
    """
    for name, known in torch_dtypes().items():
        if known == dtype:
            return name
    raise UnsupportedError(
        f"tensors of {dtype} cannot be stored", hint="convert them to a type of safetensors"
    )


@cache
def torch_dtypes() -> Mapping[str, Any]:
    """The torch type behind every element type of the protocol."""
    import torch

    return {
        "BOOL": torch.bool,
        "U8": torch.uint8,
        "I8": torch.int8,
        "F8_E4M3": torch.float8_e4m3fn,
        "F8_E5M2": torch.float8_e5m2,
        "I16": torch.int16,
        "U16": torch.uint16,
        "F16": torch.float16,
        "BF16": torch.bfloat16,
        "I32": torch.int32,
        "U32": torch.uint32,
        "F32": torch.float32,
        "I64": torch.int64,
        "U64": torch.uint64,
        "F64": torch.float64,
    }


def base_tensors(model: Any) -> dict[str, Any]:
    """The tensors of `model` as its checkpoint has them: no adapters, no tied copies, nothing fused."""
    from transformers.core_model_loading import revert_weight_conversion

    base = base_of(uncompiled(model))
    state = base_state(base)
    for name in getattr(base, "_keys_to_ignore_on_save", None) or ():
        state.pop(name, None)
    for tied, source in (getattr(base, "all_tied_weights_keys", None) or {}).items():
        if tied in state and source in state and _same_memory(state[tied], state[source]):
            del state[tied]
    reverted: dict[str, Any] = revert_weight_conversion(base, state)
    return reverted


def uncompiled(model: Any) -> Any:
    """The model that `torch.compile` wrapped, with the names of its checkpoint; else `model`."""
    return getattr(model, "_orig_mod", model)


def base_of(model: Any) -> Any:
    """The model without peft's wrapper, if it has one."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def base_state(base: Any) -> dict[str, Any]:
    """The state of a model without a peft wrapper, as if no adapter were on it."""
    wrapped = {path for path, _ in tuner_layers(base)}
    kept = {}
    for name, tensor in base.state_dict().items():
        path = next((path for path in _holders(name) if path in wrapped), None)
        if path is None:
            kept[name] = tensor
            continue
        holder, _, rest = name.removeprefix(f"{path}.").partition(".")
        if holder in ("base_layer", "original_module"):
            kept[f"{path}.{rest}"] = tensor
    return kept | {f"{path}.bias": own.detach() for path, own in own_biases(base).items()}


def without_tuner(layer: Any) -> Any:
    """The module that peft has put `layer` around; `layer` itself if it is none of peft's."""
    return layer.get_base_layer() if hasattr(type(layer), "get_base_layer") else layer


def tuner_layers(model: Any) -> Iterator[tuple[str, Any]]:
    """Path and module of everything that peft has put around modules of `model`."""
    tuned = tuner_classes()
    for path, module in model.named_modules() if tuned else ():
        if isinstance(module, tuned):
            yield path, module


def tuner_classes() -> tuple[Any, ...]:
    """The classes of what peft puts around modules; none while nobody has loaded peft."""
    if "peft" not in sys.modules:
        return ()
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    return BaseTunerLayer, AuxiliaryTrainingWrapper


def _holders(name: str) -> Iterator[str]:
    """The paths of the modules that the tensor `name` lies in, the outermost first."""
    end = name.find(".")
    while end >= 0:
        yield name[:end]
        end = name.find(".", end + 1)


def _same_memory(one: Any, other: Any) -> bool:
    return (one.data_ptr(), one.shape, one.dtype) == (other.data_ptr(), other.shape, other.dtype)


def _shards(folder: Path) -> list[Path]:
    index = folder / _INDEX
    if index.is_file():
        names = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
        shards = sorted(folder / Path(name).name for name in names)
    else:
        shards = sorted(folder.glob("*.safetensors"))
    missing = [shard.name for shard in shards if not shard.is_file()]
    if missing or not shards:
        raise NotFoundError(
            f"the checkpoint lacks {missing[0] if missing else 'safetensors files'}",
            hint="point at the folder of a checkpoint in safetensors format",
        )
    return shards


def _shard_tensors(shard: Path, checks: FileChecks | None) -> list[TensorIdentity]:
    if checks is None:
        return file_tensors(shard)
    return read_tensors(
        checks.remembered(_TENSORS, shard, lambda: write_tensors(file_tensors(shard)))
    )


def hashed_tensors(view: memoryview) -> Iterator[TensorIdentity]:
    """Every tensor of the safetensors file that `view` holds, hashed.

    Raises:
        InvalidTensorsError: the file is damaged or hostile.
    """
    header = parse_header(view)
    for tensor in header.tensors:
        start, stop = header.range_of(tensor)
        with view[start:stop] as content:
            yield TensorIdentity(tensor.name, tensor.dtype, tensor.shape, _blake3(content))


def _blake3(content: memoryview) -> bytes:
    threads = blake3.AUTO if content.nbytes >= _PARALLEL_BYTES else 1
    return blake3(content, max_threads=threads).digest()
