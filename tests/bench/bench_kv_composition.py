"""Several KV memories behind each other: how far from one computation, on small models trained here.

The demo's model learns to answer questions about eight facts in some ten seconds. The facts of users whom it
never saw are computed as two memories of four facts, or four of two, and every fact is asked for behind:

    composed       the memories, keys moved to their place: what `compose_kv` makes
    not moved      the same keys as they are, all of them taken at position 0
    last alone     the last memory, the others left out

each compared with one computation of all tokens: Kullback-Leibler divergence of the next token, in nats.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, quantiles
from typing import Any

import pytest
from support.measuring import report

pytest.importorskip("torch")
pytest.importorskip("transformers")

from memcube.demo.model import VALUES, facts, make_profile, question, train_model
from memcube.memories import kv_composition
from memcube.memories.kv_composition import compare_kv, compose_kv, prefill_kv
from memcube.memories.kv_mounted import Prefix

MODELS = 3
PROFILES = range(1000, 1016)
COLUMNS = ("memories", "way", "mean, nats", "95 % below, nats", "same token", "right answers")
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


def rows(model: Any, tokenizer: Any, count: int) -> dict[str, list[Row]]:
    """Per way: divergence, same token and right answer of every question about every user."""
    found: dict[str, list[Row]] = {way: [] for way in ("one computation", *WAYS)}
    names, each = list(VALUES), len(VALUES) // count
    for seed in PROFILES:
        profile = make_profile(seed)
        texts = [facts(profile, names[at : at + each]) for at in range(0, len(names), each)]
        parts = [prefill_kv(model, tokenizer(text)["input_ids"]) for text in texts]
        full = prefill_kv(model, [token for part in parts for token in part.token_ids])
        prefixes = {"one computation": full, **{way: make(parts) for way, make in WAYS.items()}}
        for name in names:
            asked = tokenizer(question(name))["input_ids"]
            answer = tokenizer(profile[name])["input_ids"][0]
            for way, prefix in prefixes.items():
                check = compare_kv(full, prefix, asked)
                token = int(kv_composition._next_token(prefix, asked).argmax())
                found[way].append((check.divergence, check.same_token, token == answer))
    return found


def test_several_memories_beside_one_computation() -> None:
    models = [train_model(seed) for seed in range(MODELS)]
    told = []
    for count in (2, 4):
        each = [rows(*trained, count) for trained in models]
        for way in each[0]:
            away, same, right = zip(*[row for found in each for row in found[way]], strict=True)
            shown = f"{mean(away):.3f}", f"{quantiles(away, n=20)[-1]:.3f}"
            told.append((count, way, *shown, f"{mean(same):.0%}", f"{mean(right):.0%}"))
    questions = MODELS * len(PROFILES) * len(VALUES)
    report(
        "kv_composition",
        f"{questions} questions behind several memories, {MODELS} models of 93 000 parameters",
        COLUMNS,
        told,
    )
