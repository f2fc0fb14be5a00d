"""Files of vectors before they are packed: what every mount would refuse is refused here, where it can be mended.

Keys and terms have to ascend, and no number may be NaN or infinity.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import BinaryIO, Final

from memcube_protocol import vectors
from memcube_protocol.errors import InvalidTensorsError
from memcube_protocol.records import Record
from memcube_protocol.tensors import DTYPE_BYTES, Rejection, Tensor, rejected
from memcube_protocol.vectors import VectorFile, indexed_text

from memcube.packing.scan import FoundFile
from memcube.packing.tensor_files import find_not_finite

_PIECE_BYTES: Final = 1 << 20


def require_sound(file: FoundFile, described: VectorFile, records: Iterable[Record]) -> None:
    """Refuse what `file` must not hold; `records` are looked through only to say whose a vector is.

    Raises:
        InvalidTensorsError: names the record, or the tensor and the row.
    """
    with file.open() as stream:
        for tensor in described.header.tensors:
            start, stop = described.header.range_of(tensor)
            if tensor.name in (vectors.KEYS, vectors.TERMS):
                _require_ascending(stream, start, stop, tensor)
            at = find_not_finite(stream, start, stop, tensor.dtype)
            if at is not None:
                raise _not_finite(stream, described, tensor, at // described.width, records)


def _not_finite(
    stream: BinaryIO, described: VectorFile, tensor: Tensor, row: int, records: Iterable[Record]
) -> InvalidTensorsError:
    where = f"row {row} of {tensor.name}"
    if tensor.name == vectors.VECTORS:
        key = _key(stream, described, row)
        whose = (one.id for one in records if vectors.key_of(indexed_text(one)) == key)
        where = f"the vector of {next(whose, f'no record here, {where},')}"
    error = rejected(Rejection.NOT_FINITE, f"{where} holds NaN or infinity")
    error.hint = "embed that text anew, or leave it out of the file: it is found by words then"
    return error


def _require_ascending(stream: BinaryIO, start: int, stop: int, tensor: Tensor) -> None:
    """Refuse rows of keys, or numbers of terms, that are not in order, or stand twice."""
    step = vectors.KEY_BYTES if tensor.name == vectors.KEYS else DTYPE_BYTES[tensor.dtype]
    stream.seek(start)
    last = b""
    for at in range(start, stop, _PIECE_BYTES):
        piece = stream.read(min(_PIECE_BYTES, stop - at))
        if len(piece) < min(_PIECE_BYTES, stop - at):
            raise rejected(Rejection.TRUNCATED, f"it ends within its {tensor.name}")
        rows = [piece[place : place + step] for place in range(0, len(piece), step)]
        if tensor.name == vectors.TERMS:
            rows = [number[::-1] for number in rows]  # the last byte weighs most
        if any(one >= other for one, other in pairwise([last, *rows])):
            error = rejected(Rejection.UNEXPECTED, f"{tensor.name} do not ascend")
            error.hint = "sort the rows by it, each once, and those of the vectors with them"
            raise error
        last = rows[-1]


def _key(stream: BinaryIO, described: VectorFile, row: int) -> bytes:
    start, _ = described.header.range_of(described.header.tensor(vectors.KEYS))
    stream.seek(start + row * vectors.KEY_BYTES)
    return stream.read(vectors.KEY_BYTES)
