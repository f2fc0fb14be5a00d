"""Vectors of records: which text each belongs to, and by which embedder (docs/spec/vectors.md).

    __metadata__  {"memcube.vectors":"1","embedder":"lsa"}
    keys          U8  [n, 16]     the first 16 bytes of SHA-256 of each text, ascending
    vectors       F32 [n, width]  or F16; row i belongs to the text of key i
    probe         F32 [3, width]  what the embedder makes of `PROBES`

A vector is found by the text that it was made from: a record whose text has changed simply has none,
and records move, appear and go without the file being wrong. Whether an embedder is the one of the file
is decided by what it makes of three texts, not by a name.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from memcube_protocol.errors import InvalidTensorsError
from memcube_protocol.records import Record
from memcube_protocol.tensors import Header, Rejection, Tensor, rejected
from memcube_protocol.values import frozen

VERSION_KEY: Final = "memcube.vectors"
VERSION: Final = "1"
EMBEDDER_KEY: Final = "embedder"

KEYS: Final = "keys"
VECTORS: Final = "vectors"
PROBE: Final = "probe"
TERMS: Final = "lsa.terms"
WEIGHTS: Final = "lsa.weights"

KEY_BYTES: Final = 16
WIDTH: Final = 8192
"""Largest width of a vector."""
NAME_CHARS: Final = 200
TERM_COUNT: Final = 1 << 20
"""Most terms that a carried embedder knows."""
PROBES: Final = (
    "Where are the backups kept?",
    "备份保存在哪里？",
    "The ferry leaves at nine; Ada takes her bicycle along.",
)
LIKENESS: Final = 0.999
"""Cosine from which two vectors of a probe count as made by one embedder: numbers differ by machine."""

_FLOATS: Final = frozenset({"F16", "F32"})


@frozen
class VectorFile:
    """What the header of a vectors file says: `count` vectors of `width` numbers by `embedder`.

    `terms` is how many terms the embedder that it carries knows; 0 where it carries none.
    """

    embedder: str
    count: int
    width: int
    header: Header
    terms: int = 0

    @classmethod
    def of(cls, header: Header) -> VectorFile:
        """The vectors file that `header` begins.

        Raises:
            InvalidTensorsError: not one, or not of this version.
        """
        name = header.metadata.get(EMBEDDER_KEY, "")
        if header.metadata.get(VERSION_KEY) != VERSION:
            raise _refused(Rejection.METADATA, f"{VERSION_KEY} is not {VERSION}")
        if not name or len(name) > NAME_CHARS or not name.isprintable():
            raise _refused(Rejection.METADATA, "it does not say its embedder")
        vectors = _tensor(header, VECTORS, _FLOATS)
        keys = _tensor(header, KEYS, frozenset({"U8"}))
        count, width = vectors.shape
        if keys.shape != (count, KEY_BYTES) or not 1 <= width <= WIDTH:
            raise _refused(Rejection.SHAPE, f"keys {keys.shape} and vectors {vectors.shape}")
        terms = _carried_terms(header, width)
        known = {KEYS, VECTORS} | ({TERMS, WEIGHTS} if terms else {PROBE})
        if surplus := {tensor.name for tensor in header.tensors} - known:
            raise _refused(Rejection.UNEXPECTED, f"a tensor {min(surplus)[:80]!r}")
        if not terms and _tensor(header, PROBE, frozenset({"F32"})).shape != (len(PROBES), width):
            raise _refused(Rejection.SHAPE, f"{PROBE} is not {len(PROBES)} vectors of {width}")
        return cls(name, count, width, header, terms)


def indexed_text(record: Record) -> str:
    """What `record` is found by: its text, subject, tags and entities."""
    return "\n".join((record.text, record.subject or "", *record.tags, *record.entities))


def key_of(text: str) -> bytes:
    """What names `text` in a vectors file."""
    return sha256(text.encode("utf-8", "replace")).digest()[:KEY_BYTES]


def _carried_terms(header: Header, width: int) -> int:
    """How many terms the embedder in the file knows; 0 where there is none."""
    names = {tensor.name for tensor in header.tensors}
    if not names & {TERMS, WEIGHTS}:
        return 0
    weights = _tensor(header, WEIGHTS, _FLOATS)
    terms = _tensor(header, TERMS, frozenset({"U32"}), rank=1)
    (count,) = terms.shape
    if weights.shape != (count, width) or not 1 <= count <= TERM_COUNT:
        raise _refused(Rejection.SHAPE, f"{TERMS} {terms.shape} and {WEIGHTS} {weights.shape}")
    return count


def _tensor(header: Header, name: str, dtypes: frozenset[str], *, rank: int = 2) -> Tensor:
    found = next((tensor for tensor in header.tensors if tensor.name == name), None)
    if found is None:
        raise _refused(Rejection.UNEXPECTED, f"no tensor {name!r}")
    if found.dtype not in dtypes:
        raise _refused(Rejection.DTYPE, f"{name} is {found.dtype}")
    if len(found.shape) != rank:
        raise _refused(Rejection.SHAPE, f"{name} has the shape {list(found.shape)}")
    return found


def _refused(rejection: Rejection, why: str) -> InvalidTensorsError:
    error = rejected(rejection, f"not vectors of records: {why}")
    error.hint = "`memcube embed` writes such files; docs/spec/vectors.md has the rules"
    return error
