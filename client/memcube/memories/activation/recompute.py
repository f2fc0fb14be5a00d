"""Compute a KV cache anew from its source text and compare: does it say what the text says?

Equal keys give equal caches to the bit on one machine; another device or another version of a library
rounds otherwise. So rows of the cache, one a token and tensor, are compared by their distance, as a
share of the mean length of the rows of that tensor: rounding moves a row by little, another token by
about its whole length.
"""

from __future__ import annotations

import math
from dataclasses import field
from pathlib import Path
from typing import Any, Final

from memcube_protocol import activation
from memcube_protocol.compatibility import INT8, CompatibilityKey, compare, incompatible
from memcube_protocol.digest import Digest
from memcube_protocol.errors import NotFoundError
from memcube_protocol.identity import BaseIdentity
from memcube_protocol.values import frozen

from memcube.memories.activation.capture import attention_layers
from memcube.memories.activation.dump import prefill
from memcube.memories.activation.files import open_kv, views
from memcube.memories.activation.mount import asked_key
from memcube.memories.activation.prompt import ids_of_text
from memcube.memories.model_identity import live_identity

ROUNDING: Final = {"F32": 1e-3, "F16": 2e-2, "BF16": 1e-1}
"""The largest share of a row that rounding explains, by the element type that the model computes in."""
_INT8_TOLERANCE: Final = 3e-2
_TOKENS: Final = frozenset({"tokens", "token_count"})


@frozen
class Comparison:
    """How far a cache is from its text. `difference` is infinite where its very tokens are others.

    `token` is the position of the row that is furthest away; `environment` is what it was computed with.
    """

    difference: float
    token: int
    base: BaseIdentity
    compute_dtype: str
    environment: dict[str, str] = field(default_factory=dict[str, str])


def tolerance_of(key: CompatibilityKey) -> float:
    """The largest share of a row that rounding explains: by element type, and storage in eight bits."""
    rounding = ROUNDING.get(key.compute_dtype, ROUNDING["BF16"])
    return max(rounding, _INT8_TOLERANCE) if key.kv_quantisation == INT8 else rounding


def recompute(
    folder: Path,
    model: Any,
    tokenizer: Any,
    *,
    text: str | None = None,
    base_identity: BaseIdentity | None = None,
) -> Comparison:
    """The cache in `folder` beside the one that `model` computes now from its source text.

    `text` is that text where the memory carries only its digest. The adapters of the key have to be
    active on the model.

    Raises:
        NotFoundError: there is no text, or a file is missing.
        IncompatibleError: the model is not the one that the cache is for.
        InvalidTensorsError, DigestMismatchError, InvalidConfigError: the files are damaged.
        UnsupportedError: the model has layers that keep no keys and values.
    """
    manifest, ids, storage = open_kv(folder)
    attention_layers(model)
    wanted = _ids(manifest, tokenizer, text)
    base = base_identity or live_identity(model)
    key = asked_key(manifest, wanted, model, tokenizer, base)
    others = [one for one in compare(manifest.key, key) if one.field not in _TOKENS]
    if others:
        raise incompatible(others)
    environment = _environment(model)
    if wanted != ids:
        at = activation.shared_tokens(ids, wanted)
        return Comparison(math.inf, at, base, key.compute_dtype, environment)
    cache = prefill(model, ids)
    held = views(manifest, storage, len(ids), model)
    shares = [
        _furthest(one, other)
        for layer, view in zip(cache.layers, held, strict=True)
        for one, other in ((view.keys, layer.keys), (view.values, layer.values))
    ]
    difference, token = max(shares)
    return Comparison(difference, token, base, key.compute_dtype, environment)


def _ids(manifest: activation.KvManifest, tokenizer: Any, text: str | None) -> tuple[int, ...]:
    source = manifest.source
    if source.text is None and (text is None or source.digest != Digest.of(text.encode())):
        raise NotFoundError(
            f"the KV cache {manifest.id!r} carries no source text", hint="give it with --text"
        )
    words = source.text if source.text is not None else text
    assert words is not None
    return ids_of_text(tokenizer, words, manifest.key.special_tokens)


def _furthest(held: Any, computed: Any) -> tuple[float, int]:
    """The largest distance of a row of `held`, as a share of the mean length, and its token."""
    one, other = _rows(held), _rows(computed)
    lengths = other.norm(dim=1)
    shares = (one - other).norm(dim=1) / lengths.mean().clamp_min(1e-30)
    shares = shares.nan_to_num(nan=math.inf, posinf=math.inf)
    token = int(shares.argmax())
    return float(shares[token]), token


def _rows(tensor: Any) -> Any:
    """`tensor` [1, heads, tokens, width] as one row a token."""
    return tensor[0].transpose(0, 1).flatten(1).float()


def _environment(model: Any) -> dict[str, str]:
    import torch
    import transformers

    return {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "device": model.device.type,
        "attention": str(getattr(model.config, "_attn_implementation", None)),
    }
