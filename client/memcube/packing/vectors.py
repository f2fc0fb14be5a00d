"""Files of vectors before they are packed: no number in them may be NaN or infinity.

They are looked through without numpy, which packing does without. A number is none where every bit of its
exponent is set. The exponent lies in the last one or two bytes of a little-endian number, so one look at
each last byte tells of nearly all.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import BinaryIO, Final

from memcube_protocol import vectors
from memcube_protocol.records import Record
from memcube_protocol.tensors import Rejection, rejected
from memcube_protocol.vectors import VectorFile, indexed_text

from memcube.packing.scan import FoundFile

_PIECE_BYTES: Final = 1 << 20
_LAST: Final = {"F16": 0x7C, "F32": 0x7F}
"""The bits of the exponent in the last byte of a number, by its type."""
_SIZES: Final = {"F16": 2, "F32": 4}


def require_finite(file: FoundFile, described: VectorFile, records: Iterable[Record]) -> None:
    """Refuse numbers of `file` that are none; `records` are looked through only to say whose they are.

    Raises:
        InvalidTensorsError: names the record, or the tensor and the row.
    """
    with file.open() as stream:
        for tensor in described.header.tensors:
            start, stop = described.header.range_of(tensor)
            at = find_not_finite(stream, start, stop, tensor.dtype)
            if at is None:
                continue
            row = at // described.width
            where = f"row {row} of {tensor.name}"
            if tensor.name == vectors.VECTORS:
                key = _key(stream, described, row)
                whose = (one.id for one in records if vectors.key_of(indexed_text(one)) == key)
                where = f"the vector of {next(whose, f'no record here, {where},')}"
            error = rejected(Rejection.NOT_FINITE, f"{where} holds NaN or infinity")
            error.hint = (
                "embed that text anew, or leave it out of the file: it is found by words then"
            )
            raise error


def find_not_finite(stream: BinaryIO, start: int, stop: int, dtype: str) -> int | None:
    """Which number of those from byte `start` to `stop` is the first that is NaN or infinity; None if none is."""
    if dtype not in _LAST:
        return None
    stream.seek(start)
    for at in range(start, stop, _PIECE_BYTES):
        place = _first_in(stream.read(min(_PIECE_BYTES, stop - at)), dtype)
        if place is not None:
            return (at - start) // _SIZES[dtype] + place
    return None


def _first_in(piece: bytes, dtype: str) -> int | None:
    size, bits = _SIZES[dtype], _LAST[dtype]
    full = bytes(byte & bits == bits for byte in range(256))
    last = piece[size - 1 :: size].translate(full)
    place = last.find(True)
    while place >= 0:
        if dtype == "F16" or piece[place * size + 2] & 0x80:
            return place
        place = last.find(True, place + 1)
    return None


def _key(stream: BinaryIO, described: VectorFile, row: int) -> bytes:
    start, _ = described.header.range_of(described.header.tensor(vectors.KEYS))
    stream.seek(start + row * vectors.KEY_BYTES)
    return stream.read(vectors.KEY_BYTES)
