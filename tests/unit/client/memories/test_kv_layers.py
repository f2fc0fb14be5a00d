"""Cache layers behind a memory: equal to transformers' own whatever is done to them, copied once."""

from __future__ import annotations

import copy
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from memcube.memories.kv_layers import (  # noqa: E402
    ROOM_TOKENS,
    LayerView,
    MemoryLayer,
    MemoryWindowLayer,
)
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer  # noqa: E402

TOKENS = 20


def states(tokens: int, seed: int = 0, batch: int = 1) -> tuple[Any, Any]:
    made = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(batch, 2, tokens, 4, generator=made) for _ in range(2))  # type: ignore[return-value]


@pytest.fixture
def memory() -> LayerView:
    return LayerView(*states(TOKENS))


@pytest.fixture
def ours(memory) -> MemoryLayer:
    return MemoryLayer(lambda: memory, torch.empty(0))


@pytest.fixture
def theirs(memory) -> DynamicLayer:
    layer = DynamicLayer()
    layer.update(memory.keys, memory.values)
    return layer


def same(one: Any, other: Any) -> bool:
    return torch.equal(one.keys, other.keys) and torch.equal(one.values, other.values)


def test_new_tokens_follow_the_memory(ours, theirs) -> None:
    for seed in range(1, 5):
        for one, other in zip(
            ours.update(*states(3, seed)), theirs.update(*states(3, seed)), strict=True
        ):
            assert torch.equal(one, other)
    assert same(ours, theirs)
    assert ours.get_seq_length() == theirs.get_seq_length() == TOKENS + 12


def test_the_memory_is_copied_once_and_never_written(ours, memory) -> None:
    before = memory.keys.clone()
    ours.update(*states(1))
    place = ours.keys.data_ptr()
    assert place != memory.keys.data_ptr()
    for seed in range(ROOM_TOKENS - 1):
        ours.update(*states(1, seed))
        assert ours.keys.data_ptr() == place
    assert torch.equal(memory.keys, before)


def test_a_full_buffer_grows(ours, theirs) -> None:
    for seed in range(4):
        ours.update(*states(ROOM_TOKENS, seed))
        theirs.update(*states(ROOM_TOKENS, seed))
    assert same(ours, theirs)


OPERATIONS = {
    "cut": lambda layer: layer.crop(-2),
    "repeated": lambda layer: layer.batch_repeat_interleave(3),
    "chosen": lambda layer: layer.batch_select_indices(torch.tensor([0, 0])),
    "reordered": lambda layer: layer.reorder_cache(torch.tensor([0])),
    "replaced": lambda layer: setattr(layer, "keys", layer.keys + 1),
}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_whatever_is_done_to_a_layer_it_goes_on_as_transformers_own(
    name, when, ours, theirs
) -> None:
    for layer in (ours, theirs):
        if when == "after":
            layer.update(*states(3, 1))
        OPERATIONS[name](layer)
    batch = theirs.keys.shape[0]
    for seed in (5, 6):
        ours.update(*states(2, seed, batch))
        theirs.update(*states(2, seed, batch))
    assert same(ours, theirs)


@pytest.mark.parametrize("used", [False, True])
def test_an_emptied_layer_starts_anew_and_leaves_the_memory_alone(used, ours, memory) -> None:
    before = memory.keys.clone()
    if used:
        ours.update(*states(3, 1))
    ours.reset()
    assert ours.get_seq_length() == 0
    keys, values = states(3, 2)
    ours.update(keys, values)
    assert torch.equal(ours.keys, keys)
    assert torch.equal(ours.values, values)
    assert torch.equal(memory.keys, before)


def test_two_copies_of_a_cache_do_not_write_over_each_other(ours, theirs) -> None:
    for layer in (ours, theirs):
        layer.update(*states(3, 1))
    other, other_theirs = copy.deepcopy(ours), copy.deepcopy(theirs)
    for layer, seed in ((ours, 2), (other, 3), (theirs, 2), (other_theirs, 3)):
        layer.update(*states(3, seed))
    assert same(ours, theirs)
    assert same(other, other_theirs)


def test_gradients_flow_as_through_transformers_own(ours, theirs) -> None:
    grads = []
    for layer in (ours, theirs):
        keys, values = (each.requires_grad_() for each in states(3, 1))
        held, _ = layer.update(keys, values)
        held.square().sum().backward()
        grads.append(keys.grad)
    assert torch.equal(*grads)


def test_nothing_is_waited_for_before_it_is_looked_at(memory) -> None:
    waited = []

    def arrival() -> LayerView:
        waited.append(True)
        return memory

    layer = MemoryLayer(arrival, torch.empty(0))
    assert not waited
    assert layer.get_seq_length() == TOKENS
    assert layer.keys is memory.keys
    assert waited == [True]


@pytest.mark.parametrize("window", [8, TOKENS, 64])
def test_a_window_sees_the_last_tokens_of_the_memory(window, memory) -> None:
    ours = MemoryWindowLayer(lambda: memory, torch.empty(0), window, TOKENS)
    theirs = DynamicSlidingWindowLayer(window)
    theirs.update(memory.keys, memory.values)
    for seed in range(3):
        assert ours.get_mask_sizes(2) == theirs.get_mask_sizes(2)
        for one, other in zip(
            ours.update(*states(2, seed)), theirs.update(*states(2, seed)), strict=True
        ):
            assert torch.equal(one, other)
    assert same(ours, theirs)
    assert ours.get_seq_length() == theirs.get_seq_length()
