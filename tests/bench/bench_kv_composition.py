"""Several KV memories behind each other: how far from one computation, on small models trained here.

    facts         the demo's model; the eight facts about a user lie in two memories of four, or in four of two
    corrections   a model that learned that the later of two facts counts; the second memory corrects the first
    references    a model that learned that a fact may name another one, whose value it then has; the second memory
                  names facts of the first

Every fact is asked for behind:

    composed      the memories, keys moved to their place: what `compose_kv` makes
    not moved     the same keys as they are, all of them taken at position 0
    last alone    the last memory, the others left out

each compared with one computation of all tokens: Kullback-Leibler divergence of the next token, in nats. Users
and values were in no training.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

import pytest
from support.measuring import report

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers
from memcube.demo.model import (
    VALUES,
    facts,
    make_model,
    make_profile,
    make_tokenizer,
    question,
    train_model,
)
from memcube.memories.activation import composition as kv_composition
from memcube.memories.activation.composition import compare_kv, compose_kv, prefill_kv
from memcube.memories.activation.mounted import Prefix

NAMES = list(VALUES)
PROFILES = range(1000, 1016)
COLUMNS = ("text", "memories", "way", "mean, nats", "same token", "right answers")
EASY_STEPS, BATCH, QUESTIONS, IGNORED = 150, 48, 3, -100
Told = tuple[list[str], dict[str, str]]
"""A text for each memory, and the right answer for each attribute."""
Row = tuple[float, bool, bool]


def not_moved(parts: Sequence[Prefix]) -> Prefix:
    """`parts` behind each other with the keys that they have."""
    moved = kv_composition._moved
    kv_composition._moved = lambda memory, start: moved(memory, 0)
    try:
        return compose_kv(parts)
    finally:
        kv_composition._moved = moved


WAYS = {"composed": compose_kv, "not moved": not_moved, "last alone": lambda parts: parts[-1]}


@dataclass(frozen=True)
class Task:
    """Texts of one kind: models that read them, and what they tell about a user."""

    name: str
    models: list[Any]
    tell: Callable[[int], Told]


def in_parts(count: int) -> Callable[[int], Told]:
    """The facts about a user in so many memories."""

    def tell(seed: int) -> Told:
        profile, each = make_profile(seed), len(NAMES) // count
        texts = [facts(profile, NAMES[at : at + each]) for at in range(0, len(NAMES), each)]
        return texts, profile

    return tell


def corrected(draw: random.Random, count: int, again: int) -> Told:
    """So many facts about a user, and `again` of them anew with other values."""
    names = draw.sample(NAMES, count)
    first = {name: draw.choice(VALUES[name]) for name in names}
    changed = draw.sample(names, again)
    second = {
        name: draw.choice([value for value in VALUES[name] if value != first[name]])
        for name in changed
    }
    texts = [facts(first, names), facts(second, changed)] if again else [facts(first, names)]
    return texts, first | second


def corrections(seed: int) -> Told:
    """Six facts, of which the second memory corrects four."""
    return corrected(random.Random(f"corrections {seed}"), 6, 4)


def referred(draw: random.Random, count: int, again: int) -> Told:
    """So many facts about a user, and `again` others that name one of them."""
    names = draw.sample(NAMES, count + again)
    own, others = names[:count], names[count:]
    first = {name: draw.choice(VALUES[name]) for name in own}
    named = {name: draw.choice(own) for name in others}
    texts = [facts(first, own), facts(named, others)] if again else [facts(first, own)]
    return texts, first | {name: first[target] for name, target in named.items()}


def references(seed: int) -> Told:
    """Three facts, and two that the second memory gives by naming one of them."""
    return referred(random.Random(f"references {seed}"), 3, 2)


def train(
    tell: Callable[[random.Random, int, int], Told],
    *,
    layers: int,
    steps: int,
    most: int,
    rate: float,
) -> Any:
    """A model that answers questions about up to `most` facts that are told first, and as many behind them."""
    config, words = make_model(0).config, make_tokenizer().get_vocab()
    config.num_hidden_layers, config.layer_types = layers, ["full_attention"] * layers
    torch.manual_seed(0)
    model, draw = transformers.Qwen3ForCausalLM(config), random.Random("training")
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0.0)
    model.train()
    for step in range(steps):
        count = draw.randint(1, most)
        again = 0 if step < EASY_STEPS else draw.randint(1, min(count, len(VALUES) - count))
        rows = []
        for _ in range(BATCH):
            texts, right = tell(draw, count, again)
            asked = [draw.choice(list(right)) for _ in range(QUESTIONS)]
            told = [f"{question(name)} {right[name]}" for name in asked]
            rows.append([words[word] for word in " ".join([*texts, *told]).split()])
        ids = torch.tensor(rows)
        answers = ids.roll(1, dims=1) == words["Answer:"]
        loss = model(input_ids=ids, labels=ids.masked_fill(~answers, IGNORED)).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.eval()


def asked(task: Task, model: Any, tokenizer: Any) -> dict[str, list[Row]]:
    """Per way: divergence, same token and right answer of every question about every user."""
    found: dict[str, list[Row]] = {way: [] for way in ("one computation", *WAYS)}
    for seed in PROFILES:
        texts, right = task.tell(seed)
        parts = [prefill_kv(model, tokenizer(text)["input_ids"]) for text in texts]
        full = prefill_kv(model, [token for part in parts for token in part.token_ids])
        prefixes = {"one computation": full, **{way: make(parts) for way, make in WAYS.items()}}
        for name, value in right.items():
            words, answer = tokenizer([question(name), value])["input_ids"]
            for way, prefix in prefixes.items():
                check = compare_kv(full, prefix, words)
                token = int(kv_composition._next_token(prefix, words).argmax())
                found[way].append((check.divergence, check.same_token, token == answer[0]))
    return found


def test_several_memories_beside_one_computation() -> None:
    tokenizer, readers = make_tokenizer(), [train_model(seed)[0] for seed in range(3)]
    tasks = [
        Task("facts", readers, in_parts(2)),
        Task("facts", readers, in_parts(4)),
        Task(
            "corrections", [train(corrected, layers=2, steps=600, most=6, rate=3e-3)], corrections
        ),
        Task("references", [train(referred, layers=4, steps=1200, most=3, rate=2e-3)], references),
    ]
    told, count = [], 0
    for task in tasks:
        each = [asked(task, model, tokenizer) for model in task.models]
        memories = len(task.tell(0)[0])
        for way in each[0]:
            rows = [row for found in each for row in found[way]]
            away, same, right = zip(*rows, strict=True)
            shares = f"{mean(same):.0%}", f"{mean(right):.0%}"
            told.append((task.name, memories, way, f"{mean(away):.3f}", *shares))
        count += sum(len(found["composed"]) for found in each)
    title = f"{count} questions behind several memories, models of 93 000 to 175 000 parameters"
    report("kv_composition", title, COLUMNS, told)
