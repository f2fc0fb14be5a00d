"""Mounts and unmounts on one model, from several threads."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from memcube.memories.parametric.dump import dump_lora
from memcube.memories.parametric.mount import mount_lora
from memcube.memories.parametric.stack import AdapterStack
from memcube.memories.turns import Shared, asking, changing, turn
from memcube_protocol.errors import ConflictError
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


def test_a_change_waits_for_those_who_use_and_they_wait_for_the_change() -> None:
    shared, order = Shared(), list[str]()
    used, changed = threading.Event(), threading.Event()

    def change() -> None:
        with shared.changing(), shared.changing(), shared.using():
            order.append("changed")
            changed.set()
            other.join(A_WHILE_S)
        order.append("change over")

    def use() -> None:
        changed.wait()
        with shared.using():
            order.append("used again")

    changer, other = threading.Thread(target=change), threading.Thread(target=use)
    other.start()
    with shared.using():
        changer.start()
        assert not changed.wait(A_WHILE_S)
        with shared.using():  # who uses it already does not wait for who waits for it
            used.set()
    changer.join()
    other.join()
    assert used.is_set()
    assert order == ["changed", "change over", "used again"]


def test_many_use_a_model_at_once() -> None:
    model, together = model_of(), threading.Barrier(3)

    def ask() -> None:
        with asking(model):
            together.wait(60)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    with asking(model):
        together.wait(60)
    for thread in threads:
        thread.join()


def test_who_asks_cannot_wait_for_itself_and_is_told_so() -> None:
    model = model_of()
    with asking(model):
        for act in (turn, changing):
            with pytest.raises(ConflictError, match="this very thread"), act(model):
                pass
    with turn(model), changing(model), asking(model), changing(model), turn(None), changing(None):
        pass
