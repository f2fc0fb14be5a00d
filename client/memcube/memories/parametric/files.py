"""The two files of an adapter, open: checked against each other, mapped, looked through once.

The tensors' file is opened once, and all that is said of it (header, hashes, bounds of values, the
tensors themselves) comes from that one mapping: nobody can put another file under its name meanwhile.
Its stamp is compared before and after, and again whenever the adapter is about to be used.
"""

from __future__ import annotations

import mmap
import os
import stat
import weakref
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Self

from memcube_protocol import adapter_config, limits, parametric, tensors
from memcube_protocol.errors import ForbiddenMediaTypeError, IntegrityError
from memcube_protocol.identity import AdapterIdentity
from memcube_protocol.parametric import Adapter
from memcube_protocol.tensors import Rejection

from memcube.memories.model_identity import hashed_tensors, torch_dtypes
from memcube.memories.reading import read_small, require_file
from memcube.store.checks import FileChecks, Stamp

_BOUNDED: Final = "bounded-adapter"
"""The kind of finding that names the identity of an adapter whose values are all within bounds."""
_PICKLES: Final = (
    "adapter_model.bin",
    "adapter_model.pt",
    "adapter_model.pth",
    "pytorch_model.bin",
)
_REMEMBERED_HEADER_BYTES: Final = 1024 * 1024


class AdapterFiles:
    """An adapter on disk. Use `open`; the mapping lives as long as a tensor of it is in use."""

    def __init__(self, opened: _Opened, adapter: Adapter) -> None:
        self._opened = opened
        self._stamp = opened.stamp
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
        config, file = folder / adapter_config.CONFIG_FILE, folder / parametric.TENSORS_FILE
        if not file.is_file() and any((folder / name).exists() for name in _PICKLES):
            raise ForbiddenMediaTypeError(
                f"{folder.name} holds its weights in a pickle, which is never loaded",
                hint="save the adapter with safe_serialization=True",
            )
        raw_config = read_small(config, limits.CONFIG_BYTES)
        opened = _Opened(file)
        size_bytes, first = opened.stamp.size_bytes, opened.mapped[: tensors.LENGTH_BYTES]
        header = opened.mapped[: tensors.LENGTH_BYTES + tensors.header_length(first, size_bytes)]
        check = _check if len(header) > _REMEMBERED_HEADER_BYTES else _check_once
        return cls(opened, check(raw_config, header, size_bytes))

    def identity(self, checks: FileChecks | None = None) -> AdapterIdentity:
        """The adapter's identity, once every value is known to be within bounds.

        With `checks`, a file that was looked through before and has not changed is not read again.

        Raises:
            InvalidTensorsError: NaN, infinity or a huge number in a tensor.
            IntegrityError: somebody writes into the file.
        """
        known = checks.get(_BOUNDED, self._stamp) if checks else None
        if known is not None:
            self._identity = AdapterIdentity.parse(known)
            return self._identity
        require_bounded(self.tensors())
        self._identity = self._hashed()
        if not self._opened.look().is_of(self._stamp):
            raise self._opened.changed()
        if checks:
            checks.put(_BOUNDED, self._stamp, str(self._identity))
        return self._identity

    def tensors(self) -> dict[str, Any]:
        """The tensors under their own names, mapped: their bytes are read where they are used."""
        import torch

        raw, header = torch.frombuffer(self._opened.mapped, dtype=torch.uint8), self.adapter.header
        flat: dict[str, Any] = {}
        state, dtypes = {}, torch_dtypes()
        for tensor in header.tensors:
            width, dtype = tensors.DTYPE_BYTES[tensor.dtype], dtypes[tensor.dtype]
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
        now = self._opened.look()
        if now.is_of(self._stamp):
            return
        # A link or another mode changes the times as well: the bytes decide. A file that became
        # shorter must not be touched, as reading behind its end kills the process.
        if now.size_bytes != self._stamp.size_bytes or self._hashed() != self._identity:
            raise self._opened.changed()
        self._stamp = now

    def _hashed(self) -> AdapterIdentity:
        with memoryview(self._opened.mapped) as view:
            return parametric.adapter_identity(hashed_tensors(view))


class _Opened:
    """A file, mapped as a private copy of whatever would be written to it, and how it looked then.

    A stamp is waited for that any later change makes another.
    """

    def __init__(self, file: Path) -> None:
        require_file(file)
        self._name = f"{file.parent.name}/{file.name}"
        self._descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        weakref.finalize(self, os.close, self._descriptor)
        self.stamp = Stamp.settled(self._descriptor)
        is_file = stat.S_ISREG(os.fstat(self._descriptor).st_mode)
        if not is_file or not self.stamp.size_bytes:
            raise tensors.rejected(Rejection.TRUNCATED, f"{self._name} is empty, or no file")
        self.mapped = mmap.mmap(self._descriptor, self.stamp.size_bytes, access=mmap.ACCESS_COPY)

    def look(self) -> Stamp:
        """How the file looks now, also if another one has taken its name."""
        return Stamp.of(self._descriptor)

    def changed(self) -> IntegrityError:
        """The error that says that the file was changed."""
        return IntegrityError(
            f"{self._name} was written into while it was in use",
            hint="unmount it, and pull the cube again",
        )


def _check(config: bytes, header: bytes, file_bytes: int) -> Adapter:
    return parametric.check(config, tensors.parse_header(header, file_bytes))


@lru_cache(maxsize=64)
def _check_once(config: bytes, header: bytes, file_bytes: int) -> Adapter:
    """As `_check`; the same bytes give the same adapter."""
    return _check(config, header, file_bytes)


def require_bounded(state: Mapping[str, Any]) -> None:
    """Refuse NaN, infinity and what no adapter holds in the tensors of `state`.

    Raises:
        InvalidTensorsError: names the first tensor that holds some.
    """
    import torch

    for name, tensor in state.items():
        # Of NaN, neither is true: the smallest and the largest value tell of all.
        if tensor.numel() and not _is_below(torch.stack(torch.aminmax(tensor)), limits.MAGNITUDE):
            raise tensors.rejected(
                Rejection.NOT_FINITE,
                f"{name[:200]!r} holds NaN, infinity or a number beyond {limits.MAGNITUDE}",
            )


def _is_below(values: Any, bound: int) -> bool:
    return bool((values.abs() < bound).all())
