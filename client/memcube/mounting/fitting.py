"""Whether a memory fits a model, told from the cube's config alone: what does not is never fetched.

The mount itself checks the files again; this spares the bytes of what it would refuse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from memcube_protocol.activation import encode_tokens
from memcube_protocol.compatibility import CompatibilityKey, compare, incompatible
from memcube_protocol.config import Memory
from memcube_protocol.errors import MemcubeError
from memcube_protocol.fields import Fields
from memcube_protocol.identity import BaseIdentity
from memcube_protocol.parametric import Base, Level, judge
from memcube_protocol.values import frozen

from memcube.mounting.planning import Misfit

if TYPE_CHECKING:
    from memcube_protocol.parametric import Verdict


@frozen
class Looks:
    """A live model as memories are compared with it.

    `key` is that of a cache it would compute now, of whatever tokens; `base` says which model it is;
    `adapters` are the identities of those active now; `mark` is its name in `speeds`.
    """

    key: CompatibilityKey
    base: Base
    adapters: tuple[str, ...]
    mark: str

    @classmethod
    def of(cls, model: Any, tokenizer: Any, identity: BaseIdentity) -> Looks:
        """How `model` looks now."""
        from memcube.memories.activation.key import active_adapters, model_key
        from memcube.memories.parametric.mount import model_form
        from memcube.mounting.measuring import model_mark

        any_tokens = encode_tokens([0])
        key = model_key(model, tokenizer, base=identity, tokens=any_tokens, special_tokens="given")
        name = getattr(model.config, "_name_or_path", None) or None
        revision = getattr(model.config, "_commit_hash", None)
        base = Base(name, revision, identity, model_form(model))
        adapters = tuple(str(adapter.identity) for adapter in active_adapters(model))
        return cls(key, base, adapters, model_mark(model))


def adapter_misfit(memory: Memory, looks: Looks, *, allow_unverified_base: bool) -> Misfit | None:
    """Why the adapter `memory` does not belong to the model; None where it may."""
    verdict = _judged(memory, looks)
    if isinstance(verdict, Misfit):
        return verdict
    if verdict.level is not Level.UNKNOWN or allow_unverified_base:
        return None
    return Misfit(
        f"it is not known that this adapter belongs to this model: {verdict.why}",
        "load the adapter's own base; a mount takes another with --allow-unverified-base",
    )


def cache_misfit(memory: Memory, looks: Looks, adapters: Sequence[str]) -> Misfit | None:
    """Why the KV cache `memory` does not fit the model with `adapters` active; None where it may.

    `adapters` are identities, in order. Tokens are compared by the mount, which has them.
    """
    try:
        key = CompatibilityKey.from_fields(Fields(memory.compatibility, memory.id))
    except MemcubeError as error:
        return Misfit(str(error), error.hint)
    own = [str(adapter.identity) for adapter in key.adapters]
    asked = replace(
        looks.key,
        adapters=key.adapters if own == list(adapters) else looks.key.adapters,
        kv_quantisation=key.kv_quantisation,
        special_tokens=key.special_tokens,
        tokens=key.tokens,
        token_count=key.token_count,
    )
    if mismatches := compare(key, asked):
        refusal = incompatible(mismatches)
        return Misfit(str(refusal), refusal.hint)
    if own != list(adapters):
        way = (
            "mount the adapters that it was made under, and no others"
            if own
            else "leave the adapters out (filters kind=activation and kind=plaintext)"
        )
        return Misfit(
            f"it was made under {_listed(own)}, and active will be {_listed(adapters)}",
            f"{way}, or allow it to be computed anew: --rebuild",
        )
    return None


def _judged(memory: Memory, looks: Looks) -> Verdict | Misfit:
    try:
        base = Base.from_fields(Fields(memory.compatibility, memory.id).table("base"))
    except MemcubeError as error:
        return Misfit(str(error), error.hint)
    return judge(base, looks.base)


def _listed(adapters: Sequence[str]) -> str:
    return ", ".join(adapters) or "no adapter"
