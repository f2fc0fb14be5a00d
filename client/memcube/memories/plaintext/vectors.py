"""Files of vectors (docs/spec/vectors.md): reading what a cube carries, and writing what it will."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from memcube_protocol import tensors, vectors
from memcube_protocol.errors import InvalidError
from memcube_protocol.tensors import Rejection, rejected
from memcube_protocol.vectors import VectorFile

from memcube.closing import Closing
from memcube.memories.plaintext.embedders import Embedder, checked, probe, telling_probe
from memcube.memories.plaintext.lsa import LsaEmbedder
from memcube.store import files

if TYPE_CHECKING:
    from memcube.memories.plaintext.embedders import Matrix

_DTYPES: Final = {"F16": "<f2", "F32": "<f4", "U8": "u1", "U32": "<u4"}
_ROWS: Final = 4096
_MOST_WEIGHT: Final = 65504
"""The largest number of 16 bits: larger ones could add up to infinity for some questions and not for others."""


class CarriedVectors(Closing):
    """The vectors of an open file, found by the text that each was made from. Use `close` after use.

    Raises:
        InvalidTensorsError: the file breaks a rule of the format.
        StorageError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        with files.storage_errors(f"{path} cannot be read"):
            self._descriptor = files.open_file(path)
        try:
            size = os.fstat(self._descriptor).st_size
            start = self._read(0, tensors.LENGTH_BYTES)
            length = tensors.header_length(start, size)
            start += self._read(tensors.LENGTH_BYTES, tensors.LENGTH_BYTES + length)
            self.file = VectorFile.of(tensors.parse_header(start, size))
            self._keys = _ascending(self._load(vectors.KEYS))
        except BaseException:
            self.close()
            raise

    @property
    def name(self) -> str:
        """What people call its embedder."""
        return self.file.embedder

    def probe(self) -> Matrix | None:
        """What its embedder makes of the probes; None where the file carries the embedder itself."""
        return None if self.file.terms else _finite(self._load(vectors.PROBE))

    def embedder(self) -> LsaEmbedder | None:
        """The embedder that the file carries, if it does."""
        if not self.file.terms:
            return None
        terms = self._load(vectors.TERMS)
        if (terms[1:] <= terms[:-1]).any():
            raise rejected(Rejection.UNEXPECTED, f"{vectors.TERMS} do not ascend")
        weights = _finite(self._load(vectors.WEIGHTS))
        if abs(weights).max() > _MOST_WEIGHT:
            raise rejected(Rejection.UNEXPECTED, f"{vectors.WEIGHTS} are beyond {_MOST_WEIGHT}")
        return LsaEmbedder(terms, weights)

    def find(self, text: str) -> Matrix | None:
        """The vector of `text`, if there is one.

        Raises:
            InvalidTensorsError: it holds NaN or infinity, or the file was cut.
        """
        key = vectors.key_of(text)
        row = int(self._keys.searchsorted(key))
        if not (self._keys[row : row + 1] == key).any():
            return None
        header = self.file.header
        tensor = header.tensor(vectors.VECTORS)
        start, _ = header.range_of(tensor)
        step = tensors.DTYPE_BYTES[tensor.dtype] * self.file.width
        content = self._read(start + row * step, start + (row + 1) * step)
        return _finite(_array(content, tensor.dtype))

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def _load(self, name: str) -> Any:
        tensor = self.file.header.tensor(name)
        content = self._read(*self.file.header.range_of(tensor))
        return _array(content, tensor.dtype).reshape(tensor.shape)

    def _read(self, start: int, stop: int) -> bytes:
        with files.storage_errors("vectors cannot be read"):
            content = os.pread(self._descriptor, stop - start, start)
        if len(content) != stop - start:
            raise rejected(Rejection.TRUNCATED, "the file of vectors ends too early")
        return content


def write_vectors(path: Path, embedder: Embedder, texts: Iterable[str]) -> int:
    """Write the vectors that `embedder` makes of `texts` to `path`; says how many.

    A text that stands twice has one vector; one that it can make nothing of has none.

    Raises:
        InvalidError: the embedder returns something else than vectors, or none for any text.
        StorageError: the file cannot be written.
    """
    import numpy as np

    by_key = {vectors.key_of(text): text for text in texts}
    keys = sorted(by_key)
    is_lsa = isinstance(embedder, LsaEmbedder)
    rows, kept = _embedded(embedder, [by_key[key] for key in keys], "<f2" if is_lsa else "<f4")
    keys = [key for key, keep in zip(keys, kept, strict=True) if keep]
    if by_key and not keys:
        raise InvalidError(
            f"{embedder.name} makes a vector of none of the {len(by_key)} texts: "
            "they share too few words, or all the same ones",
            hint="search without vectors, or name an embedder that is a model",
        )
    held: dict[str, Any] = {
        vectors.KEYS: np.frombuffer(b"".join(keys), np.uint8).reshape(-1, vectors.KEY_BYTES),
        vectors.VECTORS: rows if kept.all() else rows[kept],
    }
    if isinstance(embedder, LsaEmbedder):
        held[vectors.TERMS] = embedder.terms.astype("<u4")
        held[vectors.WEIGHTS] = embedder.weights.astype("<f2")
    else:
        held[vectors.PROBE] = telling_probe(embedder).astype("<f4")
    _write(path, embedder.name, held)
    return len(keys)


def _embedded(embedder: Embedder, texts: Sequence[str], dtype: str) -> tuple[Any, Any]:
    """The vectors of `texts` as rows of `dtype`, and of which there is one: a row of zeros is none."""
    import numpy as np

    rows: Any = None
    kept = np.zeros(len(texts), bool)
    for start in range(0, len(texts), _ROWS):
        some = texts[start : start + _ROWS]
        width = None if rows is None else rows.shape[1]
        made = checked(embedder.texts(some), len(some), embedder.name, width=width)
        if rows is None:
            rows = np.empty((len(texts), made.shape[1]), dtype)
        rows[start : start + len(some)] = made
        kept[start : start + len(some)] = np.abs(made).sum(1) > 0
    if rows is None:
        rows = np.zeros((0, probe(embedder).shape[1]), dtype)
    return rows, kept


def _write(path: Path, name: str, held: dict[str, Any]) -> None:
    names = {_DTYPES[dtype].lstrip("<"): dtype for dtype in _DTYPES}
    described = [
        (tensor, names[array.dtype.str.lstrip("<|")], array.shape) for tensor, array in held.items()
    ]
    metadata = {vectors.VERSION_KEY: vectors.VERSION, vectors.EMBEDDER_KEY: name}
    start = tensors.write_header(described, metadata)
    files.replace_file(path, start, *map(_bytes_of, held.values()))


def _bytes_of(array: Any) -> memoryview:
    import numpy as np

    content: memoryview = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    return content


def _ascending(keys: Any) -> Any:
    """`keys` [n, 16] as strings of 16 bytes, if they ascend."""
    import numpy as np

    found = np.ascontiguousarray(keys).view(f"S{vectors.KEY_BYTES}").reshape(-1)
    if (found[1:] <= found[:-1]).any():
        raise rejected(Rejection.UNEXPECTED, f"{vectors.KEYS} do not ascend")
    return found


def _array(content: bytes, dtype: str) -> Any:
    import numpy as np

    return np.frombuffer(content, dtype=_DTYPES[dtype])


def _finite(array: Any) -> Matrix:
    import numpy as np

    numbers: Matrix = array.astype(np.float32)
    if not np.isfinite(numbers).all():
        raise rejected(Rejection.NOT_FINITE, "a vector holds NaN or infinity")
    return numbers
