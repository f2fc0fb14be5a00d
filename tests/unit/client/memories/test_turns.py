"""Mounts and unmounts on one model, from several threads."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from memcube.memories.parametric.dump import dump_lora
from memcube.memories.parametric.mount import mount_lora
from memcube.memories.parametric.stack import AdapterStack
from memcube.memories.turns import turn
from support.adapters import adapted, footprint
from support.models import model_of

pytest.importorskip("torch")
pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")

A_WHILE_S = 0.3
"""So long somebody gets to do what they must not; they get nothing done by being slow."""


def test_who_mounts_while_another_mounts_waits_and_the_model_is_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (
        dump_lora(adapted(seed=seed), tmp_path, memory_id=f"lora-{seed}") for seed in (1, 2)
    )
    model = model_of()
    before, order = footprint(model), list[str]()

    def both() -> None:
        with mount_lora(second, model):
            order.append("second")

    other = threading.Thread(target=both)
    real = AdapterStack.mount

    def half_way(stack: Any, *given: Any) -> bool:
        if not order:
            order.append("first begins")
            other.start()
            other.join(A_WHILE_S)
            order.append("first goes on")
        return real(stack, *given)

    monkeypatch.setattr(AdapterStack, "mount", half_way)
    with mount_lora(first, model):
        other.join()
    assert order == ["first begins", "first goes on", "second"]
    assert footprint(model) == before


def test_a_model_and_its_peft_wrapper_are_one_and_one_thread_may_turn_within() -> None:
    wrapped, entered = adapted(), threading.Event()

    def enter() -> None:
        with turn(wrapped.get_base_model()):
            entered.set()

    other = threading.Thread(target=enter)
    with turn(wrapped), turn(wrapped.get_base_model()), turn(None):
        other.start()
        assert not entered.wait(A_WHILE_S)
    other.join()
    assert entered.is_set()
