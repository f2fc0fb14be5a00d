"""Every family of models, element type and storage: the same promises, one dump each.

llama, qwen3   full attention      mistral  a window in every layer      gemma3  windows and full attention
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import pytest
from memcube.memories.activation.dump import dump_kv
from memcube.memories.activation.mount import MountedKv, mount_kv
from memcube.memories.activation.mounted import Exactness
from support.models import FAMILIES, WINDOW, model_of, text_of, tokenizer_of

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TOKENS, PREFIX = 40, 17
QUESTION = [1, 2, 3]
TOLERANCES = {"float32": 1e-5, "float16": 0.01, "bfloat16": 0.05}
"""How far logits behind a cache may be from those of one pass over all tokens, which rounds otherwise."""
CASES = list(product(FAMILIES, TOLERANCES, ("none", "int8-token")))


@dataclass
class Case:
    family: str
    dtype: str
    storage: str
    model: Any
    memory: MountedKv
    prefix: MountedKv

    @property
    def is_exact(self) -> bool:
        return self.storage == "none"


@pytest.fixture(scope="module", params=[pytest.param(each, id="-".join(each)) for each in CASES])
def case(request, tmp_path_factory) -> Case:
    family, dtype, storage = request.param
    model, tokenizer = model_of(family, dtype), tokenizer_of()
    folder = dump_kv(
        model,
        tokenizer,
        text=text_of(TOKENS),
        folder=tmp_path_factory.mktemp("cube"),
        memory_id="kv",
        storage=storage,
    )
    whole, part = (mount_kv(folder, model, tokenizer, prefix_tokens=n) for n in (None, PREFIX))
    return Case(*request.param, model, whole, part)


def live(case: Case, ids: tuple[int, ...]) -> Any:
    cache = transformers.DynamicCache(config=case.model.config)
    with torch.inference_mode():
        case.model(input_ids=torch.tensor([list(ids)]), past_key_values=cache)
    return cache


def logits(case: Case, ids: list[int], cache: Any = None) -> Any:
    with torch.inference_mode():
        return case.model(input_ids=torch.tensor([ids]), past_key_values=cache).logits.float()


def test_a_mounted_cache_is_the_live_one(case: Case) -> None:
    """To the bit; stored in eight bits it is as close as half a step."""
    for one, other in zip(
        case.memory.new_cache().layers, live(case, case.memory.token_ids).layers, strict=True
    ):
        assert one.get_seq_length() == other.get_seq_length() == TOKENS
        for held, wanted in ((one.keys, other.keys), (one.values, other.values)):
            assert held.dtype == wanted.dtype
            assert held.shape == wanted.shape
            if case.is_exact:
                assert torch.equal(held, wanted)
            else:
                assert 0 < (held - wanted).float().norm() / wanted.float().norm() < 0.012


@pytest.mark.parametrize("part", ["memory", "prefix"])
def test_a_question_behind_it_is_answered_as_behind_its_tokens(part: str, case: Case) -> None:
    mounted: MountedKv = getattr(case, part)
    behind = logits(case, QUESTION, mounted.new_cache())
    if case.is_exact and part == "memory":
        assert torch.equal(behind, logits(case, QUESTION, live(case, mounted.token_ids)))
    full = logits(case, [*mounted.token_ids, *QUESTION])[:, -len(QUESTION) :]
    lossy = 0.0 if case.is_exact else 0.02
    assert (behind - full).abs().max() <= TOLERANCES[case.dtype] + lossy


def test_a_prefix_is_the_beginning_of_the_memory(case: Case) -> None:
    assert case.prefix.token_ids == case.memory.token_ids[:PREFIX]
    for position in range(case.model.config.num_hidden_layers):
        part, whole = (each.layers.view(position) for each in (case.prefix, case.memory))
        assert torch.equal(part.keys, whole.keys[:, :, :PREFIX])
        assert torch.equal(part.values, whole.values[:, :, :PREFIX])


def test_a_lossy_memory_says_so(case: Case) -> None:
    wanted = Exactness.EXACT if case.is_exact else Exactness.EIGHT_BITS
    assert case.memory.exactness is wanted
    assert ("lossy" in case.memory.exactness) != case.is_exact


def test_a_cache_is_cut_back_to_the_memory_or_says_that_a_window_has_moved_on(case: Case) -> None:
    cache = case.memory.new_cache()
    first = logits(case, QUESTION, cache)
    if case.family in ("mistral", "gemma3"):
        with pytest.raises(RuntimeError, match="activate_past_recording"):
            cache.crop(-len(QUESTION))
        cache = case.memory.new_cache()
        cache.activate_past_recording()
        logits(case, QUESTION, cache)
    cache.crop(-len(QUESTION))
    assert cache.get_seq_length() == TOKENS > WINDOW
    assert torch.equal(logits(case, QUESTION, cache), first)
