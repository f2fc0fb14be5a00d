"""A user's machine with a cube to build from, and what its builds are asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memcube.building.builder import Built
from memcube.building.planning import Order, Wanted
from memcube.building.questions import read_questions
from memcube.building.unrelated import read_passages
from memcube.client import Client
from memcube.demo import model as demo
from memcube_protocol.recipe import Training

NAMES = tuple(demo.VALUES)
TRAINING = Training(steps=20)


@dataclass(frozen=True)
class Bench:
    """A user's machine with a packed cube, the model, and what a build of it is asked."""

    client: Client
    model: Any
    tokenizer: Any
    profile: dict[str, str]
    questions: Path
    unrelated: Path
    asides: Path

    def passages(self, kind: str) -> Path:
        """What a build must leave alone. Behind the facts of a user, those of another would be no aside."""
        return self.asides if kind == "activation" else self.unrelated

    def wanted(self, kind: str, **changes: Any) -> Wanted:
        usual: dict[str, Any] = {
            "questions": read_questions(self.questions),
            "passages": read_passages(self.passages(kind)),
            "render": "plain",
            "threads": 1,
            "training": TRAINING if kind == "parametric" else None,
        }
        return Wanted(kind=kind, **{**usual, **changes})

    def build(self, kind: str, cube: str = "alice/notes", **changes: Any) -> Built:
        return self.make(self.wanted(kind, **changes), cube)

    def make(self, plan: Any, cube: str = "alice/notes", **order: Any) -> Built:
        chosen = Order(self.passages(plan.kind), **order)
        return self.client.build(
            cube, plan, model=self.model, tokenizer=self.tokenizer, order=chosen
        )
