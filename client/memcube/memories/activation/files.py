"""The files of a KV memory: opened and checked against each other, mapped, verified block by block."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterator
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from memcube_protocol import activation, limits, tensors
from memcube_protocol.activation import KvManifest
from memcube_protocol.compatibility import INT8
from memcube_protocol.errors import DigestMismatchError, MemcubeError

from memcube.memories.activation.room import room_errors
from memcube.memories.activation.storage import dequantise, require_bounded, require_scales
from memcube.memories.model_identity import torch_dtypes
from memcube.memories.reading import read_small, require_file
from memcube.store.checks import Stamp

if TYPE_CHECKING:
    from memcube.memories.activation.layers import LayerView

PARTIAL_FILE: Final = "kv.safetensors.partial"
"""Stands for `kv.safetensors` where only a prefix was fetched: the rest are holes (see `kv_prefix`)."""


def kv_file(folder: Path) -> Path:
    """Where the tensors of the memory in `folder` lie, whole or in part."""
    whole, partial = folder / activation.KV_FILE, folder / PARTIAL_FILE
    return partial if partial.is_file() and not whole.exists() else whole


def open_kv(folder: Path) -> tuple[KvManifest, tuple[int, ...], Any]:
    """Manifest, ids and mapped bytes of a memory whose files agree.

    Raises:
        NotFoundError: a file is missing.
        InvalidTensorsError, DigestMismatchError, InvalidConfigError: the files do not agree.
        LimitExceededError: a file is too large, or there is no room to map it.
    """
    import torch

    raw_ids = read_small(folder / activation.TOKENS_FILE, 4 * limits.KV_TOKENS)
    raw_manifest = read_small(folder / activation.MANIFEST_FILE, limits.KV_MANIFEST_BYTES)
    kv = kv_file(folder)
    require_file(kv)
    size = kv.stat().st_size
    with room_errors():
        storage = torch.UntypedStorage.from_file(str(kv), False, size) if size else b""
    start = _bytes_of(storage, 0, size) if size else b""
    manifest = activation.check_folder_files(raw_manifest, raw_ids, start, size)
    return manifest, activation.decode_tokens(raw_ids), storage


class WatchedFile:
    """A file of tensors that is mapped: pages that were not read yet would change with it.

    It is known by its descriptor, not by its name: whoever moves it away and writes into it there is
    noticed. Make this before the file is mapped.

    Raises:
        NotFoundError: there is no file.
    """

    def __init__(self, path: Path) -> None:
        require_file(path)
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        weakref.finalize(self, os.close, self._descriptor)
        self._stamp = Stamp.settled(self._descriptor)

    def require_still_there(self) -> None:
        """Refuse a file that another one has taken the name of: that one may be the one that is mapped.

        Raises:
            DigestMismatchError: it has, or there is none.
        """
        try:
            found = Stamp.of(self.path)
        except OSError:
            found = None
        if found is None or not found.is_of(self._stamp):
            raise self._changed()

    def require_unchanged(self, check: Callable[[], None]) -> None:
        """Refuse a file that was written into since; one that was moved, replaced or deleted stays as it was mapped.

        A link, or its removal, changes the times as well: then the bytes decide, which `check` reads.

        Raises:
            DigestMismatchError: it was.
        """
        now = Stamp.of(self._descriptor)
        if now.is_of(self._stamp):
            return
        # Of a file that became shorter nothing must be read: behind its end that kills the process.
        if now.size_bytes != self._stamp.size_bytes:
            raise self._changed()
        try:
            check()
        except MemcubeError:
            raise self._changed() from None
        self._stamp = now

    def _changed(self) -> DigestMismatchError:
        return DigestMismatchError(
            f"{self.path.name} was changed since it was checked",
            hint="mount the memory again: it is checked anew",
        )


def verify_blocks(manifest: KvManifest, storage: Any, tokens: int) -> None:
    """Check the blocks that hold the first `tokens` tokens of every tensor, hashes and numbers.

    Raises:
        DigestMismatchError: a block differs from its signed hash.
        InvalidTensorsError: it holds NaN, infinity or a huge number.
    """
    for name, dtype, _ in manifest.tensors():
        blocks = manifest.blocks[name]
        row = blocks.block_bytes // limits.KV_BLOCK_TOKENS
        first, last = blocks.covering(blocks.start, blocks.start + row * tokens)
        content = _bytes_of(storage, first, last)
        blocks.verify(content, first)
        require_bounded(content, name, dtype)


def views(manifest: KvManifest, storage: Any, tokens: int, model: Any) -> Iterator[LayerView]:
    """The first `tokens` tokens of every layer on the model's device: views of `storage` if they can be.

    Raises:
        InvalidTensorsError: a scale is not one.
    """
    import torch

    from memcube.memories.activation.layers import LayerView

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
            require_scales(scales.numpy(), key.kv_dtype)
            tensor = dequantise(tensor, scales, dtypes[key.kv_dtype])
        return tensor.to(model.device).transpose(0, 1)[None]

    for position in range(len(manifest.layers)):
        yield LayerView(view(f"l{position}.k"), view(f"l{position}.v"))


def _bytes_of(storage: Any, start: int, stop: int) -> memoryview:
    import torch

    flat: Any = torch.empty(0, dtype=torch.uint8).set_(storage, start, (stop - start,), (1,))
    return memoryview(flat.numpy())
