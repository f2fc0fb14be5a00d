"""The header of a safetensors file: a strict parser and a writer (docs/spec/tensors.md).

A file is an 8-byte little-endian length, a JSON header of that length, then the tensors' bytes:

    {"__metadata__": {"key": "text"}, "name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}

Offsets count from the end of the header. Stricter than the official reader in nothing that it
writes; every refusal is an `InvalidTensorsError` whose `rejection` is one of `Rejection`. The bytes
of the tensors themselves are never looked at here.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from enum import StrEnum
from typing import Any, Final

from memcube_protocol import canonical_json, limits
from memcube_protocol.errors import InvalidJsonError, InvalidTensorsError, NotFoundError
from memcube_protocol.values import frozen

LENGTH_BYTES: Final = 8
PAGE_BYTES: Final = 4096
METADATA_KEY: Final = "__metadata__"
DTYPE_BYTES: Final[Mapping[str, int]] = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "I16": 2,
    "U16": 2,
    "F16": 2,
    "BF16": 2,
    "I32": 4,
    "U32": 4,
    "F32": 4,
    "I64": 8,
    "U64": 8,
    "F64": 8,
}
"""Every element type that is loaded, with the bytes of one element."""

_MAX_BYTES: Final = canonical_json.MAX_SAFE_INTEGER
_PICKLE: Final = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")
"""How pickles and zip archives begin. So do headers of some lengths, 640 bytes the first: then the length fits."""
_FIELDS: Final = frozenset({"dtype", "shape", "data_offsets"})


class Rejection(StrEnum):
    """Why a safetensors file is refused: stable names, shared with the conformance vectors."""

    PICKLE = "pickle"
    TRUNCATED = "truncated"
    HEADER_TOO_SMALL = "header-too-small"
    HEADER_BEYOND_FILE = "header-beyond-file"
    HEADER_START = "header-start"
    HEADER_JSON = "header-json"
    METADATA = "metadata"
    NAME = "name"
    TENSOR_FIELDS = "tensor-fields"
    DTYPE = "dtype"
    SHAPE = "shape"
    SHAPE_OVERFLOW = "shape-overflow"
    OFFSETS = "offsets"
    SIZE_MISMATCH = "size-mismatch"
    OVERLAP = "overlap"
    GAP = "gap"
    BEYOND_FILE = "beyond-file"
    TRAILING_BYTES = "trailing-bytes"
    NOT_FINITE = "not-finite"
    UNEXPECTED = "unexpected"


@frozen
class Tensor:
    """One tensor of a file: `start` and `stop` are offsets in bytes from the end of the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.stop <= _MAX_BYTES:
            raise rejected(Rejection.OFFSETS, f"{self.name[:200]!r}: {self.start} to {self.stop}")
        if (size := size_bytes(self.dtype, self.shape)) != self.stop - self.start:
            raise rejected(
                Rejection.SIZE_MISMATCH,
                f"{self.name[:200]!r} is {self.dtype} of shape {list(self.shape)}, {size} bytes, "
                f"and its offsets hold {self.stop - self.start}",
            )

    @property
    def size_bytes(self) -> int:
        """Length of its bytes."""
        return self.stop - self.start


@frozen
class Header:
    """What a file holds, its tensors in the order of their bytes.

    `data_start` is the offset in the file of the first tensor's first byte. The tensors cover
    everything behind it, without gap or overlap.
    """

    tensors: tuple[Tensor, ...]
    data_start: int
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def file_bytes(self) -> int:
        """Length of the whole file."""
        return self.data_start + (self.tensors[-1].stop if self.tensors else 0)

    def by_name(self) -> dict[str, Tensor]:
        """The tensors under their names."""
        return {tensor.name: tensor for tensor in self.tensors}

    def tensor(self, name: str) -> Tensor:
        """The tensor called `name`.

        Raises:
            NotFoundError: the file holds no such tensor.
        """
        for tensor in self.tensors:
            if tensor.name == name:
                return tensor
        raise NotFoundError(f"no tensor {name!r} in this file", hint="it belongs to another model")

    def range_of(self, tensor: Tensor) -> tuple[int, int]:
        """Offsets in the file of the first byte of `tensor` and of the byte behind its last."""
        return self.data_start + tensor.start, self.data_start + tensor.stop


def size_bytes(dtype: str, shape: Sequence[int]) -> int:
    """Bytes of a tensor of `dtype` and `shape`.

    Raises:
        InvalidTensorsError: an unknown type, a bad dimension, or more than 2^53 - 1 bytes.
    """
    width = DTYPE_BYTES.get(dtype)
    if width is None:
        raise rejected(Rejection.DTYPE, f"element type {dtype[:40]!r} is not one of the format's")
    if len(shape) > limits.TENSOR_RANK:
        raise rejected(
            Rejection.SHAPE, f"{len(shape)} dimensions, the limit is {limits.TENSOR_RANK}"
        )
    if any(isinstance(n, bool) or not 0 <= n <= _MAX_BYTES for n in shape):
        raise rejected(Rejection.SHAPE, f"a dimension of {list(shape)} is not a size")
    if (size := math.prod(shape) * width) > _MAX_BYTES:
        raise rejected(Rejection.SHAPE_OVERFLOW, f"shape {list(shape)} of {dtype} is too large")
    return size


def header_length(first: bytes | memoryview, file_bytes: int) -> int:
    """Length in bytes of the JSON header that the first 8 bytes of a file announce.

    Raises:
        InvalidTensorsError: the file is a pickle, or too short for what it announces.
        LimitExceededError: more than 100 MiB.
    """
    start = bytes(first[:LENGTH_BYTES])
    length = int.from_bytes(start, "little")
    fits = len(start) == LENGTH_BYTES and LENGTH_BYTES + length <= file_bytes
    if start.startswith(_PICKLE) and not (fits and length <= limits.SAFETENSORS_HEADER_BYTES):
        raise rejected(Rejection.PICKLE, "this is a pickle or an archive of pickles, renamed")
    if len(start) < LENGTH_BYTES or file_bytes < LENGTH_BYTES:
        raise rejected(Rejection.TRUNCATED, f"{file_bytes} bytes are too few for a length")
    limits.require_at_most("safetensors header", length, limits.SAFETENSORS_HEADER_BYTES)
    if length < len(b"{}"):
        raise rejected(Rejection.HEADER_TOO_SMALL, f"a header of {length} bytes")
    if LENGTH_BYTES + length > file_bytes:
        raise rejected(
            Rejection.HEADER_BEYOND_FILE, f"a header of {length} bytes in a file of {file_bytes}"
        )
    return length


def parse_header(content: bytes | memoryview, file_bytes: int | None = None) -> Header:
    """The header of a file whose first bytes are `content` (at least 8 and the header's length).

    `file_bytes` is the length of the whole file where `content` is only its beginning.

    Raises:
        InvalidTensorsError: it breaks a rule; `rejection` names it.
        LimitExceededError: a header of more than 100 MiB.
    """
    total = len(content) if file_bytes is None else file_bytes
    stop = LENGTH_BYTES + header_length(content, total)
    if len(content) < stop:
        raise rejected(Rejection.TRUNCATED, f"{len(content)} bytes given of a header of {stop}")
    text = bytes(content[LENGTH_BYTES:stop]).rstrip(b" ")
    if not text.startswith(b"{"):
        raise rejected(Rejection.HEADER_START, "the header does not start with '{'")
    if not text.endswith(b"}"):
        raise rejected(
            Rejection.HEADER_JSON, "the header is padded with something else than spaces"
        )
    try:
        fields = canonical_json.parse_object(text, what="safetensors header")
    except InvalidJsonError as error:
        raise rejected(Rejection.HEADER_JSON, str(error)) from None
    metadata = _metadata(fields.pop(METADATA_KEY, {}))
    tensors = sorted(
        (_tensor(name, value) for name, value in fields.items()),
        key=lambda tensor: (tensor.start, tensor.stop, tensor.name),
    )
    _require_cover(tensors, total - stop)
    return Header(tuple(tensors), stop, metadata)


def write_header(
    tensors: Iterable[tuple[str, str, Sequence[int]]],
    metadata: Mapping[str, str] | None = None,
    *,
    alignment: int = LENGTH_BYTES,
) -> bytes:
    """The first bytes of a file that holds `tensors` (name, dtype, shape) in the order given.

    Padded with spaces so that the tensors' bytes start at a multiple of `alignment`
    (`PAGE_BYTES` for activation memories).

    Raises:
        InvalidTensorsError: a name twice, an unknown type, a bad shape or bad metadata.
        LimitExceededError: more than 100 MiB.
    """
    value: dict[str, Any] = {METADATA_KEY: dict(_metadata(dict(metadata)))} if metadata else {}
    position = 0
    for name, dtype, shape in tensors:
        if _name(name) in value:
            raise rejected(Rejection.NAME, f"tensor {name[:200]!r} stands twice")
        stop = position + size_bytes(dtype, shape)
        value[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, stop]}
        position = stop
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-(LENGTH_BYTES + len(text)) % alignment)
    limits.require_at_most("safetensors header", len(text), limits.SAFETENSORS_HEADER_BYTES)
    return struct.pack("<Q", len(text)) + text


def rejected(rejection: Rejection, why: str) -> InvalidTensorsError:
    """The error that names `rejection`."""
    return InvalidTensorsError(
        f"not acceptable safetensors ({rejection}): {why}",
        hint="write the file anew with the safetensors library; docs/spec/tensors.md has the rules",
        rejection=rejection.value,
    )


def _metadata(value: object) -> Mapping[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise rejected(Rejection.METADATA, "__metadata__ is not a map from text to text")
    return value


def _name(name: str) -> str:
    if not name or name == METADATA_KEY or len(name.encode()) > limits.PATH_BYTES:
        raise rejected(Rejection.NAME, f"{name[:80]!r} is not the name of a tensor")
    return name


def _tensor(name: str, value: object) -> Tensor:
    what = repr(_name(name)[:200])
    if not isinstance(value, dict) or value.keys() != _FIELDS:
        raise rejected(Rejection.TENSOR_FIELDS, f"{what} wants dtype, shape and data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str):
        raise rejected(Rejection.DTYPE, f"{what}: its element type is not text")
    if not _are_sizes(shape):
        raise rejected(Rejection.SHAPE, f"{what}: its shape is not a list of sizes")
    if not _are_sizes(offsets) or len(offsets) != 2:
        raise rejected(Rejection.OFFSETS, f"{what}: its offsets are not two positions")
    return Tensor(name, dtype, tuple(shape), offsets[0], offsets[1])


def _are_sizes(value: object) -> bool:
    return isinstance(value, list) and all(type(n) is int and n >= 0 for n in value)


def _require_cover(tensors: Sequence[Tensor], data_bytes: int) -> None:
    """Refuse tensors that do not cover the `data_bytes` behind the header exactly."""
    position = 0
    for tensor in tensors:
        if tensor.stop > data_bytes:
            raise rejected(
                Rejection.BEYOND_FILE,
                f"{tensor.name[:200]!r} ends at {tensor.stop}, the data at {data_bytes}",
            )
        if tensor.start != position:
            rejection = Rejection.OVERLAP if tensor.start < position else Rejection.GAP
            raise rejected(
                rejection,
                f"{tensor.name[:200]!r} starts at {tensor.start}, the one before ends at {position}",
            )
        position = tensor.stop
    if position != data_bytes:
        raise rejected(
            Rejection.TRAILING_BYTES, f"the tensors end at {position}, the data at {data_bytes}"
        )
