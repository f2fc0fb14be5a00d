"""Recipes and evaluations: what they hold, what they refuse, and that they read back."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memcube_protocol import canonical_json
from memcube_protocol.digest import Digest
from memcube_protocol.errors import InvalidConfigError, MemcubeError
from memcube_protocol.fields import Fields
from memcube_protocol.identity import BaseIdentity
from memcube_protocol.recipe import METHODS, Evaluation, Question, Recipe, Training

RECIPE = Recipe(
    method="encode",
    parent=Digest.of(b"a cube"),
    source="plaintext",
    memory="notes-kv",
    as_of=datetime(2026, 11, 27, tzinfo=UTC),
    base=BaseIdentity(b"m" * 32),
    questions=(Question("Where is it?", "In Tartu", "offsite"), Question("When?", held_out=True)),
    unrelated=Digest.of(b"a text"),
)


def changed(**changes: Any) -> bytes:
    return json.dumps(RECIPE.to_json() | changes).encode()


@given(
    method=st.sampled_from(sorted(METHODS)),
    seed=st.integers(0, 2**31 - 1),
    threads=st.integers(1, 4096),
    render=st.sampled_from(["fenced", "plain"]),
    prompt=st.sampled_from(["chat", "{question}", "Q: {question}\n\tA:"]),
    confidence=st.none() | st.floats(0, 1),
)
def test_a_recipe_reads_back_and_has_one_digest(method: str, **changes: Any) -> None:
    training = Training() if method == "distil" else None
    recipe = replace(RECIPE, method=method, training=training, **changes)
    assert Recipe.parse(recipe.write()) == recipe
    assert Recipe.parse(json.dumps(recipe.to_json(), indent=4).encode()).digest == recipe.digest
    assert recipe.kind == METHODS[method][1]


def test_what_a_person_leaves_out_is_the_usual() -> None:
    usual = {"method", "parent", "source", "memory", "asOf"}
    short = {name: value for name, value in RECIPE.to_json().items() if name in usual}
    recipe = Recipe.parse(json.dumps(short).encode())
    assert (recipe.prompt, recipe.render, recipe.seed, recipe.threads) == (
        "Question: {question}\nAnswer:",
        "fenced",
        0,
        1,
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "dream"},
        {"method": "distil"},
        {"training": Training().to_json()},
        {"prompt": "no place for it"},
        {"prompt": "{question} {question}"},
        {"prompt": "\u202e{question}"},
        {"prompt": "x" * 5000 + "{question}"},
        {"seed": -1},
        {"threads": 0},
        {"budgetTokens": 0},
        {"confidence": 1.5},
        {"confidence": True},
        {"memory": "../away"},
        {"parent": "sha256:short"},
        {"base": "mip1-base:short"},
        {"asOf": "yesterday"},
        {"questions": [{"question": ""}]},
        {"questions": [{"question": "When?", "heldOut": False}]},
        {"questions": [{"question": "When?", "answers": "now"}]},
        {"questions": [{"question": "When?"}] * 1025},
        {"unknown": 1},
    ],
    ids=str,
)
def test_a_recipe_that_breaks_a_rule_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(MemcubeError):
        Recipe.parse(changed(**changes))


@pytest.mark.parametrize("name", ["rank", "alpha", "steps", "batch", "rate", "answers", "retain"])
@pytest.mark.parametrize("value", [None, -1, "8", float("1e31")], ids=str)
def test_a_training_that_breaks_a_rule_is_refused(name: str, value: Any) -> None:
    fields = Training().to_json()
    if value is None:
        del fields[name]
    else:
        fields[name] = value
    with pytest.raises(InvalidConfigError):
        Training.from_fields(Fields(fields, "training"))


def test_not_a_number_is_no_setting_of_a_recipe() -> None:
    with pytest.raises(MemcubeError):
        Recipe.parse(changed(confidence=0.25).replace(b"0.25", b"NaN"))


@given(
    st.integers(0, 1024).flatmap(
        lambda asked: st.builds(
            Evaluation,
            asked=st.just(asked),
            without=st.integers(0, asked),
            with_memory=st.integers(0, asked),
            source=st.none() | st.integers(0, asked),
            held_out=st.integers(0, asked),
            perplexity=st.none() | st.tuples(st.floats(1, 1e15), st.floats(1, 1e15)),
        )
    )
)
def test_an_evaluation_reads_back(found: Evaluation) -> None:
    value = canonical_json.parse_object(canonical_json.dump(found.to_json()))
    assert Evaluation.from_fields(Fields(value, "evaluation")) == found


@pytest.mark.parametrize(
    "value",
    [
        {"asked": 2, "without": 0, "with": 3},
        {"asked": 2, "without": 0},
        {"without": 0, "with": 0},
        {"asked": 2, "without": 0, "with": 1, "perplexity": {"with": 3}},
        {"asked": 2, "without": 0, "with": 1, "perplexity": {"with": 3, "without": -1}},
        {"asked": 2, "without": 0, "with": 1, "heldOut": 3},
        {"asked": 2, "without": 0, "with": 1, "score": 1},
    ],
)
def test_an_evaluation_that_cannot_be_is_refused(value: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfigError):
        Evaluation.from_fields(Fields(value, "evaluation"))
