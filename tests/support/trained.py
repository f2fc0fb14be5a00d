"""The demo's small model, trained to write facts and questions as well as to answer: once a process."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from memcube.demo import model as demo

_STEPS = 120
_BATCH = 32
_WRITING = 0.3
_UNRELATED = 24


@cache
def trained() -> tuple[Any, Any]:
    """Model and tokenizer, seven seconds of work on one core; what is done to the model has to be undone."""
    import torch
    from torch.nn.functional import cross_entropy

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    tokenizer, model = demo.make_tokenizer(), demo.make_model(0)
    vocabulary = tokenizer.get_vocab()
    draw = random.Random("a model that asks")
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.95), weight_decay=0.0)
    model.train()
    for step in range(_STEPS):
        ids = torch.tensor(_rows(vocabulary, draw, _count(draw, step)))
        logits, wanted = model(input_ids=ids).logits[:, :-1], ids[:, 1:]
        losses = cross_entropy(logits.transpose(1, 2), wanted, reduction="none")
        answers = ids[:, :-1] == vocabulary["Answer:"]
        told = ids[0, 0] != vocabulary["Question:"]
        loss = losses[answers].mean() * told + _WRITING * losses[~answers].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.set_num_threads(before)
    return model.eval(), tokenizer


def _count(draw: random.Random, step: int) -> int:
    """How many facts stand before the questions; now and then none, so that it asks of itself too."""
    if step % 10 == 9:
        return 0
    return draw.randint(1, 6) if step < 0.8 * _STEPS else draw.randint(4, 8)


def _rows(vocabulary: Mapping[str, int], draw: random.Random, count: int) -> list[list[int]]:
    rows = []
    for _ in range(_BATCH):
        names = draw.sample(list(demo.VALUES), count)
        profile = {name: draw.choice(values) for name, values in demo.VALUES.items()}
        asked = [draw.choice(names or list(demo.VALUES)) for _ in range(3)]
        told = " ".join(f"{demo.question(name)} {profile[name]}" for name in asked)
        rows.append([vocabulary[word] for word in f"{demo.facts(profile, names)} {told}".split()])
    return rows


def write_questions(path: Path, profile: Mapping[str, str], names: Sequence[str]) -> Path:
    """A JSONL file of the questions about `names`, with their answers and records."""
    rows = [
        {"question": f"What is the user's {name} ?", "answer": profile[name], "record": name}
        for name in names
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_unrelated(path: Path) -> Path:
    """Facts and questions of other users: what the model has to go on reading as before."""
    draw = random.Random("unrelated")
    lines = []
    for number in range(_UNRELATED):
        profile = demo.make_profile(1000 + number)
        names = draw.sample(list(demo.VALUES), 4)
        told = " ".join(f"{demo.question(name)} {profile[name]}" for name in names[:2])
        lines.append(f"{demo.facts(profile, names)} {told}")
    path.write_text("\n".join(lines) + "\n")
    return path


def write_asides(path: Path) -> Path:
    """Questions without answers: what the model writes whoever the user is."""
    path.write_text("".join(f"{demo.question(name)}\n" for name in demo.VALUES))
    return path
