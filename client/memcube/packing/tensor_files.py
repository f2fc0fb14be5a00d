"""Reading safetensors files of a folder: their headers, and the identity of each tensor."""

from __future__ import annotations

from typing import BinaryIO, Final

from blake3 import blake3
from memcube_protocol import tensors
from memcube_protocol.errors import MemcubeError
from memcube_protocol.identity import TensorIdentity
from memcube_protocol.tensors import Header

from memcube.packing.scan import FoundFile

_PIECE_BYTES: Final = 1024 * 1024


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
