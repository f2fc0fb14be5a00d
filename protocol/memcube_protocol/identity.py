"""What a model and an adapter are: Merkle roots over their tensors (docs/spec/identity.md).

A tensor's leaf is SHA-256 of 0x00 and the canonical JSON of
`["memcube-tensor-v1", name, dtype, shape, BLAKE3 of its bytes in hex]`; leaves are sorted by name and
joined as RFC 6962 joins them (0x01 before inner nodes), so a leaf is never mistaken for a node. The
root is written `mip1-base:<hex>` for a model and `mip1-adapter:<hex>` for an adapter. It depends
neither on sharding nor on the order of tensors in files nor on how the model was loaded.

**Tied weights count once**: an output head (`lm_head.weight`) whose type, shape and bytes equal those
of an input embedding is left out, so that a checkpoint with the copy, one without, and the live
model agree.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Final, Self

from memcube_protocol import canonical_json, tensors
from memcube_protocol.content import HASH_BYTES, merkle_root
from memcube_protocol.errors import InvalidDigestError, InvalidTensorsError

_LEAF_CONTEXT: Final = "memcube-tensor-v1"
_HEADS: Final = re.compile(r"(?:.*\.)?(?:lm_head|embed_out|output)\.weight")
_EMBEDDINGS: Final = re.compile(
    r"(?:.*\.)?(?:embed_tokens|wte|word_embeddings|tok_embeddings|embed_in|embeddings)\.weight"
)


@dataclass(frozen=True, slots=True, order=True)
class TensorIdentity:
    """One tensor: its name, its element type as safetensors spells it, its shape, BLAKE3 of its bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    blake3: bytes

    def __post_init__(self) -> None:
        tensors.size_bytes(self.dtype, self.shape)
        if not self.name or len(self.blake3) != HASH_BYTES:
            raise InvalidTensorsError(
                f"tensor {self.name[:200]!r} has no name or no BLAKE3 hash of 32 bytes",
                hint="see docs/spec/identity.md",
            )

    def leaf(self) -> bytes:
        """Its leaf in the Merkle tree."""
        value = [_LEAF_CONTEXT, self.name, self.dtype, list(self.shape), self.blake3.hex()]
        return hashlib.sha256(b"\x00" + canonical_json.dump(value)).digest()

    @property
    def content(self) -> tuple[str, tuple[int, ...], bytes]:
        """All but the name: equal for tensors that hold the same."""
        return self.dtype, self.shape, self.blake3


@dataclass(frozen=True, slots=True)
class BaseIdentity:
    """Which weights a model has, to the bit (docs/spec/identity.md)."""

    root: bytes
    scheme: ClassVar[str] = "mip1-base"

    def __post_init__(self) -> None:
        if len(self.root) != HASH_BYTES:
            raise _malformed(self.scheme, self.root.hex())

    @classmethod
    def parse(cls, text: str) -> Self:
        """Identity written as `mip1-base:<64 hex digits>`.

        Raises:
            InvalidDigestError: any other form.
        """
        scheme, _, digits = text.partition(":")
        if scheme != cls.scheme or not re.fullmatch(r"[0-9a-f]{64}", digits):
            raise _malformed(cls.scheme, text)
        return cls(bytes.fromhex(digits))

    @classmethod
    def of(cls, parts: Iterable[TensorIdentity]) -> Self:
        """Identity of the model that consists of `parts`, in any order.

        Raises:
            InvalidTensorsError: no tensor, or a name twice.
        """
        return cls(_root(_without_tied_heads(list(parts))))

    def __str__(self) -> str:
        return f"{self.scheme}:{self.root.hex()}"


@dataclass(frozen=True, slots=True)
class AdapterIdentity(BaseIdentity):
    """Which weights an adapter has, to the bit; written `mip1-adapter:<64 hex digits>`."""

    scheme: ClassVar[str] = "mip1-adapter"

    @classmethod
    def of(cls, parts: Iterable[TensorIdentity]) -> Self:
        """Identity of the adapter that consists of `parts`, in any order.

        Raises:
            InvalidTensorsError: no tensor, or a name twice.
        """
        return cls(_root(list(parts)))


def _root(parts: list[TensorIdentity]) -> bytes:
    parts.sort(key=lambda part: part.name.encode())
    if not parts:
        raise InvalidTensorsError("nothing to identify: no tensors", hint="the folder is empty")
    for one, other in itertools.pairwise(parts):
        if one.name == other.name:
            raise InvalidTensorsError(
                f"tensor {one.name[:200]!r} stands twice",
                hint="two shards hold the same tensor: the folder mixes two checkpoints",
            )
    return merkle_root([part.leaf() for part in parts])


def _without_tied_heads(parts: list[TensorIdentity]) -> list[TensorIdentity]:
    embedded = {part.content for part in parts if _EMBEDDINGS.fullmatch(part.name)}
    return [
        part for part in parts if not (_HEADS.fullmatch(part.name) and part.content in embedded)
    ]


def _malformed(scheme: str, text: str) -> InvalidDigestError:
    return InvalidDigestError(
        f"{text[:140]!r} is not an identity", hint=f"it is written {scheme}:<64 hex digits>"
    )
