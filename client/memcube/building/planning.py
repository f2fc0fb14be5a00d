"""From what somebody wants to a recipe: every choice that was left open is made, and written down."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from memcube_protocol.config import ACTIVATION, PARAMETRIC, PLAINTEXT, CubeConfig, Memory
from memcube_protocol.errors import (
    InvalidRequestError,
    LimitExceededError,
    NotFoundError,
)
from memcube_protocol.recipe import (
    BUDGET_TOKENS,
    CHAT,
    DISTIL,
    FENCED,
    METHODS,
    PROMPT,
    QUESTIONS,
    RATE,
    SOURCE_TEXT,
    Question,
    Recipe,
    Training,
)
from memcube_protocol.values import frozen

from memcube.building.asking import Asker
from memcube.building.unrelated import PASSAGES, digest_of
from memcube.consuming.verifying import Verified
from memcube.memories.model_identity import live_identity
from memcube.memories.window import window_of

ASKED: Final = 32
"""Questions that a model asks itself where none are given."""
_RESERVE_TOKENS: Final = 256
"""Left of what the model can read for a question and its answer."""
_SUFFIXES: Final = {ACTIVATION: "kv", PARAMETRIC: "lora"}

Watch = Callable[[str, int, int], None]
"""Hears what is being done, how many parts of it are, and of how many."""


def unwatched(what: str, done: int, total: int) -> None:
    """Nobody looks."""


@frozen(kw_only=True)
class Wanted:
    """What somebody asks for; what is None is chosen.

    `source` is the memory to make it from, `memory` the new one's id; `training` and `confidence` as
    in a recipe. `passages` are the unrelated text.
    """

    kind: str
    source: str | None = None
    memory: str | None = None
    questions: tuple[Question, ...] = ()
    prompt: str | None = None
    render: str = FENCED
    budget_tokens: int | None = None
    passages: tuple[str, ...] = field(default=PASSAGES, repr=False)
    seed: int = 0
    threads: int | None = None
    as_of: datetime | None = None
    training: Training | None = None
    confidence: float | None = None


@frozen
class Order:
    """How to build. `passages` is the file of unrelated text that the recipe names, None: memcube's own.

    `accept` keeps a build that recalls nothing or does damage; `ask` is how many questions the model
    asks itself where the recipe has none, at most 1024; `watch` hears how it goes.
    """

    passages: Path | None = None
    accept: bool = False
    ask: int = ASKED
    watch: Watch = unwatched

    def __post_init__(self) -> None:
        if not 0 <= self.ask <= QUESTIONS:
            raise InvalidRequestError(
                f"{self.ask} questions cannot be asked", hint=f"a recipe holds 0 to {QUESTIONS}"
            )


def plan_of(
    verified: Verified, wanted: Wanted, model: Any, tokenizer: Any, *, now: datetime
) -> Recipe:
    """The recipe for what is `wanted`, without questions that nobody gave: `builder` lets the model ask them.

    Raises:
        NotFoundError: the cube has nothing to make it from, or it is not clear from what.
        InvalidRequestError: a model is wanted and none is given.
        LimitExceededError: more text is wanted than the model can read.
        UnsupportedError: the prompt is `chat`, and the tokenizer knows no turns.
    """
    config = verified.cube.config
    source = _source(config, wanted)
    method = next(name for name, ways in METHODS.items() if ways == (source.kind, wanted.kind))
    if model is None and method != SOURCE_TEXT:
        raise InvalidRequestError(
            f"a model is needed to make {wanted.kind} memory of {source.kind} memory",
            hint="give the folder of its checkpoint: --for FOLDER",
        )
    prompt = wanted.prompt or (CHAT if getattr(tokenizer, "chat_template", None) else PROMPT)
    if model is not None:
        Asker(model, tokenizer, prompt)
    return Recipe(
        method=method,
        parent=verified.cube.digest,
        source=source.id,
        memory=wanted.memory or _name(config, source, wanted.kind),
        as_of=(wanted.as_of or now).replace(microsecond=0),
        base=None if model is None else live_identity(model),
        seed=wanted.seed,
        threads=wanted.threads or (1 if model is None else _threads()),
        budget_tokens=_budget(wanted.budget_tokens, model),
        render=wanted.render,
        prompt=prompt,
        questions=wanted.questions,
        unrelated=None if model is None else digest_of(wanted.passages),
        training=(wanted.training or usual_training(model)) if method == DISTIL else None,
        confidence=wanted.confidence,
    )


def _source(config: CubeConfig, wanted: Wanted) -> Memory:
    """The memory that the wanted one is made of."""
    kinds = {source for source, target in METHODS.values() if target == wanted.kind}
    fitting = [memory for memory in config.memories if memory.kind in kinds]
    if wanted.source is not None:
        fitting = [memory for memory in fitting if memory.id == wanted.source]
    if len(fitting) == 1:
        return fitting[0]
    have = ", ".join(f"{memory.id} ({memory.kind})" for memory in config.memories) or "nothing"
    need = " or ".join(sorted(kinds))
    if fitting:
        raise NotFoundError(
            f"the cube has {len(fitting)} memories of which {wanted.kind} memory can be made",
            hint=f"choose one with --from ID: {', '.join(memory.id for memory in fitting)}",
        )
    raise NotFoundError(
        f"the cube has no {need} memory {wanted.source or ''}".rstrip()
        + f", of which {wanted.kind} memory is made",
        hint=f"it has {have}" + _no_text(config, wanted.kind),
    )


def _no_text(config: CubeConfig, kind: str) -> str:
    if kind != PLAINTEXT and any(memory.kind == ACTIVATION for memory in config.memories):
        return "; a KV cache that carries its text is computed anew by: memcube mount --rebuild"
    return ""


def _name(config: CubeConfig, source: Memory, kind: str) -> str:
    if kind == PLAINTEXT:
        return PLAINTEXT
    stem = config.name.rpartition("/")[2].replace("_", "-")[:48].strip(".-")
    return f"{stem or source.id}-{_SUFFIXES[kind]}"


def _threads() -> int:
    """As many as this process may use."""
    import torch

    return max(1, min(int(torch.get_num_threads()), len(os.sched_getaffinity(0))))


def _budget(wanted: int | None, model: Any) -> int:
    """Tokens of text: what was asked for, if the model can read so much beside a question."""
    if model is None:
        return wanted or BUDGET_TOKENS
    reads = window_of(model)
    if reads is None:
        return wanted or BUDGET_TOKENS
    room = max(1, reads - min(_RESERVE_TOKENS, reads // 4))
    if wanted is not None and wanted > room:
        raise LimitExceededError(
            f"{wanted} tokens of text are wanted, and this model reads {reads} in all",
            hint=f"ask for at most {room}: the rest is left for questions and answers",
        )
    return wanted or min(BUDGET_TOKENS, room)


def usual_training(model: Any) -> Training:
    """The usual training, slower for wider models: 0.01 at a width of 64, never below 0.0002."""
    width = getattr(model.config.get_text_config(decoder=True), "hidden_size", 1024)
    rate = min(RATE, max(2e-4, 0.64 / width))
    return replace(Training(), rate=float(f"{rate:.3g}"))
