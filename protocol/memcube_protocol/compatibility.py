"""The compatibility key of an activation memory (docs/spec/activation.md).

A KV cache is exact for one way of computing it and wrong for every other, so all that decides its
numbers stands in the key, and a mount is refused unless every field equals the model's. Chat
template, library versions, attention implementation and device are information, not fields.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, Final, NamedTuple, Self

from memcube_protocol import canonical_json, limits, tensors
from memcube_protocol.digest import Digest
from memcube_protocol.errors import IncompatibleError, InvalidConfigError
from memcube_protocol.fields import Fields
from memcube_protocol.identity import AdapterIdentity, BaseIdentity
from memcube_protocol.values import frozen

NONE: Final = "none"
"""The tag of a quantisation that is absent."""
INT8: Final = "int8-token"
"""The tag of a cache stored in eight bits, with one scale for each token and head; it is lossy."""

_SCALE: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:e[-+]?[0-9]+)?|sha256:[0-9a-f]{64}")
_SPECIAL: Final = re.compile(r"bare|given|added:(?:[0-9]+(?:,[0-9]+)*)?")
_QUANTISATION: Final = re.compile(r"[a-z0-9][a-z0-9.:-]{0,99}")


@frozen
class ActiveAdapter:
    """An adapter that was active: its identity, and its scale.

    The scale is the factor as shortest decimal text, or the SHA-256 of the canonical JSON of the
    factors per module where they differ.
    """

    identity: AdapterIdentity
    scale: str

    def __post_init__(self) -> None:
        if not _SCALE.fullmatch(self.scale):
            raise _invalid(f"adapter scale {self.scale[:80]!r}")

    def __str__(self) -> str:
        return f"{self.identity} x {self.scale}"


@frozen
class CompatibilityKey:
    """All that decides the numbers of a KV cache; equal keys, equal caches to the bit.

    `rope` is the canonical JSON of the whole RoPE configuration; `special_tokens` says how text
    became ids: `bare`, `added:<ids the tokenizer adds>`, or `given` as ids; `tokens` is the digest
    of `tokens.u32`.
    """

    base: BaseIdentity
    compute_dtype: str
    weight_quantisation: str
    architecture: Digest
    rope: str
    kv_dtype: str
    kv_quantisation: str
    adapters: tuple[ActiveAdapter, ...]
    tokenizer: Digest
    special_tokens: str
    tokens: Digest
    token_count: int
    position_offset: int = 0
    post_rope: bool = True

    def __post_init__(self) -> None:
        for dtype in (self.compute_dtype, self.kv_dtype):
            tensors.size_bytes(dtype, ())
        for quantisation in (self.weight_quantisation, self.kv_quantisation):
            if not _QUANTISATION.fullmatch(quantisation):
                raise _invalid(f"quantisation {quantisation[:100]!r}")
        if not _SPECIAL.fullmatch(self.special_tokens):
            raise _invalid(f"special-token policy {self.special_tokens[:100]!r}")
        if not 1 <= self.token_count <= limits.KV_TOKENS or self.position_offset < 0:
            raise _invalid(f"{self.token_count} tokens at position {self.position_offset}")
        if (
            canonical_json.dump(canonical_json.parse_object(self.rope.encode()))
            != self.rope.encode()
        ):
            raise _invalid("a RoPE configuration that is not canonical JSON")

    @classmethod
    def from_fields(cls, source: Fields) -> Self:
        """Key that `source` describes.

        Raises:
            InvalidConfigError, InvalidDigestError, InvalidTensorsError: a field is malformed.
        """
        tokens = source.table("tokens")
        key = cls(
            base=BaseIdentity.parse(source.text("baseIdentity")),
            compute_dtype=source.text("computeDtype"),
            weight_quantisation=source.text("weightQuantisation"),
            architecture=Digest.parse(source.text("architecture")),
            rope=canonical_json.dump(source.object("rope")).decode(),
            kv_dtype=source.text("kvDtype"),
            kv_quantisation=source.text("kvQuantisation"),
            adapters=tuple(map(_adapter, source.tables("adapters", count=64))),
            tokenizer=Digest.parse(source.text("tokenizer")),
            special_tokens=source.text("specialTokens"),
            tokens=Digest.parse(tokens.text("digest")),
            token_count=tokens.integer("count") or 0,
            position_offset=_required(source.integer("positionOffset"), "positionOffset"),
            post_rope=_flag(source, "postRope"),
        )
        tokens.finish()
        source.finish()
        return key

    def to_json(self) -> dict[str, Any]:
        """The JSON object of this key: every field, none left out."""
        return {
            "baseIdentity": str(self.base),
            "computeDtype": self.compute_dtype,
            "weightQuantisation": self.weight_quantisation,
            "architecture": str(self.architecture),
            "rope": canonical_json.parse_object(self.rope.encode()),
            "kvDtype": self.kv_dtype,
            "kvQuantisation": self.kv_quantisation,
            "adapters": [
                {"identity": str(adapter.identity), "scale": adapter.scale}
                for adapter in self.adapters
            ],
            "tokenizer": str(self.tokenizer),
            "specialTokens": self.special_tokens,
            "tokens": {"count": self.token_count, "digest": str(self.tokens)},
            "positionOffset": self.position_offset,
            "postRope": self.post_rope,
        }

    def digest(self) -> Digest:
        """SHA-256 of the canonical JSON: two caches with this digest in common are the same cache."""
        return Digest.of(canonical_json.dump(self.to_json()))


class Mismatch(NamedTuple):
    """One field in which a memory and a model differ, and what to do about it."""

    field: str
    memory: str
    model: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.field}: the memory has {self.memory}, the model {self.model}; {self.remedy}"


_REMEDIES: Final[Mapping[str, str]] = {
    "base": "load the very checkpoint that the memory was made with, or compute it anew (--rebuild)",
    "compute_dtype": "load the model in the memory's dtype",
    "weight_quantisation": "load the model with the memory's quantisation",
    "architecture": "use the memory's own model: layers, heads or windows differ",
    "rope": "load the model with the memory's RoPE configuration",
    "kv_dtype": "load the model in the dtype of the memory's cache",
    "kv_quantisation": "this model reads caches of another storage format: build it anew",
    "tokenizer": "use the tokenizer that the memory was made with",
    "special_tokens": "tokenise with the memory's special-token policy",
    "tokens": "the cache belongs to other tokens: mount it under the very ids that it was made from",
    "token_count": "the cache covers another number of tokens",
    "position_offset": "only caches that start at position 0 can be mounted",
    "post_rope": "only caches taken behind the rotation can be mounted",
}
_TO_MOUNT: Final = "mount the LoRA memory that it was made under first"
_TO_UNMOUNT: Final = "unmount the adapter that was not active when the memory was made"
_TO_REORDER: Final = "activate the same adapters, in the same order and with the same scale"


def compare(memory: CompatibilityKey, model: CompatibilityKey) -> tuple[Mismatch, ...]:
    """Every field in which the key of a `memory` differs from that of a `model`; none if it fits."""
    return tuple(
        Mismatch(
            field.name,
            _shown(getattr(memory, field.name)),
            _shown(getattr(model, field.name)),
            _adapter_remedy(memory, model) if field.name == "adapters" else _REMEDIES[field.name],
        )
        for field in fields(CompatibilityKey)
        if getattr(memory, field.name) != getattr(model, field.name)
    )


def incompatible(mismatches: Iterable[Mismatch]) -> IncompatibleError:
    """The error that lists `mismatches`."""
    listed = list(mismatches)
    return IncompatibleError(
        "this activation memory does not fit the model: "
        + "; ".join(f"{m.field} is {m.memory} in the memory, {m.model} here" for m in listed),
        hint="; ".join(m.remedy for m in listed),
    )


def _adapter_remedy(memory: CompatibilityKey, model: CompatibilityKey) -> str:
    wanted, active = ({adapter.identity for adapter in key.adapters} for key in (memory, model))
    if wanted - active:
        return _TO_MOUNT if not active - wanted else f"{_TO_MOUNT}; {_TO_UNMOUNT}"
    return _TO_UNMOUNT if active - wanted else _TO_REORDER


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or NONE
    return str(value)


def _adapter(source: Fields) -> ActiveAdapter:
    adapter = ActiveAdapter(AdapterIdentity.parse(source.text("identity")), source.text("scale"))
    source.finish()
    return adapter


def _required(value: int | None, name: str) -> int:
    if value is None:
        raise _invalid(f"a key without {name}")
    return value


def _flag(source: Fields, name: str) -> bool:
    value = source.take(name)
    if not isinstance(value, bool):
        raise source.refuse(name, "is not true or false")
    return value


def _invalid(what: str) -> InvalidConfigError:
    return InvalidConfigError(
        f"not an acceptable compatibility key: {what}", hint="see docs/spec/activation.md"
    )
