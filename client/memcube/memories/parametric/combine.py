"""Several adapters as one, with the semantics of peft's `add_weighted_adapter`.

*linear* adds the factors up, each times √(weight x scale): all ranks equal, cheap, and only roughly the
sum of the effects. *cat* puts them beside one another: any ranks, exactly the sum of the effects.

Beside peft 0.21: the same in every bit for up to two adapters of equal ranks by module. Where peft pads
with zeros (other modules, patterns of ranks), *cat* has exactly the ranks that are needed. And the
result's scale is 1, also for rank-stabilised adapters, where peft multiplies by √rank once more.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from memcube_protocol import limits, parametric, tensors
from memcube_protocol.errors import IncompatibleError, InvalidError, UnsupportedError
from memcube_protocol.parametric import PEFT_PREFIX, Adapter

from memcube.memories.model_identity import dtype_name

LINEAR: Final = "linear"
CAT: Final = "cat"
_HALVES: Final = (
    ("lora_A.weight", "lora_B.weight"),
    ("lora_embedding_A", "lora_embedding_B"),
)


class Part(NamedTuple):
    """An adapter with its tensors under their own names, and the weight that it gets."""

    adapter: Adapter
    tensors: Mapping[str, Any]
    weight: float


def combine(parts: Sequence[Part], how: str = LINEAR) -> tuple[Adapter, dict[str, Any]]:
    """The combination of `parts` as an adapter with its tensors; nothing of `parts` is changed.

    Raises:
        InvalidError: an unknown way, no part, or a weight that is not finite.
        UnsupportedError: a part with DoRA, with biases or with modules of its own.
        IncompatibleError: other ranks in one module, for *linear*.
        LimitExceededError: the ranks add up to more than an adapter may have.
    """
    _require_combinable(parts, how)
    state: dict[str, Any] = {}
    ranks: dict[str, int] = {}
    for path, (down, up), held in _modules(parts):
        pairs = [
            (_tensor(part, path, down), _tensor(part, path, up), *_factors(part, path))
            for part in held
        ]
        factor = _added if how == LINEAR else _side_by_side
        a, b = factor(path, pairs)
        state[f"{PEFT_PREFIX}{path}.{down}"], state[f"{PEFT_PREFIX}{path}.{up}"] = a, b
        ranks[path] = a.shape[0]
        limits.require_at_most("rank of the combination", ranks[path], limits.LORA_RANK)
    return _adapter(parts[0].adapter, ranks, state), state


def _require_combinable(parts: Sequence[Part], how: str) -> None:
    if how not in (LINEAR, CAT):
        raise InvalidError(
            f"adapters are not combined by {how[:40]!r}", hint=f"use {LINEAR} or {CAT}"
        )
    if not parts or not all(math.isfinite(part.weight) for part in parts):
        raise InvalidError(
            "a combination wants adapters, each with a finite weight",
            hint='as {"style": 0.7, "law": 0.3}',
        )
    if not all(part.adapter.is_additive for part in parts):
        raise UnsupportedError(
            "an adapter with DoRA, biases or modules of its own cannot be combined",
            hint="switch to it alone, or let several be active together",
        )


def _modules(parts: Sequence[Part]) -> Iterator[tuple[str, tuple[str, str], list[Part]]]:
    """Path and names of the factors of each module, with the parts that change it."""
    holders: dict[str, list[Part]] = {}
    for part in parts:
        for module in part.adapter.modules:
            holders.setdefault(module.path, []).append(part)
    for path, held in sorted(holders.items()):
        halves = next(names for names in _HALVES if _name(held[0], path, names[0]))
        yield path, halves, held


def _name(part: Part, path: str, half: str) -> str | None:
    names = (f"{PEFT_PREFIX}{path}.{half}", f"{path}.{half}")
    return next((name for name in names if name in part.tensors), None)


def _tensor(part: Part, path: str, half: str) -> Any:
    name = _name(part, path, half)
    if name is None:
        raise IncompatibleError(
            f"{path[:200]} is an embedding for one adapter and linear for another",
            hint="they were trained on different models",
        )
    return part.tensors[name]


def _factors(part: Part, path: str) -> tuple[float, float]:
    return part.weight, part.adapter.config.scale_of(path)


def _added(path: str, pairs: Sequence[tuple[Any, Any, float, float]]) -> tuple[Any, Any]:
    """The factors of *linear*: summed in float32, in the type of the first."""
    if len({a.shape[0] for a, *_ in pairs}) > 1:
        raise IncompatibleError(
            f"the adapters have other ranks in {path[:200]}", hint=f"combine them by {CAT!r}"
        )
    first, second = [], []
    for a, b, weight, scale in pairs:
        root = math.sqrt(abs(weight * scale))
        first.append(a.float() * (root if weight * scale >= 0 else -root))
        second.append(b.float() * root)
    return _sum(first).to(pairs[0][0].dtype), _sum(second).to(pairs[0][1].dtype)


def _sum(terms: Iterable[Any]) -> Any:
    total: Any = None
    for term in terms:
        total = term if total is None else total + term
    return total


def _side_by_side(_path: str, pairs: Sequence[tuple[Any, Any, float, float]]) -> tuple[Any, Any]:
    """The factors of *cat*: weight and scale go into the first, as peft has it."""
    import torch

    first = torch.cat([a * weight * scale for a, _, weight, scale in pairs], dim=0)
    return first, torch.cat([b for _, b, *_ in pairs], dim=1)


def _adapter(like: Adapter, ranks: Mapping[str, int], state: Mapping[str, Any]) -> Adapter:
    """The adapter with these tensors, with a scale of one in every module."""
    by_path = {f"^{path}": rank for path, rank in ranks.items()}
    highest = max(ranks.values())
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": like.config.base_model,
        "r": highest,
        "lora_alpha": highest,
        "target_modules": sorted(ranks),
        "rank_pattern": by_path,
        "alpha_pattern": by_path,
    }
    start = tensors.write_header(
        ((name, dtype_name(tensor.dtype), tuple(tensor.shape)) for name, tensor in state.items()),
        parametric.metadata(like.base),
    )
    size = len(start) + sum(tensor.nbytes for tensor in state.values())
    return parametric.check(json.dumps(config).encode(), tensors.parse_header(start, size))
