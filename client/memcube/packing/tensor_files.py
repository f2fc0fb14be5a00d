"""Reading safetensors files of a folder: their headers, the identity of each tensor, and numbers that are none.

NaN and infinity are found without numpy, which packing does without. A number is one where every bit of its
exponent is set. The exponent lies in the last two bytes of a little-endian number, so one look at each last
byte tells of nearly all.
"""

from __future__ import annotations

from typing import BinaryIO, Final

from blake3 import blake3
from memcube_protocol import tensors
from memcube_protocol.errors import MemcubeError
from memcube_protocol.identity import TensorIdentity
from memcube_protocol.tensors import Header, Rejection

from memcube.packing.scan import FoundFile

_PIECE_BYTES: Final = 1024 * 1024
_EXPONENTS: Final = {
    "BF16": (0x7F, 0x80),
    "F16": (0x7C, 0),
    "F32": (0x7F, 0x80),
    "F64": (0x7F, 0xF0),
}
"""The bits of the exponent in the last byte of a number, and in the one before, by its type."""


def read_start(file: FoundFile) -> bytes:
    """The first bytes of a safetensors file, up to the end of its header.

    Raises:
        InvalidTensorsError, LimitExceededError: it announces no acceptable header.
    """
    with file.open() as stream:
        first = stream.read(tensors.LENGTH_BYTES)
        try:
            return first + stream.read(tensors.header_length(first, file.size))
        except MemcubeError as error:
            error.args = (f"{file.path}: {error}",)
            raise


def read_header(file: FoundFile) -> Header:
    """The header of a safetensors file.

    Raises:
        InvalidTensorsError, LimitExceededError: it breaks a rule of the format.
    """
    start = read_start(file)
    try:
        return tensors.parse_header(start, file.size)
    except MemcubeError as error:
        error.args = (f"{file.path}: {error}",)
        raise


def identify(file: FoundFile, header: Header) -> list[TensorIdentity]:
    """The identity of every tensor of the file, hashed in pieces."""
    with file.open() as stream:
        return [
            TensorIdentity(
                tensor.name,
                tensor.dtype,
                tensor.shape,
                _hash(stream, *header.range_of(tensor)),
            )
            for tensor in header.tensors
        ]


def _hash(stream: BinaryIO, start: int, stop: int) -> bytes:
    hasher = blake3()
    stream.seek(start)
    while start < stop and (piece := stream.read(min(_PIECE_BYTES, stop - start))):
        hasher.update(piece)
        start += len(piece)
    return hasher.digest()


def require_finite(file: FoundFile, header: Header) -> None:
    """Refuse an adapter that no mount takes, where it can still be trained anew.

    Raises:
        InvalidTensorsError: names the tensor that holds NaN or infinity.
    """
    with file.open() as stream:
        for tensor in header.tensors:
            start, stop = header.range_of(tensor)
            if find_not_finite(stream, start, stop, tensor.dtype) is not None:
                error = tensors.rejected(
                    Rejection.NOT_FINITE, f"{file.path}: {tensor.name} holds NaN or infinity"
                )
                error.hint = "its training came to nothing: train it anew, at a lower learning rate"
                raise error


def find_not_finite(stream: BinaryIO, start: int, stop: int, dtype: str) -> int | None:
    """Which number of those from byte `start` to `stop` is the first that is NaN or infinity; None if none is.

    Of types with other kinds of numbers none is looked at.
    """
    if dtype not in _EXPONENTS:
        return None
    stream.seek(start)
    for at in range(start, stop, _PIECE_BYTES):
        place = _first_not_finite(stream.read(min(_PIECE_BYTES, stop - at)), dtype)
        if place is not None:
            return (at - start) // tensors.DTYPE_BYTES[dtype] + place
    return None


def _first_not_finite(piece: bytes, dtype: str) -> int | None:
    size, (last, before) = tensors.DTYPE_BYTES[dtype], _EXPONENTS[dtype]
    full = piece[size - 1 :: size].translate(bytes(byte & last == last for byte in range(256)))
    place = full.find(True)
    while place >= 0:
        if piece[place * size + size - 2] & before == before:
            return place
        place = full.find(True, place + 1)
    return None
