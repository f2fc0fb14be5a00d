"""The two files of an adapter, open: checked against each other, mapped, looked through once.

The tensors' file is opened once, and all that is said of it (header, hashes, finite values, the
tensors themselves) comes from that one mapping: nobody can put another file under its name meanwhile.
Its stamp is compared before and after, and again whenever the adapter is about to be used.
"""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Self

from memcube_protocol import limits, parametric, tensors
from memcube_protocol.errors import ForbiddenMediaTypeError, IntegrityError
from memcube_protocol.identity import AdapterIdentity
from memcube_protocol.parametric import Adapter
from memcube_protocol.tensors import Header, Rejection

from memcube.memories.model_identity import hashed_tensors, torch_dtypes
from memcube.memories.reading import read_small, require_file
from memcube.store.checks import FileChecks, Stamp

_FINITE: Final = "finite-adapter"
"""The kind of finding that names the identity of an adapter whose values are all finite."""
_PICKLES: Final = (
    "adapter_model.bin",
    "adapter_model.pt",
    "adapter_model.pth",
    "pytorch_model.bin",
)
_REMEMBERED_HEADER_BYTES: Final = 1024 * 1024


class AdapterFiles:
    """An adapter on disk. Use `open`; the mapping lives as long as a tensor of it is in use."""

    def __init__(self, file: Path, mapped: mmap.mmap, stamp: Stamp, adapter: Adapter) -> None:
        self._file = file
        self._mapped = mapped
        self._stamp = stamp
        self._identity: AdapterIdentity | None = None
        self.adapter = adapter

    @classmethod
    def open(cls, folder: Path) -> Self:
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
        mapped, stamp = _map(file)
        start = bytes(mapped[: tensors.LENGTH_BYTES])
        start += mapped[
            tensors.LENGTH_BYTES : tensors.LENGTH_BYTES + tensors.header_length(start, len(mapped))
        ]
        check = _check if len(start) > _REMEMBERED_HEADER_BYTES else _check_once
        return cls(file, mapped, stamp, check(raw_config, start, len(mapped)))

    def identity(self, checks: FileChecks | None = None) -> AdapterIdentity:
        """The adapter's identity, once every value is known to be finite.

        With `checks`, a file that was looked through before and has not changed is not read again.

        Raises:
            InvalidTensorsError: NaN or infinity in a tensor.
            IntegrityError: somebody writes into the file.
        """
        known = checks.get(_FINITE, self._stamp) if checks else None
        if known is not None:
            self._identity = AdapterIdentity.parse(known)
        else:
            _require_finite(self.adapter.header, self.tensors())
            self._identity = self._hashed()
            self.require_unchanged()
            if checks:
                checks.put(_FINITE, self._stamp, str(self._identity))
        return self._identity

    def tensors(self) -> dict[str, Any]:
        """The tensors under their own names, mapped: their bytes are read where they are used."""
        import torch

        raw, header = torch.frombuffer(self._mapped, dtype=torch.uint8), self.adapter.header
        flat: dict[str, Any] = {}
        state = {}
        for tensor in header.tensors:
            width, dtype = tensors.DTYPE_BYTES[tensor.dtype], torch_dtypes()[tensor.dtype]
            start, stop = header.range_of(tensor)
            if start % width:
                part = raw[start:stop].clone().view(dtype)
            else:
                if tensor.dtype not in flat:
                    end = len(raw) - len(raw) % width
                    flat[tensor.dtype] = raw[:end].view(dtype)
                part = flat[tensor.dtype][start // width : stop // width]
            state[tensor.name] = part.view(tensor.shape)
        return state

    def require_unchanged(self) -> None:
        """Refuse to go on with a file that was written into since it was opened.

        One that was replaced or deleted is still here as it was, and is fine.

        Raises:
            IntegrityError: it was written into.
        """
        try:
            now = Stamp.of(self._file)
        except OSError:
            return
        same_file = (now.device, now.inode) == (self._stamp.device, self._stamp.inode)
        if not same_file or now.is_of(self._stamp):
            return
        # A link or another mode changes the times as well: the bytes decide. A file that became
        # shorter must not be touched, as reading behind its end kills the process.
        if now.size_bytes != self._stamp.size_bytes or self._hashed() != self._identity:
            raise IntegrityError(
                f"{self._file.parent.name}/{self._file.name} was written into while it was in use",
                hint="unmount it, and pull the cube again",
            )
        self._stamp = now

    def _hashed(self) -> AdapterIdentity:
        with memoryview(self._mapped) as view:
            return parametric.adapter_identity(hashed_tensors(view))


def _map(file: Path) -> tuple[mmap.mmap, Stamp]:
    """The content of `file`, a private copy of whatever would be written; and what the file looks like.

    A stamp is waited for that any later change makes another.
    """
    require_file(file)
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        stamp = Stamp.settled(descriptor)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode) or not stamp.size_bytes:
            tensors.header_length(b"", 0)
        return mmap.mmap(descriptor, stamp.size_bytes, access=mmap.ACCESS_COPY), stamp
    finally:
        os.close(descriptor)


def _check(config: bytes, header: bytes, file_bytes: int) -> Adapter:
    return parametric.check(config, tensors.parse_header(header, file_bytes))


@lru_cache(maxsize=64)
def _check_once(config: bytes, header: bytes, file_bytes: int) -> Adapter:
    """As `_check`; the same bytes give the same adapter."""
    return _check(config, header, file_bytes)


def _require_finite(header: Header, state: Mapping[str, Any]) -> None:
    import torch

    for tensor in header.tensors:
        if not tensor.size_bytes:
            continue
        low, high = torch.aminmax(state[tensor.name])
        if not (torch.isfinite(low) and torch.isfinite(high)):
            raise tensors.rejected(
                Rejection.NOT_FINITE, f"{tensor.name[:200]!r} holds NaN or infinity"
            )
