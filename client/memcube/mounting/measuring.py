"""Measuring this machine for the planner: how fast files are read and checked, how fast a model reads.

Each takes a fraction of a second on a machine of use, once: what was found is remembered
(`memcube.speeds`). The figures are end to end, so that hashes count as they do at a mount.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import blake3
from memcube_protocol.digest import new_hasher
from memcube_protocol.errors import StorageError

from memcube.speeds import Prefill, Rate, Speeds
from memcube.store import files

_SAMPLE_BYTES: Final = 16 << 20
_PIECE_BYTES: Final = 1 << 20
_PROBES: Final = 32
"""Pages that are asked for when it is told how much of a file lies in the page cache."""

_LENGTHS: Final = (64, 256, 1024)
_LONG_ENOUGH_S: Final = 0.5
"""A model that took this long is not asked to read a longer text."""


def with_disk(speeds: Speeds, home: Path, now: datetime) -> Speeds:
    """`speeds` with the disk under `home` measured, unless it was before.

    A file of 16 MiB without a name is written there, read and hashed as a mount does (SHA-256, and
    BLAKE3 of its blocks), first as nothing of it is in the page cache, then as all of it is. A disk
    that refuses is not measured.
    """
    if speeds.cold and speeds.warm:
        return speeds
    try:
        with tempfile.TemporaryFile(dir=files.make_folder(home), buffering=0) as file:
            _write_sample(file.fileno())
            cold, warm = _rate(file.fileno(), now), _rate(file.fileno(), now)
    except (OSError, StorageError):
        return speeds
    return replace(speeds, cold=cold, warm=warm)


def with_model(speeds: Speeds, model: Any, now: datetime) -> Speeds:
    """`speeds` with how fast `model` reads, measured unless one of its kind was before.

    It reads 64 tokens, then 256, then 1024, until one takes half a second. A device without room for
    that is not measured.
    """
    from memcube.memories.activation.room import is_full

    mark = model_mark(model)
    if mark in speeds.prefills:
        return speeds
    try:
        return speeds.with_prefill(mark, measure_prefill(model, now))
    except (MemoryError, RuntimeError) as error:
        if is_full(error):
            return speeds
        raise


def model_mark(model: Any) -> str:
    """What the speed of `model` depends on: its shape, its element type, the device, the threads."""
    import torch

    from memcube.memories.activation.key import architecture_hash, compute_dtype

    device = model.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    threads = torch.get_num_threads() if device.type == "cpu" else 0
    return f"{architecture_hash(model.config).hex[:32]} {compute_dtype(model)} {name} {threads}"


def measure_prefill(model: Any, now: datetime) -> Prefill:
    """How long `model` reads a text, by two or three short ones."""
    from memcube.memories.activation.dump import prefill

    longest = getattr(model.config, "max_position_embeddings", None) or _LENGTHS[-1]
    prefill(model, [0] * 8)  # what is loaded lazily is loaded now
    taken: list[tuple[int, float]] = []
    for length in _LENGTHS:
        tokens = min(length, longest)
        taken.append((tokens, _timed(partial(prefill, model, [0] * tokens), model)))
        if taken[-1][1] > _LONG_ENOUGH_S or tokens == longest:
            break
    return Prefill.through(taken[max(len(taken) - 2, 0)], taken[-1], now)


def warm_share(path: Path) -> float:
    """How much of the file at `path` lies in the page cache, by a sample; 0 where that is not told."""
    flag = getattr(os, "RWF_NOWAIT", None)
    if flag is None:
        return 0.0
    try:
        descriptor = files.open_file(path)
    except OSError:
        return 0.0
    try:
        size = os.fstat(descriptor).st_size
        found = [_is_warm(descriptor, size * probe // _PROBES, flag) for probe in range(_PROBES)]
        return sum(found) / len(found)
    except OSError:
        return 0.0
    finally:
        os.close(descriptor)


def _is_warm(descriptor: int, offset: int, flag: int) -> bool:
    try:
        return os.preadv(descriptor, [bytearray(1)], offset, flag) > 0
    except BlockingIOError:
        return False


def _write_sample(file: int) -> None:
    piece = os.urandom(_PIECE_BYTES)  # nothing that a disk could pack
    for _ in range(_SAMPLE_BYTES // _PIECE_BYTES):
        files.write_all(file, piece)
    os.fsync(file)
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)


def _rate(file: int, now: datetime) -> Rate:
    whole, blocks, read_bytes = new_hasher(), blake3.blake3(), 0
    began_s = time.perf_counter()
    while piece := os.pread(file, _PIECE_BYTES, read_bytes):
        whole.update(piece)
        blocks.update(piece)
        read_bytes += len(piece)
    return Rate.at(read_bytes / max(time.perf_counter() - began_s, 1e-9), now)


def _timed(act: Callable[[], Any], model: Any) -> float:
    import torch

    began_s = time.perf_counter()
    act()
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    return max(time.perf_counter() - began_s, 1e-6)
