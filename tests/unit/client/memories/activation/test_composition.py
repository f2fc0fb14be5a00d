"""Several memories as one prefix: keys at their place, labelled approximate, checked and replaced on request."""

from __future__ import annotations

import math
from typing import Any

import pytest
from memcube.memories.activation import composition as kv_composition
from memcube.memories.activation import rotation as kv_rotation
from memcube.memories.activation.composition import (
    MAX_DIVERGENCE,
    compare_kv,
    compose_kv,
    prefill_kv,
)
from memcube.memories.activation.dump import dump_kv
from memcube.memories.activation.generation import generate
from memcube.memories.activation.mount import mount_kv
from memcube.memories.activation.mounted import Exactness, Prefix
from memcube.memories.activation.rotation import require_movable, rotations
from memcube_protocol.errors import (
    ConflictError,
    InvalidRequestError,
    LimitExceededError,
    UnsupportedError,
)
from support.models import FAMILIES, model_of, text_of, tokenizer_of

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

QUESTION = [1, 2, 3]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tokenizer_of()


@pytest.fixture(scope="module")
def model() -> Any:
    return model_of()


@pytest.fixture(scope="module")
def memories(model, tokenizer, tmp_path_factory) -> list[Prefix]:
    """Two memories of one model."""
    folder = tmp_path_factory.mktemp("cube")
    dumped = [
        dump_kv(model, tokenizer, text=text_of(12, start), folder=folder, memory_id=f"m{start}")
        for start in (1, 5)
    ]
    return [mount_kv(each, model, tokenizer) for each in dumped]


def keys_at(model: Any, ids: list[int], start: int) -> list[Any]:
    cache = transformers.DynamicCache()
    at = torch.arange(start, start + len(ids))[None]
    with torch.inference_mode():
        model(torch.tensor([ids]), position_ids=at, past_key_values=cache)
    return [layer.keys for layer in cache.layers]


ROPES: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default", "rope_theta": 1e4},
    "linear": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0},
    "yarn": {
        "rope_type": "yarn",
        "rope_theta": 1e4,
        "factor": 4.0,
        "original_max_position_embeddings": 128,
    },
    "llama3": {
        "rope_type": "llama3",
        "rope_theta": 1e4,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 128,
    },
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("offset", [1, 57, 300])
def test_moved_keys_are_those_computed_at_the_other_place(family, offset) -> None:
    require_same_keys(model_of(family), offset)


@pytest.mark.parametrize("rope", ROPES)
def test_every_fixed_kind_of_rotation_is_turned_on(rope) -> None:
    require_same_keys(model_of("llama", rope_parameters=ROPES[rope]), 40)


def require_same_keys(model: Any, offset: int) -> None:
    ids = list(range(1, 12))
    moved = [
        turn(keys)
        for turn, keys in zip(rotations(model, offset), keys_at(model, ids, 0), strict=True)
    ]
    for one, other in zip(moved, keys_at(model, ids, offset), strict=True):
        assert (one - other).norm() / other.norm() < 1e-4
    require_movable(model, ids, offset)


def test_one_memory_is_exact(memories) -> None:
    composed = compose_kv(memories[:1])
    assert composed.exactness is Exactness.EXACT
    assert compare_kv(memories[0], composed, QUESTION).divergence == 0


def test_several_are_labelled_approximate_and_close(memories, model, tokenizer) -> None:
    composed = compose_kv(memories)
    assert composed.exactness is Exactness.APPROXIMATE
    assert "approximate" in composed.exactness
    assert composed.token_ids == memories[0].token_ids + memories[1].token_ids
    assert composed.new_cache().get_seq_length() == 24
    full = prefill_kv(model, composed.token_ids)
    check = compare_kv(full, composed, QUESTION)
    assert 0 < check.divergence < MAX_DIVERGENCE
    assert generate(model, tokenizer, "w1", memory=composed, max_new_tokens=2)


@pytest.mark.parametrize("family", ["mistral", "gemma3"])
def test_windows_see_the_last_tokens_of_all_memories(family, tokenizer, tmp_path) -> None:
    model = model_of(family)
    mounted = [
        mount_kv(
            dump_kv(model, tokenizer, text=text_of(6, at), folder=tmp_path, memory_id=f"m{at}"),
            model,
            tokenizer,
        )
        for at in (1, 5)
    ]
    composed = compose_kv(mounted, question_ids=QUESTION, max_divergence=math.inf)
    assert composed.check is not None
    assert composed.check.divergence < MAX_DIVERGENCE
    assert composed.new_cache().layers[0].keys.shape[-2] == 7


def test_it_lasts_when_its_memories_are_unmounted(model, tokenizer, tmp_path) -> None:
    folder = dump_kv(model, tokenizer, text=text_of(5), folder=tmp_path, memory_id="m")
    with mount_kv(folder, model, tokenizer) as one, mount_kv(folder, model, tokenizer) as other:
        composed = compose_kv([one, other])
    assert composed.new_cache().layers[0].keys.shape[-2] == 10
    composed.unmount()
    with pytest.raises(ConflictError, match="unmounted"):
        composed.new_cache()


def test_a_check_that_passes_leaves_the_composition(memories) -> None:
    composed = compose_kv(memories, question_ids=QUESTION)
    assert composed.check is not None
    assert composed.check.passed
    assert composed.exactness is Exactness.APPROXIMATE


def test_a_check_that_fails_puts_the_full_computation_in_its_place(memories, model) -> None:
    composed = compose_kv(memories, question_ids=QUESTION, max_divergence=0.0)
    assert composed.check is not None
    assert not composed.check.passed
    assert composed.exactness is Exactness.EXACT
    full = prefill_kv(model, composed.token_ids)
    assert compare_kv(full, composed, QUESTION).divergence == 0


def test_a_memory_that_computes_nonsense_fails_the_check(memories, monkeypatch) -> None:
    def nonsense(self: Any, keys: Any) -> Any:
        return keys * float("nan")

    monkeypatch.setattr(kv_rotation.Rotation, "__call__", nonsense)
    monkeypatch.setattr(kv_composition, "require_movable", lambda *_: None)
    composed = compose_kv(memories, question_ids=QUESTION)
    assert composed.check is not None
    assert composed.check.divergence == math.inf
    assert composed.exactness is Exactness.EXACT


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0},
        {
            "rope_type": "longrope",
            "rope_theta": 1e4,
            "factor": 2.0,
            "short_factor": [1.0] * 8,
            "long_factor": [1.0] * 8,
            "original_max_position_embeddings": 256,
        },
    ],
)
def test_a_rotation_that_changes_with_the_length_is_refused(rope) -> None:
    model = model_of("llama", rope_parameters=rope)
    before = model.model.rotary_emb.inv_freq.clone()
    with pytest.raises(UnsupportedError, match=rope["rope_type"]) as refusal:
        rotations(model, 7)
    assert refusal.value.hint
    assert torch.equal(model.model.rotary_emb.inv_freq, before)


def test_a_model_whose_keys_move_otherwise_is_found_by_trying(memories, model, monkeypatch) -> None:
    true = kv_rotation.rotations
    monkeypatch.setattr(kv_rotation, "rotations", lambda model, offset: true(model, offset + 1))
    with pytest.raises(UnsupportedError, match="differ by"):
        compose_kv(memories)


def other_family(config: str, **changes: Any) -> Any:
    from support.models import SHAPE

    shape = {name: value for name, value in SHAPE.items() if name != "head_dim"}
    made = getattr(transformers, config)(**{**shape, "num_hidden_layers": 1, **changes})
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(made).eval()


def test_heads_that_are_rotated_in_part_move_in_part() -> None:
    require_same_keys(other_family("StableLmConfig", partial_rotary_factor=0.5), 33)


@pytest.mark.parametrize(
    ("config", "changes"), [("GlmConfig", {"head_dim": 16}), ("CohereConfig", {})]
)
def test_models_that_rotate_neighbours_instead_of_halves_are_refused(config, changes) -> None:
    with pytest.raises(UnsupportedError, match="differ by"):
        require_movable(other_family(config, **changes), [1, 2, 3, 4], 33)


def test_a_model_without_rotary_embedding_is_refused() -> None:
    config = transformers.GPT2Config(
        vocab_size=80, n_embd=32, n_layer=1, n_head=2, bos_token_id=None, eos_token_id=None
    )
    with pytest.raises(UnsupportedError, match="rotary"):
        rotations(transformers.GPT2LMHeadModel(config).eval(), 3)


def test_memories_of_several_models_are_refused(memories, tokenizer, tmp_path) -> None:
    other = model_of(seed=3)
    folder = dump_kv(other, tokenizer, text=text_of(5), folder=tmp_path, memory_id="m")
    with pytest.raises(ConflictError, match="several models"):
        compose_kv([memories[0], mount_kv(folder, other, tokenizer)])


def test_no_memory_and_no_question_are_refused(memories) -> None:
    with pytest.raises(InvalidRequestError):
        compose_kv([])
    with pytest.raises(InvalidRequestError):
        compose_kv(memories, question_ids=[])


def test_more_tokens_than_the_model_has_positions_are_refused(tokenizer, tmp_path) -> None:
    model = model_of(max_position_embeddings=16)
    folder = dump_kv(model, tokenizer, text=text_of(8), folder=tmp_path, memory_id="m")
    mounted = mount_kv(folder, model, tokenizer)
    with pytest.raises(LimitExceededError, match="16 positions"):
        compose_kv([mounted, mounted])
