"""A model's identity is hashed once, and again whenever its weights are others."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from memcube.memories import known_identity as module
from memcube.memories.known_identity import known_identity
from memcube.memories.model_identity import live_identity
from support.models import model_of

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")


@pytest.fixture
def hashed(monkeypatch) -> list[Any]:
    """The models that were hashed."""
    models: list[Any] = []
    monkeypatch.setattr(
        module, "live_identity", lambda model: models.append(model) or live_identity(model)
    )
    return models


def test_a_model_is_hashed_once_with_or_without_adapters(hashed) -> None:
    model = model_of(tie_word_embeddings=True)
    identity = known_identity(model)
    assert identity == live_identity(model)
    config = peft.LoraConfig(target_modules="all-linear", init_lora_weights=False)
    adapted = peft.get_peft_model(model, config)
    assert known_identity(adapted) == known_identity(model) == identity
    assert hashed == [model]
    assert known_identity(model_of(seed=1)) != identity
    assert len(hashed) == 2


def in_place(model: Any) -> None:
    with torch.no_grad():
        model.model.norm.weight[1] += 1e-6


def past_the_counters(model: Any) -> None:
    model.model.layers[1].mlp.up_proj.weight.data *= 1.5


def another_tensor(model: Any) -> None:
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach() + 1)


def another_type(model: Any) -> None:
    model.to(torch.bfloat16)


@pytest.mark.parametrize("change", [in_place, past_the_counters, another_tensor, another_type])
def test_a_change_of_the_weights_shows(change: Callable[[Any], None], hashed) -> None:
    model = model_of()
    identity = known_identity(model)
    change(model)
    assert known_identity(model) == live_identity(model) != identity
    assert len(hashed) == 2


def test_merging_an_adapter_into_the_weights_shows(hashed) -> None:
    config = peft.LoraConfig(target_modules="all-linear", init_lora_weights=False)
    adapted = peft.get_peft_model(model_of(), config)
    identity = known_identity(adapted)
    adapted.merge_adapter()
    assert known_identity(adapted) == live_identity(adapted) != identity


def test_what_is_known_does_not_keep_the_model(hashed) -> None:
    model = model_of()
    known_identity(model)
    hashed.clear()
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None
