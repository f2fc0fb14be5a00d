"""Attention over a memory and the tokens behind it: as that over all in one piece, or left to transformers."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from memcube.memories.activation import attention as kv_attention  # noqa: E402
from memcube.memories.activation import mounted as kv_mounted  # noqa: E402
from memcube.memories.activation.attention import TwoParts, attend  # noqa: E402
from memcube.memories.activation.composition import prefill_kv  # noqa: E402
from memcube.memories.activation.generation import generate  # noqa: E402
from memcube.memories.activation.layers import LyingMemoryLayer, MemoryLayer  # noqa: E402
from memcube.memories.activation.mounted import LYING_TOKENS, Prefix  # noqa: E402
from support.models import model_of, tokenizer_of  # noqa: E402
from transformers.integrations.sdpa_attention import sdpa_attention_forward  # noqa: E402

TOLERANCES = {"float32": 2e-6, "bfloat16": 0.02, "float16": 2e-3}
BEFORE, NEW = 70, 9


class Heads:
    """What attention knows of its layer."""

    num_key_value_groups = 2
    is_causal = True


def random(*shape: int, dtype: Any = None) -> Any:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


def causal(tokens: int) -> Any:
    """What each of the last `tokens` tokens sees."""
    return torch.ones(1, 1, tokens, BEFORE + NEW, dtype=torch.bool).tril(BEFORE + NEW - tokens)


def tensors(tokens: int, dtype: Any, batch: int = 1) -> tuple[Any, TwoParts, TwoParts]:
    """A query, and keys and values, which lie as in a file: by token."""
    far = [random(BEFORE, 2, 16 + seed, dtype=dtype)[..., :16] for seed in (0, 1)]
    near = [random(batch, 2, NEW, 16 + seed, dtype=dtype)[..., :16] for seed in (0, 1)]
    keys, values = (
        TwoParts(old.transpose(0, 1)[None], new) for old, new in zip(far, near, strict=True)
    )
    return random(batch, tokens, 4, 16, dtype=dtype).transpose(1, 2), keys, values


@pytest.fixture
def usual(monkeypatch) -> list[Any]:
    """The masks of what was left to transformers."""
    asked: list[Any] = []

    def heard(module: Any, query: Any, key: Any, value: Any, mask: Any, **more: Any) -> Any:
        asked.append(mask)
        return sdpa_attention_forward(module, query, key, value, mask, **more)

    monkeypatch.setattr(kv_attention, "_USUAL", heard)
    return asked


def both(query: Any, keys: Any, values: Any, mask: Any, **more: Any) -> tuple[Any, Any]:
    ours, _ = attend(Heads(), query, keys, values, mask, **more)
    plain = keys.joined(), values.joined()
    theirs, _ = sdpa_attention_forward(Heads(), query, *plain, mask, **more)
    return ours, theirs


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("tokens", [1, NEW])
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_two_parts_give_what_one_piece_gives(dtype, tokens, batch, usual) -> None:
    given = tensors(tokens, getattr(torch, dtype), batch)
    ours, theirs = both(*given, None if tokens == 1 else causal(tokens), scaling=0.3)
    assert ours.dtype == theirs.dtype
    assert ours.is_contiguous()
    assert (ours - theirs).abs().max() <= TOLERANCES[dtype]
    assert not usual


def test_tokens_of_other_questions_stay_hidden(usual) -> None:
    """The shorter of two questions is padded on its left behind the memory."""
    mask = causal(NEW).repeat(2, 1, 1, 1)
    mask[1, :, 3:, BEFORE : BEFORE + 3] = False
    ours, theirs = both(*tensors(NEW, torch.float32, 2), mask)
    assert torch.allclose(ours, theirs, atol=2e-6)
    assert not usual


def hidden(*place: Any) -> Any:
    mask = causal(NEW)
    mask[place] = False
    return mask


LEFT_TO_TRANSFORMERS = {
    "a mask that hides some of the memory": (hidden(..., 4), {}),
    "a token that sees no new one": (hidden(..., 5, slice(BEFORE, None)), {}),
    "weights that are added to": (torch.zeros(1, 1, NEW, BEFORE + NEW), {}),
    "a mask for each head": (causal(NEW).repeat(1, 4, 1, 1), {}),
    "a bias": (causal(NEW), {"position_bias": random(1, 4, NEW, BEFORE + NEW)}),
}


@pytest.mark.parametrize("name", LEFT_TO_TRANSFORMERS)
def test_what_does_not_fit_is_left_to_transformers(name, usual) -> None:
    mask, more = LEFT_TO_TRANSFORMERS[name]
    ours, theirs = both(*tensors(NEW, torch.float32), mask, **more)
    assert torch.equal(ours, theirs)
    assert len(usual) == 1


def test_gradients_are_left_to_transformers(usual) -> None:
    query, keys, values = tensors(NEW, torch.float32)
    query.requires_grad_()
    grads = [
        torch.autograd.grad(out.square().sum(), query)[0]
        for out in both(query, keys, values, causal(NEW))
    ]
    assert torch.equal(*grads)
    assert len(usual) == 1


def test_plain_tensors_are_left_to_transformers(usual) -> None:
    query, keys, values = tensors(NEW, torch.float32)
    attend(Heads(), query, keys.joined(), values.joined(), causal(NEW))
    assert len(usual) == 1


@pytest.fixture(scope="module")
def prefixes() -> dict[str, Prefix]:
    ids = torch.randint(1, 64, (LYING_TOKENS,), generator=torch.Generator().manual_seed(0)).tolist()
    longer = {"max_position_embeddings": 1024}
    return {name: prefill_kv(model_of(name, **longer), ids) for name in ("qwen3", "gemma3")}


def as_copied(act: Any, monkeypatch: Any) -> Any:
    """What `act` gives where each question copies the memory."""
    with monkeypatch.context() as patch:
        patch.setattr(kv_mounted, "LYING_TOKENS", LYING_TOKENS + 1)
        return act()


@pytest.mark.parametrize("family", ["qwen3", "gemma3"])
def test_a_model_answers_as_behind_a_copy(family, prefixes, monkeypatch, usual) -> None:
    """A question, and three tokens one after the other."""
    prefix = prefixes[family]

    def answers() -> Any:
        cache, given = prefix.new_cache(), [[5, 6, 7, 8], [9], [10], [11]]
        with torch.inference_mode():
            return [
                prefix.model(input_ids=torch.tensor([ids]), past_key_values=cache).logits
                for ids in given
            ], cache

    copied, theirs = as_copied(answers, monkeypatch)
    usual.clear()
    lying, ours = answers()
    full = [layer for layer in ours.layers if isinstance(layer, LyingMemoryLayer)]
    assert len(full) == len([layer for layer in theirs.layers if isinstance(layer, MemoryLayer)])
    assert len(usual) == 4 * (len(ours.layers) - len(full)), "only windows are transformers' own"
    for one, other in zip(lying, copied, strict=True):
        assert (one - other).abs().max() <= 2e-6
    for held, wanted in zip(ours.layers, theirs.layers, strict=True):
        assert torch.allclose(held.keys, wanted.keys, atol=2e-6)
        assert torch.allclose(held.values, wanted.values, atol=2e-6)


@pytest.mark.parametrize("how", [{}, {"num_beams": 3}, {"num_return_sequences": 2, "num_beams": 2}])
def test_generated_text_is_that_behind_a_copy(how, prefixes, monkeypatch) -> None:
    prefix, tokenizer = prefixes["qwen3"], tokenizer_of()

    def answer() -> str:
        return generate(
            prefix.model, tokenizer, "w1 w2 w3", memory=prefix, max_new_tokens=12, **how
        )

    assert answer() == as_copied(answer, monkeypatch)


def test_a_question_leaves_the_memory_as_it_was(prefixes) -> None:
    prefix = prefixes["qwen3"]
    before = [prefix.layers.view(position).keys.clone() for position in range(3)]
    for _ in range(2):
        generate(prefix.model, tokenizer_of(), "w1 w2", memory=prefix, max_new_tokens=4)
    assert all(torch.equal(prefix.layers.view(at).keys, keys) for at, keys in enumerate(before))


def test_another_attention_gets_a_copy_and_it_is_said_why(prefixes) -> None:
    prefix = prefixes["qwen3"]
    assert prefix.why_copied() is None
    prefix.model.set_attn_implementation("eager")
    try:
        assert "attention 'eager' wants it in one piece" in (prefix.why_copied() or "")
        assert not any(isinstance(each, LyingMemoryLayer) for each in prefix.new_cache().layers)
    finally:
        prefix.model.set_attn_implementation("sdpa")
