"""Several KV memories behind each other: approximate, for those behind the first never saw it.

One memory is exact. Of several, each is computed apart, at position 0 and with nothing before it. Behind another
one its keys are moved to their place (`rotation`), but what its tokens would have taken from those before
them is missing. So a composition is labelled approximate, can be compared with a full computation of the same
tokens, and gives way to it where it is too far off.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from memcube_protocol.errors import ConflictError, InvalidRequestError, LimitExceededError
from memcube_protocol.values import frozen

from memcube.memories.activation.capture import attention_layers, captured
from memcube.memories.activation.dump import prefill
from memcube.memories.activation.mounted import Exactness, Layers, MappedLayers, Prefix
from memcube.memories.activation.room import room_errors
from memcube.memories.activation.rotation import require_movable, rotations
from memcube.memories.window import window_of

if TYPE_CHECKING:
    from memcube.memories.activation.layers import LayerView

MAX_DIVERGENCE: Final = 0.1
"""Nats from the full computation's next-token probabilities to the composition's that a check lets pass."""


@frozen
class SelfCheck:
    """How far a composition is from a full computation, at the last position of a question.

    `divergence` is the Kullback-Leibler divergence in nats, `same_token` whether both find the same token most
    likely.
    """

    divergence: float
    same_token: bool
    allowed: float = MAX_DIVERGENCE

    @property
    def passed(self) -> bool:
        """Whether the composition may stand."""
        return self.divergence <= self.allowed


class ComposedKv(Prefix):
    """Several memories as one prefix; `check` is what came of the comparison, where one was asked for.

    Where it did not pass, `exactness` is exact: the full computation took the composition's place.
    """

    def __init__(
        self,
        model: Any,
        token_ids: Sequence[int],
        layers: Layers,
        exactness: Exactness,
        check: SelfCheck | None = None,
    ) -> None:
        super().__init__(model, token_ids, layers, exactness)
        self.check = check


def compose_kv(
    memories: Sequence[Prefix],
    *,
    question_ids: Sequence[int] | None = None,
    max_divergence: float = MAX_DIVERGENCE,
) -> ComposedKv:
    """The `memories`, mounted on one model, as one prefix in their order; they may be unmounted afterwards.

    With `question_ids` the composition is checked: the model answers them behind it and behind a full
    computation of all tokens, which costs what the memories save, and takes its place where they differ by
    more than `max_divergence` nats.

    Raises:
        InvalidRequestError: no memory is given.
        ConflictError: they are mounted on several models, or under other adapters than now.
        UnsupportedError: keys of this model cannot be moved.
        LimitExceededError: together they are longer than the model's texts may be, or there is no room.
    """
    model = _model_of(memories)
    ids = [token for memory in memories for token in memory.token_ids]
    _require_length(model, len(ids))
    with room_errors():
        views = _joined(memories)
        exactness = memories[0].exactness if len(memories) == 1 else Exactness.APPROXIMATE
        composed = ComposedKv(model, ids, MappedLayers(views), exactness)
        if question_ids is None:
            return composed
        full = prefill_kv(model, ids)
        check = compare_kv(full, composed, question_ids, max_divergence=max_divergence)
        stands = composed if check.passed else full
        return ComposedKv(model, ids, stands.layers, stands.exactness, check)


def prefill_kv(model: Any, token_ids: Sequence[int]) -> Prefix:
    """The prefix of `token_ids`, computed now: exact, and nothing of it is written anywhere.

    Raises:
        UnsupportedError: a layer of the model keeps something else than keys and values.
        LimitExceededError: there is no room for it.
    """
    views = captured(prefill(model, token_ids), len(token_ids))
    return Prefix(model, token_ids, MappedLayers(views), Exactness.EXACT)


def compare_kv(
    wanted: Prefix,
    given: Prefix,
    question_ids: Sequence[int],
    *,
    max_divergence: float = MAX_DIVERGENCE,
) -> SelfCheck:
    """How far answers to `question_ids` behind `given` are from those behind `wanted`.

    Raises:
        InvalidRequestError: there is no question.
    """
    if not question_ids:
        raise InvalidRequestError(
            "a check needs a question of at least one token", hint="give the ids of one"
        )
    exact, other = (_next_token(prefix, question_ids) for prefix in (wanted, given))
    divergence = float((exact.exp() * (exact - other)).sum())
    return SelfCheck(
        math.inf if math.isnan(divergence) else max(divergence, 0.0),
        bool(exact.argmax() == other.argmax()),
        max_divergence,
    )


def _next_token(prefix: Prefix, question_ids: Sequence[int]) -> Any:
    """Log-probabilities of the token behind the question."""
    import torch

    ids = torch.tensor([list(question_ids)], device=prefix.model.device)
    with torch.inference_mode():
        output = prefix.model(input_ids=ids, past_key_values=prefix.new_cache(), logits_to_keep=1)
    return output.logits[0, -1].float().log_softmax(-1)


def _model_of(memories: Sequence[Prefix]) -> Any:
    if not memories:
        raise InvalidRequestError("no memory to compose", hint="give at least one")
    first = memories[0]
    if any(
        memory.model is not first.model or memory.adapters != first.adapters for memory in memories
    ):
        raise ConflictError(
            "these memories are mounted on several models, or under several adapters",
            hint="mount them all on one model, behind its LoRA memories",
        )
    return first.model


def _require_length(model: Any, tokens: int) -> None:
    longest = window_of(model)
    if longest is not None and tokens >= longest:
        raise LimitExceededError(
            f"{tokens} tokens are more than this model's {longest} positions hold beside a question",
            hint="mount fewer memories, or shorter prefixes of them",
        )


def _joined(memories: Sequence[Prefix]) -> tuple[LayerView, ...]:
    """Keys and values of all memories in one tensor a layer, each memory moved to its place."""
    parts = [_moved(memories[0], 0)]
    for memory in memories[1:]:
        parts.append(_moved(memory, sum(part[0].keys.shape[-2] for part in parts)))
    return tuple(_one_behind_another(layer) for layer in zip(*parts, strict=True))


def _moved(memory: Prefix, start: int) -> list[LayerView]:
    """The layers of `memory`, its keys moved to position `start`."""
    from memcube.memories.activation.layers import LayerView

    layers = memory.layers
    views = [layers.view(position) for position in range(attention_layers(memory.model))]
    if not start:
        return views
    require_movable(memory.model, memory.token_ids, start)
    turns = rotations(memory.model, start)
    return [
        LayerView(turn(view.keys), view.values) for turn, view in zip(turns, views, strict=True)
    ]


def _one_behind_another(parts: Sequence[LayerView]) -> LayerView:
    import torch

    from memcube.memories.activation.layers import LayerView

    if len(parts) == 1:
        return parts[0]
    return LayerView(
        torch.cat([part.keys for part in parts], dim=-2),
        torch.cat([part.values for part in parts], dim=-2),
    )
