"""Cache layers behind a memory: equal to transformers' own whatever is done to them, copied once or never."""

from __future__ import annotations

import copy
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from memcube.memories.activation.layers import (  # noqa: E402
    ROOM_TOKENS,
    LayerView,
    LyingMemoryLayer,
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


@pytest.fixture(params=[MemoryLayer, LyingMemoryLayer])
def ours(request, memory) -> MemoryLayer:
    return request.param(lambda: memory, torch.empty(0))


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


def test_the_memory_is_copied_once_and_never_written(memory) -> None:
    ours = MemoryLayer(lambda: memory, torch.empty(0))
    before = memory.keys.clone()
    ours.update(*states(1))
    place = ours.keys.data_ptr()
    assert place != memory.keys.data_ptr()
    for seed in range(ROOM_TOKENS - 1):
        ours.update(*states(1, seed))
        assert ours.keys.data_ptr() == place
    assert torch.equal(memory.keys, before)


def by_token(view: LayerView) -> LayerView:
    """The same, laid out as in a file."""
    return LayerView(
        *(each.transpose(1, 2).contiguous().transpose(1, 2) for each in (view.keys, view.values))
    )


def test_a_question_does_not_copy_a_lying_memory(memory) -> None:
    lying = by_token(memory)
    ours = LyingMemoryLayer(lambda: lying, torch.empty(0))
    for seed in range(3):
        keys, values = ours.update(*states(5, seed))
        assert keys.memory.data_ptr() == lying.keys.data_ptr()
        assert values.memory.data_ptr() == lying.values.data_ptr()
    assert ours.get_seq_length() == TOKENS + 15
    assert torch.equal(ours.keys, keys)
    assert torch.equal(ours.values, values)


def test_tokens_that_come_one_by_one_have_the_memory_copied_once(memory) -> None:
    lying = by_token(memory)
    ours = LyingMemoryLayer(lambda: lying, torch.empty(0))
    places = set()
    for seed in range(ROOM_TOKENS):
        keys, values = ours.update(*states(1, seed))
        places.add((keys.memory.data_ptr(), values.memory.data_ptr(), keys.behind.data_ptr()))
    assert len(places) == 1
    assert keys.memory.is_contiguous()
    assert keys.memory.data_ptr() != lying.keys.data_ptr()
    assert torch.equal(keys[:, :, :TOKENS], memory.keys)


def test_one_memory_stands_before_each_of_several_questions(memory) -> None:
    ours = LyingMemoryLayer(lambda: memory, torch.empty(0))
    new = states(2, 1, batch=3)
    for _ in range(2):
        held, _ = ours.update(*new)
        assert torch.equal(held[:, :, :TOKENS], memory.keys.expand(3, -1, -1, -1))
        assert torch.equal(held[:, :, -2:], new[0])
    assert ours.keys.shape == (3, 2, TOKENS + 4, 4)


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


@pytest.mark.parametrize("kind", [MemoryLayer, LyingMemoryLayer])
def test_nothing_is_waited_for_before_it_is_looked_at(kind, memory) -> None:
    waited = []

    def arrival() -> LayerView:
        waited.append(True)
        return memory

    layer = kind(arrival, torch.empty(0))
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
