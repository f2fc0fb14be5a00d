"""A KV memory on its way from a file to a device: layer by layer, checked while it passes.

    readers  read blocks into one of two staging buffers and compare their hashes
    copies   leave the other buffer, on a stream of their own
    layers   are marked as they are complete: the model computes the first while the next arrive

Staging buffers of a CUDA device are pinned, so that its copy engine fetches them by itself. The same code
runs with a CPU as the device, where copies are plain ones.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any, Final

from memcube_protocol import limits
from memcube_protocol.activation import KvManifest, kv_tensors, scale_of
from memcube_protocol.compatibility import INT8
from memcube_protocol.errors import ConflictError, LimitExceededError, SizeMismatchError

from memcube.memories.kv_layers import LayerView
from memcube.memories.kv_storage import dequantise, require_scales
from memcube.memories.model_identity import torch_dtypes

STAGE_BYTES: Final = 32 * limits.MIB
"""Bytes of each of the two staging buffers."""
PIECE_BYTES: Final = 4 * limits.MIB
"""Bytes that one reader takes at once."""
_READERS: Final = min(16, os.cpu_count() or 1)


@dataclass(frozen=True, slots=True)
class _Piece:
    """Whole blocks of a tensor: bytes `start` to `start + size` of the file, at `place` of the tensor."""

    tensor: str
    start: int
    size: int
    place: int


@dataclass(slots=True)
class _Stage:
    """What passes through a buffer at once, and the layers that are complete behind it."""

    pieces: list[_Piece]
    layers: list[int]

    @property
    def size(self) -> int:
        return sum(piece.size for piece in self.pieces)


class StreamedLayers:
    """The layers of the KV memory `manifest` whose tensors lie in `path`, arriving on `device`.

    Only the blocks that hold the first `tokens` tokens are read. `close` ends it at any time.

    Raises:
        LimitExceededError: the device has too little free memory.
    """

    def __init__(
        self, manifest: KvManifest, path: Path, tokens: int, device: Any, *, verify: bool = True
    ) -> None:
        self._manifest = manifest
        self._path = path
        self._tokens = tokens
        self._verify = verify
        self._closed = threading.Event()
        self._copies = _Copies(device)
        self._dtypes = {name: dtype for name, dtype, _ in manifest.tensors()}
        self._held = _allocated(manifest, tokens, device)
        self._parts: dict[str, Any] = {}
        self._views: list[Future[Any]] = [Future() for _ in manifest.layers]
        self._thread = threading.Thread(target=self._run, name="kv", daemon=True)
        self._thread.start()

    def view(self, position: int) -> LayerView:
        """Layer `position`, ready for what is computed from now on.

        Raises:
            DigestMismatchError, SizeMismatchError, InvalidTensorsError: the file is damaged.
            ConflictError: the memory was unmounted.
        """
        view, mark = self._views[position].result()
        self._copies.use(mark)
        return LayerView(view.keys[:, :, : self._tokens], view.values[:, :, : self._tokens])

    def close(self) -> None:
        """Stop reading and let go of the device's memory; layers in use stay."""
        self._closed.set()
        self._thread.join()
        self._copies.finish()
        self._held, self._parts = {}, {}
        self._views = [_refused() for _ in self._views]

    def _run(self) -> None:
        try:
            with self._path.open("rb", buffering=0) as file, ThreadPoolExecutor(_READERS) as pool:
                self._stream(file.fileno(), pool)
        except BaseException as error:  # whoever waits for a layer hears of it
            for view in self._views:
                if not view.done():
                    view.set_exception(_told(error))

    def _stream(self, file: int, pool: ThreadPoolExecutor) -> None:
        before: tuple[_Stage, _Buffer, list[Future[None]]] | None = None
        stages = _stages(self._manifest, self._tokens)
        size = max(stage.size for stage in stages)
        for stage, buffer in zip(stages, cycle((_Buffer(self._copies, size), _Buffer(self._copies, size)))):  # fmt: skip
            if self._closed.is_set():
                raise _unmounted()
            buffer.wait()
            reads = self._read(file, stage, buffer, pool)
            if before:
                self._send(*before)
            before = stage, buffer, reads
        assert before is not None, "a memory has layers"
        self._send(*before)

    def _read(
        self, file: int, stage: _Stage, buffer: _Buffer, pool: ThreadPoolExecutor
    ) -> list[Future[None]]:
        at, reads = 0, []
        for piece in stage.pieces:
            into = buffer.bytes[at : at + piece.size]
            reads.append(pool.submit(self._read_piece, file, piece, into))
            at += piece.size
        return reads

    def _read_piece(self, file: int, piece: _Piece, into: memoryview) -> None:
        done = 0
        while done < piece.size:
            count = os.preadv(file, [into[done:]], piece.start + done)
            if not count:
                raise SizeMismatchError(
                    f"{self._path.name} became shorter while it was read",
                    hint="pull the cube again",
                )
            done += count
        if self._verify:
            self._manifest.blocks[piece.tensor].verify(into, piece.start)

    def _send(self, stage: _Stage, buffer: _Buffer, reads: Sequence[Future[None]]) -> None:
        for read in reads:
            read.result()
        at = 0
        with self._copies.issued():
            for piece in stage.pieces:
                part = buffer.tensor[at : at + piece.size]
                self._require_scales(piece, part)
                target = self._bytes(piece.tensor)[piece.place : piece.place + piece.size]
                target.copy_(part, non_blocking=True)
                at += piece.size
            done = [(position, self._view(position)) for position in stage.layers]
            mark = self._copies.mark()
        buffer.busy = mark
        for position, view in done:
            self._views[position].set_result((view, mark))

    def _require_scales(self, piece: _Piece, part: Any) -> None:
        if self._manifest.key.kv_quantisation == INT8 and self._dtypes[piece.tensor] != "I8":
            require_scales(part.view(torch_dtypes()[self._dtypes[piece.tensor]]))

    def _view(self, position: int) -> LayerView:
        return LayerView(self._rows(f"l{position}.k"), self._rows(f"l{position}.v"))

    def _bytes(self, name: str) -> Any:
        """Where the bytes of a tensor go: into the cache, or beside it if they have to be decoded."""
        if self._manifest.key.kv_quantisation != INT8:
            return self._held[name].view(-1).view(torch_dtypes()["U8"])
        if name not in self._parts:
            self._parts[name] = self._copies.scratch(_covered(self._manifest, name, self._tokens))
        return self._parts[name]

    def _rows(self, name: str) -> Any:
        """The tensor as [1, heads, tokens, width]."""
        rows = self._held[name]
        if self._manifest.key.kv_quantisation == INT8:
            numbers, scales = (self._decoded(each) for each in (name, scale_of(name)))
            dequantise(numbers.view(rows.shape), scales.view(rows.shape[:2]), rows.dtype, out=rows)
        return rows.transpose(0, 1)[None]

    def _decoded(self, name: str) -> Any:
        return self._parts.pop(name).view(torch_dtypes()[self._dtypes[name]])


class _Copies:
    """Copies to one device, in order, beside what it computes; on a CPU they are done at once."""

    def __init__(self, device: Any) -> None:
        import torch

        self._device = device
        self._cuda = torch.cuda if torch.device(device).type == "cuda" else None
        self._stream: Any = None
        if self._cuda:
            self._stream = self._cuda.Stream(device)
            # What lay in the memory before may still be in use by what was asked for earlier.
            self._stream.wait_stream(self._cuda.current_stream(device))

    def buffer(self, size: int) -> Any:
        """Host memory that the device can fetch from."""
        import torch

        return torch.empty(size, dtype=torch.uint8, pin_memory=self._cuda is not None)

    def scratch(self, size: int) -> Any:
        """Memory of the device, asked for inside `issued`: freed, it serves later copies alone."""
        import torch

        return torch.empty(size, dtype=torch.uint8, device=self._device)

    def issued(self) -> AbstractContextManager[Any]:
        """What is copied and computed inside happens behind all copies before."""
        return self._cuda.stream(self._stream) if self._cuda else nullcontext()

    def mark(self) -> Any:
        """What to wait for before using what was copied so far."""
        return self._stream.record_event() if self._cuda else None

    def use(self, mark: Any) -> None:
        """Let what is computed from now on wait for `mark`."""
        if self._cuda:
            self._cuda.current_stream(self._stream.device).wait_event(mark)

    def finish(self) -> None:
        """Wait for all copies."""
        if self._cuda:
            self._stream.synchronize()


class _Buffer:
    """A staging buffer; `busy` marks the copies that still leave it."""

    def __init__(self, copies: _Copies, size: int) -> None:
        self.tensor = copies.buffer(size)
        self.bytes = memoryview(self.tensor.numpy())
        self.busy: Any = None

    def wait(self) -> None:
        """Wait until it can be filled anew."""
        if self.busy is not None:
            self.busy.synchronize()


def _allocated(manifest: KvManifest, tokens: int, device: Any) -> dict[str, Any]:
    """Room on the device for keys and values of whole blocks that hold the first `tokens` tokens."""
    import torch

    key = manifest.key
    rows = min(-(-tokens // limits.KV_BLOCK_TOKENS) * limits.KV_BLOCK_TOKENS, key.token_count)
    shapes = {name: shape for name, _, shape in kv_tensors(manifest.layers, rows, key.kv_dtype)}
    dtype = torch_dtypes()[key.kv_dtype]
    try:
        return {
            name: torch.empty(shape, dtype=dtype, device=device) for name, shape in shapes.items()
        }
    except torch.OutOfMemoryError:
        raise _full() from None


def _covered(manifest: KvManifest, name: str, tokens: int) -> int:
    """Bytes of the whole blocks of tensor `name` that hold its first `tokens` tokens."""
    blocks = manifest.blocks[name]
    count = -(-tokens // limits.KV_BLOCK_TOKENS)
    return min(count * blocks.block_bytes, blocks.size)


def _stages(manifest: KvManifest, tokens: int) -> list[_Stage]:
    """What to read, in the order of the layers, in portions of about `STAGE_BYTES`."""
    stages = [_Stage([], [])]
    for position in range(len(manifest.layers)):
        names = [name for name, _, _ in manifest.tensors() if name.startswith(f"l{position}.")]
        for piece in (each for name in names for each in _pieces(manifest, name, tokens)):
            if stages[-1].pieces and stages[-1].size + piece.size > STAGE_BYTES:
                stages.append(_Stage([], []))
            stages[-1].pieces.append(piece)
        stages[-1].layers.append(position)
    return stages


def _pieces(manifest: KvManifest, name: str, tokens: int) -> Iterator[_Piece]:
    blocks = manifest.blocks[name]
    size = _covered(manifest, name, tokens)
    step = max(1, PIECE_BYTES // blocks.block_bytes) * blocks.block_bytes
    for at in range(0, size, step):
        yield _Piece(name, blocks.start + at, min(step, size - at), at)


def _told(error: BaseException) -> BaseException:
    import torch

    return _full() if isinstance(error, torch.OutOfMemoryError) else error


def _full() -> LimitExceededError:
    return LimitExceededError(
        "the device has no room for the keys and values of this memory",
        hint="mount a shorter prefix, or free memory of the device",
    )


def _unmounted() -> ConflictError:
    return ConflictError("this memory was unmounted", hint="mount it again")


def _refused() -> Future[Any]:
    refused: Future[Any] = Future()
    refused.set_exception(_unmounted())
    return refused
