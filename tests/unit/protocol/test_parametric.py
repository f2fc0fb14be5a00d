"""LoRA adapters: what fits is described, what does not is refused, and how sure the base is."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memcube_protocol import parametric, tensors
from memcube_protocol.adapter_config import AdapterConfig
from memcube_protocol.errors import (
    InvalidConfigError,
    InvalidTensorsError,
    LimitExceededError,
    MemcubeError,
    UnsupportedError,
)
from memcube_protocol.identity import BaseIdentity, TensorIdentity
from memcube_protocol.parametric import Adapter, Base, Level, Module
from support.lora import BIAS, INNER_BIAS, SPECS, A, B, config_bytes, lora_file

ONE, TWO = BaseIdentity(b"1" * 32), BaseIdentity(b"2" * 32)
PATH = "model.layers.0.self_attn.q_proj"


def check(specs=SPECS, metadata=None, **changes) -> Adapter:
    header = tensors.parse_header(lora_file(specs, metadata))
    return parametric.check(config_bytes(**changes), header)


def test_an_adapter_says_its_modules_and_keeps_fields_it_does_not_know() -> None:
    adapter = check()
    assert adapter.modules == (Module(PATH, 2, 6, 8),)
    assert adapter.base == Base("acme/base-1b")
    assert adapter.config.raw["a_field_of_tomorrow"] == {"x": 1}
    assert adapter.config.scale_of(PATH) == 2.0


def test_rank_and_alpha_follow_the_patterns() -> None:
    config = AdapterConfig.parse(
        config_bytes(rank_pattern={"q_proj": 8, "^model.v_proj": 4}, alpha_pattern={"q_proj": 16})
    )
    assert config.rank_of(PATH) == 8
    assert config.rank_of("model.v_proj") == 4
    assert config.rank_of("x.model.v_proj") == 2
    assert config.rank_of("model.xq_proj") == 2
    assert config.scale_of(PATH) == 2.0


def test_rank_stabilised_scales_divide_by_the_root() -> None:
    config = AdapterConfig.parse(config_bytes(use_rslora=True, r=4, lora_alpha=8))
    assert config.scale_of("x") == 4.0


@pytest.mark.parametrize(
    "changes",
    [
        {"r": 0},
        {"r": True},
        {"r": 2.0},
        {"r": 65537},
        {"lora_alpha": "4"},
        {"lora_alpha": True},
        {"rank_pattern": []},
        {"rank_pattern": {"q_proj": "4"}},
        {"target_modules": [1]},
        {"modules_to_save": "lm_head"},
        {"use_dora": 1},
        {"base_model_name_or_path": 7},
        {"revision": "x" * 2000},
    ],
)
def test_a_field_with_a_wrong_value_is_refused(changes) -> None:
    with pytest.raises(InvalidConfigError):
        AdapterConfig.parse(config_bytes(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"peft_type": "IA3"},
        {"peft_type": None},
        {"init_lora_weights": "pissa"},
        {"init_lora_weights": "olora"},
        {"bias": "every"},
        {"bias": None},
        {"bias": ["all"]},
        {"layer_replication": [[0, 2]]},
        {"trainable_token_indices": [1]},
        {"lora_bias": True},
        {"rank_pattern": {"(a+)+": 2}},
        {"alpha_pattern": {".*q_proj": 2}},
    ],
)
def test_an_adapter_that_would_change_the_base_or_could_hang_is_not_supported(changes) -> None:
    with pytest.raises(UnsupportedError) as refusal:
        AdapterConfig.parse(config_bytes(**changes))
    assert refusal.value.hint


@settings(max_examples=80)
@given(
    st.sampled_from(["r", "lora_alpha", "rank_pattern", "target_modules", "use_dora", "bias"]),
    st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text()),
)
def test_any_value_of_a_field_raises_only_our_errors(name, value) -> None:
    with contextlib.suppress(MemcubeError):
        AdapterConfig.parse(config_bytes(**{name: value}))


@settings(max_examples=40)
@given(st.binary(max_size=100))
def test_random_bytes_raise_only_our_errors(raw) -> None:
    with pytest.raises(MemcubeError):
        AdapterConfig.parse(raw)


def test_a_config_above_the_limit_is_refused() -> None:
    with pytest.raises(LimitExceededError):
        AdapterConfig.parse(b" " * (2**20 + 1))


@pytest.mark.parametrize(
    "specs",
    [
        SPECS[:1],
        [(A, "F32", (3, 8)), SPECS[1]],
        [SPECS[0], (B, "F32", (6, 3))],
        [SPECS[0], (B, "F32", (12,))],
        [(A, "I32", (2, 8)), SPECS[1]],
        [*SPECS, ("base_model.model.model.norm.weight", "F32", (8,))],
        [*SPECS, ("x", "F32", (8,))],
        [*SPECS, (f"base_model.model.{PATH}.lora_magnitude_vector", "F32", (6,))],
        [],
    ],
    ids=["no B", "rank of A", "rank of B", "rank 1", "dtype", "foreign", "no path", "dora", "none"],
)
def test_tensors_that_are_no_complete_lora_are_refused(specs) -> None:
    with pytest.raises(InvalidTensorsError):
        check(specs)


def test_modules_to_save_embeddings_and_dora_are_read() -> None:
    head = ("base_model.model.lm_head.weight", "F32", (10, 8))
    assert check([*SPECS, head], modules_to_save=["lm_head"]).modules == (Module(PATH, 2, 6, 8),)
    embedding = [
        ("base_model.model.model.embed_tokens.lora_embedding_A", "F32", (2, 100)),
        ("base_model.model.model.embed_tokens.lora_embedding_B", "F32", (8, 2)),
    ]
    assert check(embedding).modules == (Module("model.embed_tokens", 2, 8, 100),)
    magnitude = (f"base_model.model.{PATH}.lora_magnitude_vector", "F32", (6,))
    assert check([*SPECS, magnitude], use_dora=True).modules
    with pytest.raises(InvalidTensorsError):
        check(use_dora=True)


def test_a_model_without_the_modules_or_with_others_is_refused() -> None:
    adapter = check()
    parametric.require_fit(adapter, {PATH: (6, 8)}, {}, {})
    with pytest.raises(InvalidTensorsError, match=f"no module {PATH}"):
        parametric.require_fit(adapter, {"model.layers.0.self_attn.k_proj": (6, 8)}, {}, {})
    with pytest.raises(InvalidTensorsError, match="7 x 8 in the model, 6 x 8"):
        parametric.require_fit(adapter, {PATH: (7, 8)}, {}, {})


def test_what_replaces_a_module_is_all_of_it() -> None:
    head = ("base_model.model.lm_head.weight", "F32", (10, 8))
    adapter = check([*SPECS, head], modules_to_save=["lm_head", "norm"])
    assert not adapter.is_additive
    parametric.require_fit(adapter, {PATH: (6, 8)}, {}, {"lm_head": {"weight": (10, 8)}})
    for held in ({}, {"weight": (9, 8)}, {"weight": (10, 8), "bias": (10,)}):
        with pytest.raises(InvalidTensorsError, match="all of lm_head are not those"):
            parametric.require_fit(adapter, {PATH: (6, 8)}, {}, {"lm_head": held})


def test_of_several_exceptions_that_fit_a_module_the_first_counts() -> None:
    pattern = {"proj": 7, "attn.q_proj": 2, "^a.v_proj": 3, "v_proj": 4, "^q": 5}
    config = AdapterConfig.parse(config_bytes(r=9, rank_pattern=pattern))
    paths = {"a.attn.q_proj": 2, "a.v_proj": 3, "b.v_proj": 4, "q_proj": 9, "proj": 7, "^q": 9}
    assert {path: config.rank_of(path) for path in paths} == paths
    pattern = {"v_proj": 4, "a.v_proj": 2, "^a.v_proj": 3}
    config = AdapterConfig.parse(config_bytes(r=9, alpha_pattern=pattern))
    assert config.alpha_of("a.v_proj") == 4


def test_biases_are_read_by_module_under_the_names_that_peft_looks_for() -> None:
    both = check([*SPECS, INNER_BIAS, BIAS], bias="all")
    assert {path: tensor.shape for path, tensor in both.biases.items()} == {
        PATH: (6,),
        "model.norm": (8,),
    }
    assert [tensor.name for tensor in both.biases.values()] == [INNER_BIAS[0], BIAS[0]]
    assert not both.is_additive
    assert check([*SPECS, INNER_BIAS], bias="lora_only").biases.keys() == {PATH}
    assert check(bias="all").is_additive
    head = ("base_model.model.head.bias", "F32", (1,))
    assert check([*SPECS, head], bias="all", modules_to_save=["head"]).biases == {}


@pytest.mark.parametrize(
    ("bias", "spec"),
    [
        ("none", INNER_BIAS),
        ("none", BIAS),
        ("lora_only", BIAS),
        ("all", (f"base_model.model.{PATH}.bias", "F32", (6,))),
        ("lora_only", (f"base_model.model.{PATH}.bias", "F32", (6,))),
        ("all", ("base_model.model.model.norm.base_layer.bias", "F32", (8,))),
        ("all", ("bias", "F32", (8,))),
        ("all", ("base_model.model.head.original_module.bias", "F32", (8,))),
        ("all", ("base_model.model.head.modules_to_save.bias", "F32", (8,))),
        ("all", (BIAS[0], "I32", (8,))),
    ],
)
def test_a_bias_that_peft_would_pass_over_is_refused(bias, spec) -> None:
    with pytest.raises(InvalidTensorsError):
        check([*SPECS, spec], bias=bias)


def test_a_model_without_the_biases_or_with_others_is_refused() -> None:
    adapter, shapes = check([*SPECS, INNER_BIAS, BIAS], bias="all"), {PATH: (6, 8)}
    parametric.require_fit(adapter, shapes, {PATH: (6,), "model.norm": (8,)}, {})
    with pytest.raises(InvalidTensorsError, match=r"no bias model\.norm\.bias"):
        parametric.require_fit(adapter, shapes, {PATH: (6,)}, {})
    with pytest.raises(InvalidTensorsError, match=r"\[7\] in the model, \[8\] in the adapter"):
        parametric.require_fit(adapter, shapes, {PATH: (6,), "model.norm": (7,)}, {})


def test_metadata_tells_the_base_and_the_training() -> None:
    base = Base("acme/base-1b", "abc", ONE, "BF16")
    adapter = check(metadata=parametric.metadata(base, {"steps": 3}))
    assert adapter.base == base
    assert adapter.training == {"steps": 3}


@pytest.mark.parametrize(
    "text", ["", "[]", '{"base":{"identity":"x"}}', '{"other":1}', '{"base":[]}']
)
def test_malformed_metadata_is_refused(text) -> None:
    with pytest.raises(MemcubeError):
        check(metadata={"memcube": text})


@pytest.mark.parametrize(
    ("adapter", "model", "level"),
    [
        (Base(identity=ONE), Base(identity=ONE), Level.EXACT),
        (Base("a", identity=ONE), Base("b", identity=ONE), Level.EXACT),
        (Base("a", identity=ONE), Base("q", identity=TWO, origin=ONE), Level.DECLARED),
        (Base("a"), Base("a"), Level.DECLARED),
        (Base("a", "1"), Base("a"), Level.DECLARED),
        (Base("a", "1"), Base("a", "1", TWO), Level.DECLARED),
        (Base("a", None, ONE, "BF16"), Base("a", None, TWO, "F32"), Level.DECLARED),
        (Base("a", "1"), Base("a", "2"), Level.UNKNOWN),
        (Base("a", None, ONE, "F32"), Base("a", None, TWO, "F32"), Level.UNKNOWN),
        (Base("a"), Base("b"), Level.UNKNOWN),
        (Base(), Base(), Level.UNKNOWN),
        (Base(identity=ONE), Base(identity=TWO), Level.UNKNOWN),
    ],
)
def test_the_level_of_the_base_is_decided_from_what_both_say(adapter, model, level) -> None:
    verdict = parametric.judge(adapter, model)
    assert verdict.level is level
    assert verdict.why


def parts(*names: str) -> list[TensorIdentity]:
    return [TensorIdentity(name, "F32", (1,), name[-1:].encode() * 32) for name in names]


def test_the_adapters_identity_does_not_depend_on_pefts_prefix() -> None:
    assert parametric.adapter_identity(parts("base_model.model.x", "y")) == (
        parametric.adapter_identity(parts("y", "x"))
    )


def test_the_description_is_plain_json_and_binds_every_tensor() -> None:
    adapter = check()
    listed = parts(A, B)
    described = adapter.compatibility(listed)
    assert json.loads(json.dumps(described)) == described
    assert described["modules"] == {PATH: [2, 6, 8]}
    assert described["tensors"] == {part.name: part.blake3.hex() for part in listed}
