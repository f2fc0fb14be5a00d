"""Plaintext into LoRA: the model learns to answer without a text as it answers with it.

Context distillation. For each question the teacher is the model without the adapter and with the text
before the question, the pupil the model with the adapter and without the text; on unrelated text the
pupil is held to what the model says by itself. Teacher and pupil share their weights: memory grows by
the adapter and its gradients alone.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from memcube_protocol.errors import ConflictError, UnsupportedError, UselessBuildError
from memcube_protocol.identity import BaseIdentity
from memcube_protocol.recipe import Question, Recipe, Training
from memcube_protocol.values import frozen

from memcube.building.asking import Asker
from memcube.building.material import Material
from memcube.building.questions import Watch
from memcube.memories.model_identity import tuner_layers
from memcube.memories.parametric.dump import dump_lora
from memcube.mounting.baseline import Baseline, uninterrupted

RETAINED_TOKENS: Final = 64
_SLOWEST: Final = 0.05
_TARGETS: Final = "all-linear"


@frozen
class Lesson:
    """Token ids up to the answer, as the pupil and as the teacher read them, and those of the answer."""

    pupil: tuple[int, ...]
    teacher: tuple[int, ...]
    answer: tuple[int, ...]


def lessons_of(asker: Asker, material: Material, questions: Sequence[Question]) -> list[Lesson]:
    """One lesson a question that has an answer and is not held out."""
    made = []
    for one in questions:
        if one.answer is None or one.held_out:
            continue
        text = asker.ids_of(material.text_of(one.record), begins=True)
        behind = asker.question_ids(one.question, begins=False)
        alone = asker.question_ids(one.question, begins=True)
        answer = tuple(asker.answer_ids(one.answer))
        made.append(Lesson(tuple(alone), (*text, *behind), answer))
    return made


def distil(
    asker: Asker,
    lessons: Sequence[Lesson],
    unrelated: Sequence[Sequence[int]],
    recipe: Recipe,
    folder: Path,
    *,
    base_identity: BaseIdentity,
    watch: Watch,
) -> Path:
    """The LoRA memory below `folder` that was taught `lessons`; the model is left as it was.

    `unrelated` are token ids of texts that the pupil goes on reading as before. Call it under
    `asking.steady`.

    Raises:
        ConflictError: an adapter is active on the model, or is injected into it.
        UnsupportedError: peft finds nothing in the model that it can adapt.
        UselessBuildError: the training diverged, or there is nothing to teach.
    """
    assert recipe.training
    if not lessons:
        raise UselessBuildError(
            "there is nothing to teach: no question has an answer",
            hint="give questions with answers: --questions FILE",
        )
    made = {
        "method": "context-distillation",
        "recipe": str(recipe.digest),
        "seed": recipe.seed,
        "steps": recipe.training.steps,
        "lessons": len(lessons),
    }
    with _adapted(asker.model, recipe.training) as pupil:
        _teach(_School(pupil, asker, recipe.training), lessons, unrelated, recipe.seed, watch)
        return dump_lora(
            pupil,
            folder,
            memory_id=recipe.memory,
            base_identity=base_identity,
            training=made,
            inputs={f"cube {recipe.parent}": recipe.parent},
        )


@contextmanager
def _adapted(model: Any, training: Training) -> Iterator[Any]:
    """`model` with a fresh adapter to be trained; afterwards the model as it was, wherever it was stopped."""
    import peft

    if any(True for _ in tuner_layers(model)):
        raise ConflictError(
            "the model has an adapter already", hint="distil into a model without adapters"
        )
    config = peft.LoraConfig(
        r=training.rank, lora_alpha=training.alpha, target_modules=_TARGETS, task_type="CAUSAL_LM"
    )
    before = Baseline(model)
    try:
        yield _injected(model, config)
    finally:
        with uninterrupted():
            before.restore()
            for tensor in model.parameters():
                tensor.grad = None


def _injected(model: Any, config: Any) -> Any:
    import peft

    try:
        with warnings.catch_warnings():
            # peft asks transformers for a property under its old name.
            warnings.filterwarnings("ignore", category=FutureWarning)
            # It finds out by itself how the layers of GPT-2 lie.
            warnings.filterwarnings("ignore", "fan_in_fan_out is set to False")
            return peft.get_peft_model(model, config)
    except ValueError as error:
        raise UnsupportedError(
            f"peft cannot adapt this model: {error}", hint="build a KV cache instead"
        ) from None


@frozen
class _School:
    """Pupil and teacher, one model with its adapter on or off, and what they are taught by."""

    model: Any
    asker: Asker
    training: Training

    def loss(self, lessons: Sequence[Lesson], passage: Sequence[int]) -> Any:
        """What is to become small: see `recipe.Training`."""
        import torch
        from torch.nn.functional import cross_entropy, kl_div

        with torch.no_grad(), self.model.disable_adapter():
            wanted = self._said([(one.teacher, one.answer) for one in lessons])
        given = self._said([(one.pupil, one.answer) for one in lessons])
        right = torch.tensor([i for one in lessons for i in one.answer], device=given.device)
        total = kl_div(given, wanted, log_target=True, reduction="batchmean")
        total = total + self.training.answers * cross_entropy(given, right)
        if passage and self.training.retain:
            total = total + self.training.retain * self._drift(passage)
        return total

    def _drift(self, passage: Sequence[int]) -> Any:
        """Divergence on unrelated text from the model as it was."""
        import torch
        from torch.nn.functional import kl_div

        row = [(self.asker.start.ids, passage)]
        with torch.no_grad(), self.model.disable_adapter():
            wanted = self._said(row)
        return kl_div(self._said(row), wanted, log_target=True, reduction="batchmean")

    def _said(self, rows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Any:
        """Log-probabilities [tokens, vocabulary] before each token of the second part of every row.

        Rows are filled on the left, so that only the logits at the end are computed. The first token
        of a row has nothing before it and is left out.
        """
        import torch

        device, whole = self.model.device, [(*first, *second) for first, second in rows]
        width, ends = max(map(len, whole)), max(len(second) for _, second in rows)
        ids = torch.zeros((len(rows), width), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for number, row in enumerate(whole):
            ids[number, width - len(row) :] = torch.tensor(row)
            mask[number, width - len(row) :] = 1
        places = (mask.cumsum(1) - 1).clamp_min(0)
        logits = self.model(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            position_ids=places.to(device),
            logits_to_keep=min(ends + 1, width),
        ).logits
        chosen = []
        for number, (first, second) in enumerate(rows):
            count = len(second) if first else len(second) - 1
            chosen.append(logits[number, -count - 1 : -1])
        return torch.cat(chosen).float().log_softmax(-1)


def _teach(
    school: _School,
    lessons: Sequence[Lesson],
    unrelated: Sequence[Sequence[int]],
    seed: int,
    watch: Watch,
) -> None:
    import torch

    training = school.training
    taught = [tensor for tensor in school.model.parameters() if tensor.requires_grad]
    optimizer = torch.optim.AdamW(taught, lr=training.rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, _SLOWEST, training.steps)
    draw = random.Random(f"lessons {seed}")  # noqa: S311 (an order of lessons, no secret)
    school.model.eval()
    for step in range(training.steps):
        batch = draw.sample(lessons, min(training.batch, len(lessons)))
        passage = unrelated[step % len(unrelated)] if unrelated else ()
        loss = school.loss(batch, passage[:RETAINED_TOKENS])
        if not torch.isfinite(loss):
            raise UselessBuildError(
                f"the training diverged in step {step + 1} of {training.steps}: its loss is {loss.item()}",
                hint="lower --rate, or try another --seed",
            )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(taught, 1.0)
        optimizer.step()
        schedule.step()
        watch(step + 1, training.steps)
