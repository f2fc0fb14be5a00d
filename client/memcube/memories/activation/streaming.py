"""A KV memory on its way from a file to a device: layer by layer, checked while it passes.

    readers  read blocks into staging buffers and compare their hashes
    copies   leave the buffers that are full, on a stream of their own
    layers   are marked as they are complete: the model computes the first while the next arrive

Staging buffers of a CUDA device are pinned, so that its copy engine fetches them by itself. The same code
runs with a CPU as the device, where copies are plain ones.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from itertools import cycle
from pathlib import Path
from typing import Any, Final

import numpy as np
from memcube_protocol import limits
from memcube_protocol.activation import SCALE_DTYPE, KvManifest, kv_tensors, scale_of
from memcube_protocol.compatibility import INT8
from memcube_protocol.errors import ConflictError, SizeMismatchError
from memcube_protocol.values import frozen

from memcube.memories.activation.layers import LayerView
from memcube.memories.activation.room import is_full, no_room, room_errors
from memcube.memories.activation.storage import dequantise, require_bounded, require_scales
from memcube.memories.model_identity import torch_dtypes
from memcube.memories.turns import unmounted

STAGE_BYTES: Final = 64 * limits.MIB
"""Bytes of a staging buffer: several readers fill it at once."""
BUFFERS: Final = 4
"""One is copied from while the others are filled."""
PIECE_BYTES: Final = 16 * limits.MIB
"""Bytes that one reader takes at once: each piece costs the interpreter, which also asks the model."""
_READERS: Final = min(8, os.cpu_count() or 1)
"""More would read faster alone, and hold up the thread that asks the model."""


@frozen
class _Piece:
    """Whole blocks of a tensor: bytes `start` to `start + size` of the file, at `place` of the tensor."""

    tensor: str
    start: int
    size: int
    place: int


@dataclass(slots=True)
class _Stage:
    """What passes through a buffer at once, and the layers that are complete behind it."""

    pieces: list[_Piece] = field(default_factory=list)
    layers: list[int] = field(default_factory=list)
    size: int = 0

    def add(self, piece: _Piece) -> None:
        """Take `piece` behind the others."""
        self.pieces.append(piece)
        self.size += piece.size

    def places(self) -> Iterator[tuple[_Piece, int]]:
        """Every piece and where it begins in a buffer that holds them all."""
        at = 0
        for piece in self.pieces:
            yield piece, at
            at += piece.size


class HeldKv:
    """The tensors of a KV memory in pinned host memory, read and checked once, for many mounts.

    Raises:
        DigestMismatchError, SizeMismatchError: the file is damaged.
    """

    def __init__(self, manifest: KvManifest, path: Path, *, verify: bool = True) -> None:
        self.manifest = manifest
        first = min(blocks.start for blocks in manifest.blocks.values())
        self._start = first
        size = sum(blocks.size for blocks in manifest.blocks.values())
        self._tensor = _Copies("cuda" if _has_cuda() else "cpu").buffer(size)
        into = memoryview(self._tensor.numpy())
        pieces = (
            piece for stage in _stages(manifest, manifest.key.token_count) for piece in stage.pieces
        )
        with path.open("rb", buffering=0) as file, _readers() as pool:
            reader = _Reader(manifest, file.fileno(), path.name, verify)
            parts = [(piece, piece.start - first) for piece in pieces]
            reads = [pool.submit(reader, piece, into[at : at + piece.size]) for piece, at in parts]
            for read in reads:
                read.result()

    def part(self, piece: _Piece) -> Any:
        """The bytes of `piece`."""
        at = piece.start - self._start
        return self._tensor[at : at + piece.size]


@dataclass(frozen=True)
class _Reader:
    """Reads pieces of the open file `file`; checks them if asked to, and scales always."""

    manifest: KvManifest
    file: int
    name: str
    verify: bool

    @cached_property
    def dtypes(self) -> Mapping[str, str]:
        """The element type of every tensor."""
        return {name: dtype for name, dtype, _ in self.manifest.tensors()}

    @cached_property
    def scales(self) -> frozenset[str]:
        """The tensors that are scales."""
        if self.manifest.key.kv_quantisation != INT8:
            return frozenset()
        return frozenset(name for name, dtype in self.dtypes.items() if dtype == SCALE_DTYPE)

    def __call__(self, piece: _Piece, into: memoryview) -> None:
        done = 0
        while done < piece.size:
            count = os.preadv(self.file, [into[done:]], piece.start + done)
            if not count:
                raise SizeMismatchError(
                    f"{self.name} became shorter while it was read", hint="pull the cube again"
                )
            done += count
        if self.verify:
            self.manifest.blocks[piece.tensor].verify(into, piece.start)
            require_bounded(into, piece.tensor, self.dtypes[piece.tensor])
        if piece.tensor in self.scales:
            require_scales(np.frombuffer(into, "<f4"), self.manifest.key.kv_dtype)


class StreamedLayers:
    """The layers of the KV memory `manifest`, arriving on `device` from a file or from pinned memory.

    Only the blocks that hold the first `tokens` tokens are read. `verify` is for files: what is held
    was checked before. `close` ends it at any time.

    Raises:
        ConflictError: what is held is another memory.
        LimitExceededError: the device has too little free memory.
    """

    def __init__(
        self,
        manifest: KvManifest,
        source: Path | HeldKv,
        tokens: int,
        device: Any,
        *,
        verify: bool = True,
    ) -> None:
        if isinstance(source, HeldKv) and source.manifest != manifest:
            raise ConflictError(
                "what is held in pinned memory is another memory",
                hint="hold the memory that is mounted",
            )
        self._manifest = manifest
        self._source = source
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
            if isinstance(self._source, HeldKv):
                self._stream_held(self._source)
            else:
                self._stream_file(self._source)
        except BaseException as error:  # whoever waits for a layer hears of it
            for view in self._views:
                if not view.done():
                    view.set_exception(_told(error))

    def _stream_held(self, held: HeldKv) -> None:
        for stage in _stages(self._manifest, self._tokens):
            self._require_open()
            self._send(stage, [held.part(piece) for piece in stage.pieces])

    def _stream_file(self, path: Path) -> None:
        stages = _stages(self._manifest, self._tokens)
        size = max(stage.size for stage in stages)
        buffers = [_Buffer(self._copies, size) for _ in range(min(BUFFERS, len(stages)))]
        waiting: deque[tuple[_Stage, _Buffer, list[Future[None]]]] = deque()
        with path.open("rb", buffering=0) as file, _readers() as pool:
            reader = _Reader(self._manifest, file.fileno(), path.name, self._verify)
            for stage, buffer in zip(stages, cycle(buffers), strict=False):
                self._require_open()
                if len(waiting) == len(buffers):
                    self._send_read(*waiting.popleft())
                waiting.append((stage, buffer, buffer.fill(stage, reader, pool)))
            while waiting:
                self._send_read(*waiting.popleft())

    def _require_open(self) -> None:
        if self._closed.is_set():
            raise unmounted()

    def _send_read(self, stage: _Stage, buffer: _Buffer, reads: Sequence[Future[None]]) -> None:
        for read in reads:
            read.result()
        buffer.busy = self._send(stage, buffer.parts(stage))

    def _send(self, stage: _Stage, parts: Sequence[Any]) -> Any:
        """Copy `parts`, the bytes of the pieces of `stage`, and say which layers are complete."""
        with self._copies.issued():
            for piece, part in zip(stage.pieces, parts, strict=True):
                target = self._bytes(piece.tensor)[piece.place : piece.place + piece.size]
                target.copy_(part, non_blocking=True)
            done = [(position, self._view(position)) for position in stage.layers]
            mark = self._copies.mark()
        for position, view in done:
            self._views[position].set_result((view, mark))
        return mark

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
        """Make what is computed from now on wait for `mark`."""
        if self._cuda:
            self._cuda.current_stream(self._stream.device).wait_event(mark)

    def finish(self) -> None:
        """Wait for all copies."""
        if self._cuda:
            self._stream.synchronize()


class _Buffer:
    """A staging buffer; `busy` marks the copies that still leave it."""

    def __init__(self, copies: _Copies, size: int) -> None:
        self._tensor = copies.buffer(size)
        self._bytes = memoryview(self._tensor.numpy())
        self.busy: Any = None

    def fill(self, stage: _Stage, reader: _Reader, pool: ThreadPoolExecutor) -> list[Future[None]]:
        """Begin to read the pieces of `stage`, once the copies before have left."""
        if self.busy is not None:
            self.busy.synchronize()
        return [
            pool.submit(reader, piece, self._bytes[at : at + piece.size])
            for piece, at in stage.places()
        ]

    def parts(self, stage: _Stage) -> list[Any]:
        """What was read, piece by piece."""
        return [self._tensor[at : at + piece.size] for piece, at in stage.places()]


def _allocated(manifest: KvManifest, tokens: int, device: Any) -> dict[str, Any]:
    """Room on the device for keys and values of whole blocks that hold the first `tokens` tokens."""
    import torch

    key = manifest.key
    rows = min(-(-tokens // limits.KV_BLOCK_TOKENS) * limits.KV_BLOCK_TOKENS, key.token_count)
    shapes = {name: shape for name, _, shape in kv_tensors(manifest.layers, rows, key.kv_dtype)}
    dtype = torch_dtypes()[key.kv_dtype]
    with room_errors():
        return {
            name: torch.empty(shape, dtype=dtype, device=device) for name, shape in shapes.items()
        }


def _covered(manifest: KvManifest, name: str, tokens: int) -> int:
    """Bytes of the whole blocks of tensor `name` that hold its first `tokens` tokens."""
    blocks = manifest.blocks[name]
    count = -(-tokens // limits.KV_BLOCK_TOKENS)
    return min(count * blocks.block_bytes, blocks.size)


def _stages(manifest: KvManifest, tokens: int) -> list[_Stage]:
    """What to read, in the order of the layers, in portions of about `STAGE_BYTES`."""
    names = [name for name, _, _ in manifest.tensors()]
    each = len(names) // len(manifest.layers)
    stages = [_Stage()]
    for position in range(len(manifest.layers)):
        for name in names[position * each : (position + 1) * each]:
            for piece in _pieces(manifest, name, tokens):
                if stages[-1].pieces and stages[-1].size + piece.size > STAGE_BYTES:
                    stages.append(_Stage())
                stages[-1].add(piece)
        stages[-1].layers.append(position)
    return stages


def _pieces(manifest: KvManifest, name: str, tokens: int) -> Iterator[_Piece]:
    blocks = manifest.blocks[name]
    size = _covered(manifest, name, tokens)
    step = max(1, PIECE_BYTES // blocks.block_bytes) * blocks.block_bytes
    for at in range(0, size, step):
        yield _Piece(name, blocks.start + at, min(step, size - at), at)


@contextmanager
def _readers() -> Iterator[ThreadPoolExecutor]:
    """Threads that read; what they have not begun when something fails they leave."""
    pool = ThreadPoolExecutor(_READERS)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _told(error: BaseException) -> BaseException:
    return no_room() if is_full(error) else error


def _refused() -> Future[Any]:
    refused: Future[Any] = Future()
    refused.set_exception(unmounted())
    return refused
