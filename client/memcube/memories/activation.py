"""Mount a KV memory on a live transformers model (MIP 1.0 section 5).

A mounted cache equals the live one to the bit, or the mount is refused with every field that
differs. Loading maps the file; each question gets a fresh cache object over the same mapped
tensors, because a used one carries the question before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from math import prod
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

from memcube_protocol import activation, limits, tensors
from memcube_protocol.activation import KvManifest
from memcube_protocol.compatibility import (
    INT8,
    CompatibilityKey,
    Mismatch,
    compare,
    incompatible,
)
from memcube_protocol.errors import (
    ConflictError,
    InvalidConfigError,
    NotFoundError,
    UnsupportedError,
)
from memcube_protocol.identity import BaseIdentity

from memcube.memories.activation_key import (
    active_adapter_names,
    model_key,
    special_tokens,
)
from memcube.memories.kv_storage import dequantise, require_scales
from memcube.memories.model_identity import (
    live_identity,
    torch_dtypes,
)
from memcube.memories.reading import read_small, require_file

if TYPE_CHECKING:
    from memcube.memories.kv_layers import LayerView
    from memcube.memories.kv_streaming import HeldKv

FOLDER: Final = "activation"
GIVEN: Final = "given"
"""The special-token policy of a memory that was made from token ids."""


def mount_kv(
    folder: Path,
    model: Any,
    tokenizer: Any,
    *,
    base_identity: BaseIdentity | None = None,
    prefix_tokens: int | None = None,
    expected_ids: Sequence[int] | None = None,
    verify_blocks: bool = True,
    held: HeldKv | None = None,
) -> MountedKv:
    """The memory in `folder`, mapped and ready for `model`; mount the cube's LoRA before it.

    `prefix_tokens` mounts only the beginning; `expected_ids` are the ids that the prompt will
    start with, where the caller knows them; `verify_blocks=False` skips the hashes of files that
    were verified a moment ago. `held` spares another device than a CPU the reading of the file.

    Raises:
        IncompatibleError: names every field of the key that differs, and what to do.
        InvalidTensorsError, DigestMismatchError, InvalidConfigError: the files are damaged.
        NotFoundError: a file is missing.
        UnsupportedError: the model has layers that keep no keys and values.
    """
    manifest, ids, storage = open_kv(folder)
    require_attention(model)
    base = base_identity or live_identity(model)
    mismatches = list(compare(manifest.key, asked_key(manifest, ids, model, tokenizer, base)))
    mismatches += _id_mismatches(ids, expected_ids, prefix_tokens)
    if mismatches:
        raise incompatible(mismatches)
    count = len(ids) if prefix_tokens is None else prefix_tokens
    if not 1 <= count <= len(ids):
        raise NotFoundError(
            f"a prefix of {count} tokens of a memory of {len(ids)}", hint="ask for fewer tokens"
        )
    layers: Layers
    if model.device.type == "cpu":
        if verify_blocks:
            _verify_blocks(manifest, storage, count)
        layers = MappedLayers(tuple(views(manifest, storage, count, model)))
    else:
        from memcube.memories.kv_streaming import StreamedLayers

        source = held or folder / activation.KV_FILE
        layers = StreamedLayers(manifest, source, count, model.device, verify=verify_blocks)
    return MountedKv(manifest, ids[:count], model, layers)


class Layers(Protocol):
    """The layers of a KV memory on the model's device."""

    def view(self, position: int) -> LayerView:
        """Layer `position`, ready for what is computed from now on."""
        ...

    def close(self) -> None:
        """Let go of them."""
        ...


class MappedLayers:
    """Layers that are there: views of the mapped file, or decoded from it."""

    def __init__(self, views: tuple[LayerView, ...]) -> None:
        self._views = views

    def view(self, position: int) -> LayerView:
        """See `Layers.view`."""
        return self._views[position]

    def close(self) -> None:
        """See `Layers.close`."""
        self._views = ()


class MountedKv:
    """A KV memory on a model: the token ids that every prompt starts with, and fresh caches for them.

    On a CPU its tensors are the mapped file. On another device they may still be arriving: a damaged
    file then ends the first question that comes to it, with the error that a mount on a CPU raises.
    """

    def __init__(
        self, manifest: KvManifest, token_ids: tuple[int, ...], model: Any, layers: Layers
    ) -> None:
        self.manifest = manifest
        self.token_ids = token_ids
        self._model = model
        self._layers: Layers | None = layers
        self._adapters = active_adapter_names(model)

    def new_cache(self) -> Any:
        """A cache for one question: it shares the mapped tensors and starts behind the memory.

        Raises:
            ConflictError: the memory was unmounted, or the active adapters have changed since.
        """
        import torch
        from transformers import DynamicCache

        if self._layers is None:
            raise _unmounted()
        if active_adapter_names(self._model) != self._adapters:
            raise ConflictError(
                "other adapters are active than when this memory was mounted",
                hint="unmount KV memories before the LoRA memory that they rest on",
            )
        from memcube.memories.kv_layers import memory_layer

        cache = DynamicCache(config=self._model.config)
        dtype = torch_dtypes()[self.manifest.key.kv_dtype]
        sample = torch.empty(0, dtype=dtype, device=self._model.device)
        count = len(self.token_ids)
        cache.layers = [
            memory_layer(layer, partial(self._layers.view, position), sample, count)
            for position, layer in enumerate(cache.layers)
        ]
        return cache

    def wait(self) -> None:
        """Wait until every layer is on the device.

        Raises:
            DigestMismatchError, SizeMismatchError, InvalidTensorsError: the file is damaged.
            ConflictError: the memory was unmounted.
        """
        if self._layers is None:
            raise _unmounted()
        for position in range(len(self.manifest.layers)):
            self._layers.view(position)

    def unmount(self) -> None:
        """Let go of the tensors; caches in use keep what they have of them."""
        layers, self._layers = self._layers, None
        if layers is not None:
            layers.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.unmount()


def ids_of(
    tokenizer: Any, text: str | None, token_ids: Sequence[int] | None, add_special_tokens: bool
) -> list[int]:
    """The ids given, or those of the text given; exactly one of them.

    Raises:
        InvalidConfigError: neither, or both.
    """
    if (text is None) == (token_ids is None):
        raise InvalidConfigError(
            "a KV memory is made from a text or from token ids", hint="give exactly one of them"
        )
    if token_ids is not None:
        return list(token_ids)
    ids: list[int] = tokenizer(text, add_special_tokens=add_special_tokens)["input_ids"]
    return ids


def open_kv(folder: Path) -> tuple[KvManifest, tuple[int, ...], Any]:
    """Manifest, ids and mapped bytes of a memory whose files agree."""
    import torch

    raw_ids = read_small(folder / activation.TOKENS_FILE, 4 * limits.KV_TOKENS)
    raw_manifest = read_small(folder / activation.MANIFEST_FILE, limits.KV_MANIFEST_BYTES)
    kv = folder / activation.KV_FILE
    require_file(kv)
    size = kv.stat().st_size
    storage = torch.UntypedStorage.from_file(str(kv), False, size) if size else b""
    start = _bytes_of(storage, 0, size) if size else b""
    manifest = activation.check_folder_files(raw_manifest, raw_ids, start, size)
    return manifest, activation.decode_tokens(raw_ids), storage


def asked_key(
    manifest: KvManifest, ids: Sequence[int], model: Any, tokenizer: Any, base: BaseIdentity
) -> CompatibilityKey:
    """The key that `model` asks for: the memory's own ids, or those of its text where it carries one."""
    policy = manifest.key.special_tokens
    if policy != GIVEN:
        policy = special_tokens(tokenizer, added=policy != "bare")
    if manifest.source.text is not None and policy != GIVEN:
        ids = ids_of_text(tokenizer, manifest.source.text, policy)
    raw = activation.encode_tokens(ids)
    storage = manifest.key.kv_quantisation  # one that we read: it says nothing of the model
    return model_key(
        model, tokenizer, base=base, tokens=raw, special_tokens=policy, storage=storage
    )


def ids_of_text(tokenizer: Any, text: str, policy: str) -> tuple[int, ...]:
    """The token ids of `text` under the special-token `policy` of a key."""
    return tuple(ids_of(tokenizer, text, None, policy != "bare"))


def _id_mismatches(
    ids: Sequence[int], expected: Sequence[int] | None, prefix_tokens: int | None
) -> list[Mismatch]:
    if expected is None:
        return []
    count = len(ids) if prefix_tokens is None else prefix_tokens
    shared = activation.shared_tokens(ids, expected)
    if shared >= count:
        return []
    return [
        Mismatch(
            "tokens",
            f"{ids[shared]} at position {shared}",
            str(expected[shared]) if shared < len(expected) else "the end of the prompt",
            f"mount at most the {shared} tokens that they have in common",
        )
    ]


def _verify_blocks(manifest: KvManifest, storage: Any, tokens: int) -> None:
    """Check the blocks that hold the first `tokens` tokens of every tensor.

    Raises:
        DigestMismatchError: a block differs from its signed hash.
    """
    for blocks in manifest.blocks.values():
        row = blocks.block_bytes // limits.KV_BLOCK_TOKENS
        first, last = blocks.covering(blocks.start, blocks.start + row * tokens)
        blocks.verify(_bytes_of(storage, first, last), first)


def views(manifest: KvManifest, storage: Any, tokens: int, model: Any) -> Iterator[LayerView]:
    """The first `tokens` tokens of every layer on the model's device: views of `storage` if they can be.

    Raises:
        InvalidTensorsError: a scale is not one.
    """
    import torch

    from memcube.memories.kv_layers import LayerView

    dtypes, key = torch_dtypes(), manifest.key
    held = {name: (dtype, shape[1:]) for name, dtype, shape in manifest.tensors()}

    def rows(name: str) -> Any:
        dtype, shape = held[name]
        offset = manifest.blocks[name].start // tensors.DTYPE_BYTES[dtype]
        flat: Any = torch.empty(0, dtype=dtypes[dtype])
        return flat.set_(storage, offset, (tokens * prod(shape),), (1,)).view(tokens, *shape)

    def view(name: str) -> Any:
        tensor = rows(name)
        if key.kv_quantisation == INT8:
            scales = rows(activation.scale_of(name))
            require_scales(scales.numpy())
            tensor = dequantise(tensor, scales, dtypes[key.kv_dtype])
        return tensor.to(model.device).transpose(0, 1)[None]

    for position in range(len(manifest.layers)):
        yield LayerView(view(f"l{position}.k"), view(f"l{position}.v"))


def require_attention(model: Any) -> None:
    """Refuse a model with layers that keep a state which cannot be cut or laid out by token."""
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

    for layer in DynamicCache(config=model.config).layers:
        if type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer):
            raise no_kv(layer)


def _bytes_of(storage: Any, start: int, stop: int) -> memoryview:
    import torch

    flat: Any = torch.empty(0, dtype=torch.uint8).set_(storage, start, (stop - start,), (1,))
    return memoryview(flat.numpy())


def _unmounted() -> ConflictError:
    return ConflictError("this memory was unmounted", hint="mount it again")


def no_kv(layer: Any) -> UnsupportedError:
    """The refusal of a layer that keeps a state which cannot be cut by token."""
    return UnsupportedError(
        f"a {type(layer).__name__} of this model keeps no key and value for every token",
        hint="use the cube's text for this model: only attention layers can be dumped and mounted",
    )
