"""The base identity: the same for a checkpoint, its shards, its live model; other for other weights."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from memcube.memories.activation import key as activation_key
from memcube.memories.model_identity import (
    checkpoint_identity,
    file_tensors,
    live_identity,
)
from memcube.store.checks import FileChecks
from memcube_protocol.errors import InvalidTensorsError, NotFoundError, UnsupportedError
from support.models import FAMILIES, model_of, tokenizer_of

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")
safetensors_torch = pytest.importorskip("safetensors.torch")
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")


def save(model: Any, folder: Path, **options: Any) -> Path:
    model.save_pretrained(folder, **options)
    return folder


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tied", [True, False])
def test_a_checkpoint_and_its_live_model_agree(family, dtype, tied, tmp_path) -> None:
    model = model_of(family, dtype, tie_word_embeddings=tied)
    folder = save(model, tmp_path)
    identity = checkpoint_identity(folder)
    assert live_identity(model) == identity
    loaded = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=model.dtype)
    assert live_identity(loaded) == identity


def test_experts_that_loading_fuses_do_not_matter(tmp_path) -> None:
    config = transformers.MixtralConfig(
        vocab_size=80,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_local_experts=4,
    )
    model = transformers.MixtralForCausalLM(config)
    folder = save(model, tmp_path)
    names = [part.name for part in file_tensors(folder / "model.safetensors")]
    assert any("experts.3." in name for name in names)
    assert checkpoint_identity(folder) == live_identity(model)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(folder)
    assert live_identity(loaded) == checkpoint_identity(folder)


def test_shards_do_not_matter(tmp_path) -> None:
    model = model_of()
    whole = save(model, tmp_path / "whole")
    shards = save(model, tmp_path / "shards", max_shard_size="50KB")
    assert len(list(shards.glob("*.safetensors"))) > 2
    assert checkpoint_identity(whole) == checkpoint_identity(shards)


def test_a_copy_of_tied_weights_in_the_checkpoint_does_not_matter(tmp_path) -> None:
    model = model_of(tie_word_embeddings=True)
    folder = save(model, tmp_path)
    state = safetensors_torch.load_file(folder / "model.safetensors")
    assert "lm_head.weight" not in state
    state["lm_head.weight"] = state["model.embed_tokens.weight"].clone()
    safetensors_torch.save_file(state, folder / "model.safetensors")
    assert checkpoint_identity(folder) == live_identity(model)


def test_one_changed_weight_and_another_dtype_are_another_model() -> None:
    model = model_of()
    identity = live_identity(model)
    with torch.no_grad():
        model.model.norm.weight[0] += 1e-6
    assert live_identity(model) != identity
    assert live_identity(model_of(dtype="bfloat16")) != identity


@pytest.mark.parametrize("options", [{}, {"modules_to_save": ["lm_head"]}, {"use_dora": True}])
def test_adapters_do_not_count_but_merging_them_does(options) -> None:
    identity = live_identity(model_of())
    config = peft.LoraConfig(target_modules="all-linear", init_lora_weights=False, **options)
    adapted = peft.get_peft_model(model_of(), config)
    assert live_identity(adapted) == identity
    assert live_identity(adapted.get_base_model()) == identity
    adapted.merge_adapter()
    assert live_identity(adapted) != identity
    still_active = activation_key.active_adapter_names(adapted)
    assert still_active == (("default",) if "modules_to_save" in options else ())


def test_a_disabled_adapter_is_not_active() -> None:
    adapted = peft.get_peft_model(model_of(), peft.LoraConfig(target_modules=["q_proj"]))
    assert len(activation_key.active_adapters(adapted)) == 1
    with adapted.disable_adapter():
        assert activation_key.active_adapters(adapted) == ()


def test_scales_that_differ_by_module_are_hashed() -> None:
    config = peft.LoraConfig(
        target_modules=["q_proj", "v_proj"], alpha_pattern={"q_proj": 99}, r=4, lora_alpha=4
    )
    (adapter,) = activation_key.active_adapters(peft.get_peft_model(model_of(), config))
    assert adapter.scale.startswith("sha256:")


def test_a_remembered_shard_is_not_read_again_until_it_changes(tmp_path, monkeypatch) -> None:
    folder = save(model_of(), tmp_path / "model")
    checks = FileChecks(tmp_path / "home" / "checks.sqlite")
    identity = checkpoint_identity(folder, checks=checks)
    read = []
    monkeypatch.setattr(
        "memcube.memories.model_identity.file_tensors", lambda f: read.append(f) or file_tensors(f)
    )
    assert checkpoint_identity(folder, checks=checks) == identity
    assert checkpoint_identity(Path(os.path.relpath(folder)), checks=checks) == identity
    assert read == []
    save(model_of(seed=1), folder)
    assert checkpoint_identity(folder, checks=checks) != identity
    assert len(read) == 1


def test_a_folder_without_tensors_or_with_a_missing_shard_is_not_found(tmp_path) -> None:
    with pytest.raises(NotFoundError):
        checkpoint_identity(tmp_path)
    index = {"weight_map": {"a": "../../escape.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(NotFoundError, match="escape"):
        checkpoint_identity(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x80\x04pickle", b"\xff" * 20])
def test_a_damaged_checkpoint_is_refused(content, tmp_path) -> None:
    from memcube_protocol.errors import MemcubeError

    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(MemcubeError):
        checkpoint_identity(tmp_path)


def test_two_checkpoints_in_one_folder_are_refused(tmp_path) -> None:
    folder = save(model_of(), tmp_path)
    (folder / "copy.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    with pytest.raises(InvalidTensorsError, match="twice"):
        checkpoint_identity(folder)


def test_padding_and_truncation_do_not_change_the_tokenizers_hash() -> None:
    tokenizer = tokenizer_of()
    before = activation_key.tokenizer_hash(tokenizer)
    tokenizer(["w1", "w1 w2"], padding=True, truncation=True, max_length=2)
    assert tokenizer.backend_tokenizer.to_str() != tokenizer_of().backend_tokenizer.to_str()
    assert activation_key.tokenizer_hash(tokenizer) == before
    assert activation_key.tokenizer_hash(tokenizer_of(bos=True)) != before
    assert activation_key.tokenizer_hash(tokenizer_of(words=63)) != before


def test_a_tokenizer_without_a_backend_cannot_be_identified() -> None:
    with pytest.raises(UnsupportedError):
        activation_key.tokenizer_hash(object())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_architectures_hash_survives_saving_and_what_does_not_matter(family, tmp_path) -> None:
    model = model_of(family)
    expected = activation_key.architecture_hash(model.config)
    rope = activation_key.rope_json(model.config)
    save(model, tmp_path)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, dtype=torch.bfloat16, attn_implementation="eager"
    )
    loaded.config.use_cache = False
    assert activation_key.architecture_hash(loaded.config) == expected
    assert activation_key.rope_json(loaded.config) == rope


@pytest.mark.parametrize(
    "change",
    [
        {"num_hidden_layers": 2},
        {"num_key_value_heads": 4},
        {"rms_norm_eps": 1e-3},
        {"hidden_act": "gelu"},
        {"attention_bias": True},
    ],
)
def test_what_changes_the_computation_changes_the_architectures_hash(change) -> None:
    assert activation_key.architecture_hash(model_of(**change).config) != (
        activation_key.architecture_hash(model_of().config)
    )


def test_a_quantised_model_says_so() -> None:
    config = model_of().config
    assert activation_key.weight_quantisation(config) == "none"
    config.quantization_config = {"quant_method": "awq", "bits": 4}
    assert activation_key.weight_quantisation(config).startswith("sha256:")
