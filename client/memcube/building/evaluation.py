"""What a build does: how many of the cube's facts come back, and what becomes of unrelated text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from memcube_protocol.errors import UselessBuildError
from memcube_protocol.recipe import Evaluation, Question

from memcube.building.asking import Asker, Prefix, is_right
from memcube.building.questions import Watch

DAMAGE: Final = 2.0
"""By how much the perplexity of unrelated text may grow before a build counts as damage."""
PASSAGE_TOKENS: Final = 128
_DIGITS: Final = 4
_MOST_NATS: Final = 34.0
_SPARE_TOKENS: Final = 8


def recall(
    asker: Asker, questions: Sequence[Question], before: Prefix, watch: Watch | None = None
) -> int:
    """How many of `questions` are answered right behind `before`."""
    right = 0
    for number, one in enumerate(questions, 1):
        assert one.answer is not None
        room = len(asker.answer_ids(one.answer)) + _SPARE_TOKENS
        answer = asker.answer(one.question, before, room)
        right += is_right(answer, one.answer)
        if watch:
            watch(number, len(questions))
    return right


def perplexity(model: Any, passages: Sequence[Sequence[int]], before: Prefix) -> float:
    """Perplexity of `passages` (token ids) behind `before`, to four digits; their first tokens do not count.

    At most e^34, which also stands for what is not a number.
    """
    import torch
    from torch.nn.functional import cross_entropy

    total, count = 0.0, 0
    for passage in passages:
        ids = [*before.ids, *passage]
        options: dict[str, Any] = {}
        if before.new_cache is not None:
            ids, options = list(passage), {"past_key_values": before.new_cache()}
        given = torch.tensor([ids], device=model.device)
        with torch.inference_mode():
            logits = model(input_ids=given, logits_to_keep=len(passage), **options).logits[0]
            wanted = torch.tensor(passage[1:], device=model.device)
            total += float(cross_entropy(logits[:-1].float(), wanted, reduction="sum"))
        count += len(passage) - 1
    mean = total / count if count else math.nan
    return _rounded(math.exp(min(mean, _MOST_NATS) if math.isfinite(mean) else _MOST_NATS))


def _rounded(number: float) -> float:
    """`number` to four significant digits: further ones differ between machines."""
    return float(f"{number:.{_DIGITS}g}")


def require_teacher(asked: int, without: int, source: int) -> None:
    """Refuse to teach by a text that helps the model to no answer: that would take long and teach nothing.

    Raises:
        UselessBuildError: with the figures.
    """
    if asked and source <= without and source < asked:
        raise UselessBuildError(
            f"with the text before it the model answers {source} of {asked} right, without it {without}: "
            "it cannot be taught by what it does not read",
            hint="take a larger model, ask in a form that it knows (--prompt), or try it with --accept",
        )


def require_useful(found: Evaluation) -> None:
    """Refuse a build that recalls nothing, or that damages what the model does otherwise.

    Raises:
        UselessBuildError: with the figures.
    """
    if not found.asked:
        raise UselessBuildError(
            "its recall was not measured: there is no question with an answer",
            hint="give --questions FILE, or keep it unmeasured with --accept",
        )
    gained = found.with_memory > found.without
    if not gained and found.with_memory < found.asked:
        raise UselessBuildError(
            f"it recalls nothing: {found.with_memory} of {found.asked} answers are right with it, "
            f"{found.without} without",
            hint="see that the records answer the questions; a larger model may help, or for an adapter more "
            "--steps or another --rate; or keep it with --accept",
        )
    if found.perplexity and not found.perplexity[1] <= DAMAGE * found.perplexity[0]:
        before, after = found.perplexity
        raise UselessBuildError(
            f"it damages the model: the perplexity of unrelated text goes from {before:g} to {after:g}",
            hint="fewer --steps, a lower --rate, a text of another --unrelated; or keep it with --accept",
        )


def answered(questions: Sequence[Question]) -> tuple[Question, ...]:
    """Those whose answer is known: they can be judged."""
    return tuple(one for one in questions if one.answer is not None)
