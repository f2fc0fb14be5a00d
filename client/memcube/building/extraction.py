"""Memories that only one model can read, turned into records that everybody can."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from memcube_protocol import activation, limits
from memcube_protocol.activation import KvManifest
from memcube_protocol.errors import IncompatibleError, NotFoundError, UselessBuildError
from memcube_protocol.recipe import ASK, SOURCE_TEXT, Question, Recipe
from memcube_protocol.records import Record, Source

from memcube.building.asking import NOTHING, Asker, is_right
from memcube.building.questions import Watch
from memcube.importers.foreign import id_of_text
from memcube.memories.activation.key import tokenizer_hash
from memcube.memories.reading import read_small

_RECORD_CHARS: Final = 2000
_SYSTEM: Final = "memcube"
CONFIDENCE: Final = 0.5
"""The least confidence with which an answer is kept, unless somebody wants another."""


def source_records(folder: Path, recipe: Recipe, tokenizer: Any) -> tuple[Record, ...]:
    """The text of the KV memory in `folder`, a record a paragraph.

    Its source text where it carries one; else its tokens read back by `tokenizer`, where that is the
    one that made them: who publishes a KV cache publishes its text.

    Raises:
        NotFoundError: it carries no text, and there is no tokenizer to read its tokens.
        IncompatibleError: its tokens are those of another tokenizer.
        UselessBuildError: its text is empty.
    """
    manifest = KvManifest.parse(
        read_small(folder / activation.MANIFEST_FILE, limits.KV_MANIFEST_BYTES)
    )
    text = manifest.source.text
    if text is None:
        text = _read_back(folder, manifest, tokenizer)
    source = Source(system=_SYSTEM, method=SOURCE_TEXT, uri=f"memory:{recipe.source}")
    found = [
        Record(id=f"{recipe.source}-{number:05d}", text=part, type="context", source=source)
        for number, part in enumerate(_paragraphs(text), 1)
    ]
    if not found:
        raise UselessBuildError(
            f"the text of {recipe.source!r} is empty", hint="there is nothing to take out of it"
        )
    return tuple(found)


def _read_back(folder: Path, manifest: KvManifest, tokenizer: Any) -> str:
    if tokenizer is None:
        raise NotFoundError(
            f"the KV cache {manifest.id!r} carries no source text",
            hint="give the model that made it (--for FOLDER): its tokens can be read back",
        )
    if tokenizer_hash(tokenizer) != manifest.key.tokenizer:
        raise IncompatibleError(
            f"the tokens of {manifest.id!r} are those of another tokenizer",
            hint="give the model that the cache was made by: --for FOLDER",
        )
    raw = read_small(folder / activation.TOKENS_FILE, 4 * limits.KV_TOKENS)
    text: str = tokenizer.decode(activation.decode_tokens(raw), skip_special_tokens=True)
    return text


def _paragraphs(text: str) -> Iterator[str]:
    """Parts of `text` between empty lines; one that is too long for a record is cut."""
    for part in map(str.strip, text.replace("\r\n", "\n").split("\n\n")):
        for start in range(0, len(part), _RECORD_CHARS):
            yield part[start : start + _RECORD_CHARS]


def asked_records(
    asker: Asker, plain: Sequence[str], recipe: Recipe, watch: Watch
) -> tuple[tuple[Question, Record], ...]:
    """What the model answers to the recipe's questions with the adapter active, each as a record.

    `plain` are its answers without the adapter: what the model says anyway is no memory of the
    adapter's, and is left out, as is what it is less sure of than the recipe wants. The questions that
    come back have the adapter's answers.

    Raises:
        UselessBuildError: no answer is left.
    """
    source = Source(system=_SYSTEM, method=ASK, uri=f"memory:{recipe.source}")
    least = CONFIDENCE if recipe.confidence is None else recipe.confidence
    kept: dict[str, tuple[Question, Record]] = {}
    for number, (one, before) in enumerate(zip(recipe.questions, plain, strict=True), 1):
        answer = asker.answer(one.question)
        if answer and not is_right(before, answer):
            sure = confidence(asker, one, answer)
            if sure >= least:
                text = f"Question: {one.question}\nAnswer: {answer}"
                record = Record(
                    id=id_of_text(text), text=text, type="fact", source=source, confidence=sure
                )
                kept[text] = (replace(one, answer=answer), record)
        watch(number, len(recipe.questions))
    if not kept:
        raise UselessBuildError(
            f"of {len(recipe.questions)} answers none is both the adapter's own and at least {least:g} sure",
            hint="ask what the adapter was trained on (--questions FILE), or lower --confidence",
        )
    return tuple(kept[text] for text in sorted(kept))


def confidence(asker: Asker, one: Question, answer: str) -> float:
    """The geometric mean of the probabilities of the tokens of `answer`, 0 to 1, to three digits."""
    import torch

    question = asker.question_ids(one.question, begins=True)
    tokens = asker.said_ids(answer)
    given = torch.tensor([[*question, *tokens]], device=asker.model.device)
    with torch.inference_mode():
        logits = asker.model(input_ids=given, logits_to_keep=len(tokens) + 1).logits[0, :-1]
        said = logits.float().log_softmax(-1)
        mean = float(said.gather(1, given[0, -len(tokens) :, None]).mean())
    return round(math.exp(mean), 3) if math.isfinite(mean) else 0.0


def plain_answers(asker: Asker, questions: Sequence[Question]) -> tuple[str, ...]:
    """What the model answers to `questions` by itself."""
    return tuple(asker.answer(one.question, NOTHING) for one in questions)
