"""LoRA memories: mounted to the bit, taken off without a trace, refused when anything is off."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from memcube.memories.activation.key import active_adapters
from memcube.memories.model_identity import file_tensors, live_identity
from memcube.memories.parametric.dump import dump_lora, read_adapter
from memcube.memories.parametric.mount import module_shape, mount_lora
from memcube_protocol.errors import (
    ConflictError,
    ForbiddenMediaTypeError,
    IncompatibleError,
    InvalidConfigError,
    InvalidTensorsError,
    NotFoundError,
    UnsupportedError,
)
from memcube_protocol.identity import BaseIdentity
from memcube_protocol.parametric import Base, Level, adapter_identity
from support.adapters import adapted, footprint, logits
from support.models import model_of

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")

KINDS: dict[str, dict[str, Any]] = {
    "all linear": {},
    "dora": {"use_dora": True},
    "rank-stabilised": {"use_rslora": True},
    "patterns": {
        "rank_pattern": {"q_proj": 3},
        "alpha_pattern": {"^model.layers.1.mlp.up_proj": 7},
    },
    "a head of its own": {"modules_to_save": ["lm_head"]},
    "embedding": {"target_modules": ["embed_tokens", "v_proj"]},
    "one layer": {"target_modules": ["q_proj"], "layers_to_transform": [1]},
}


@pytest.fixture(scope="module")
def lora(tmp_path_factory) -> Path:
    return dump_lora(adapted(), tmp_path_factory.mktemp("cube"), memory_id="lora")


@pytest.mark.parametrize("kind", KINDS)
def test_a_mounted_adapter_answers_as_the_trained_one_and_leaves_no_trace(kind, tmp_path) -> None:
    trained = adapted(**KINDS[kind])
    folder = dump_lora(trained, tmp_path, memory_id="lora")
    model = model_of()
    model.train()
    before = footprint(model)
    with mount_lora(folder, model) as mounted:
        assert mounted.verdict.level is Level.EXACT
        assert torch.equal(logits(model), logits(trained))
        assert active_adapters(model) == active_adapters(trained)
        assert live_identity(model) == before[0]
    assert footprint(model) == before
    assert torch.equal(logits(model.eval()), logits(model_of()))


@pytest.mark.parametrize(
    ("base", "adapter"),
    [
        ("bfloat16", "bfloat16"),
        ("bfloat16", "float32"),
        ("float32", "bfloat16"),
        ("bfloat16", "float16"),
    ],
)
def test_an_adapter_of_another_dtype_is_never_narrowed(base, adapter, tmp_path) -> None:
    trained = adapted(base)
    for name, tensor in trained.named_parameters():
        if "lora_" in name:
            tensor.data = (tensor.data.float() * 1.001).to(getattr(torch, adapter))
    folder = dump_lora(trained, tmp_path, memory_id="lora")
    model = model_of(dtype=base)
    with mount_lora(folder, model):
        held = {t.dtype for n, t in model.named_parameters() if "lora_" in n}
        assert held == {torch.bfloat16 if base == adapter else torch.float32}
        stored = {t.name: t for t in file_tensors(folder / "adapter_model.safetensors")}
        assert len(stored) == sum("lora_" in n for n, _ in model.named_parameters())
    assert torch.equal(logits(model), logits(model_of(dtype=base)))


def test_peft_itself_loads_the_dumped_folder_without_a_warning(lora) -> None:
    loaded = peft.PeftModel.from_pretrained(model_of(), lora, autocast_adapter_dtype=False)
    assert torch.equal(logits(loaded), logits(adapted()))


def test_a_folder_written_by_peft_is_mounted_as_it_is(tmp_path) -> None:
    trained = adapted()
    trained.peft_config["default"].base_model_name_or_path = "acme/base"
    trained.save_pretrained(tmp_path / "plain", save_embedding_layers=False)
    model = model_of()
    with pytest.raises(IncompatibleError, match="not known"):
        mount_lora(tmp_path / "plain", model)
    with mount_lora(tmp_path / "plain", model, allow_unverified_base=True) as mounted:
        assert mounted.verdict.level is Level.UNKNOWN
        assert torch.equal(logits(model), logits(trained))
    with mount_lora(tmp_path / "plain", model, base=Base("acme/base")) as mounted:
        assert mounted.verdict.level is Level.DECLARED


def test_a_peft_folder_becomes_a_memory_with_a_base_and_the_same_tensors(tmp_path) -> None:
    adapted().save_pretrained(tmp_path / "plain", save_embedding_layers=False)
    identity = live_identity(model_of())
    folder = dump_lora(tmp_path / "plain", tmp_path, memory_id="lora", base_identity=identity)
    assert read_adapter(folder).base.identity == identity
    assert file_tensors(folder / "adapter_model.safetensors") == file_tensors(
        tmp_path / "plain" / "adapter_model.safetensors"
    )
    with mount_lora(folder, model_of()) as mounted:
        assert mounted.verdict.level is Level.EXACT


def test_the_dump_tells_base_and_training_but_no_local_path(tmp_path) -> None:
    trained = adapted()
    trained.peft_config["default"].base_model_name_or_path = str(tmp_path / "secret" / "base-1b")
    folder = dump_lora(trained, tmp_path, memory_id="lora", training={"steps": 7})
    adapter = read_adapter(folder)
    assert adapter.base.identity == live_identity(trained)
    assert adapter.base.form == "F32"
    assert adapter.training["steps"] == 7
    assert adapter.training["dump"]["builder"].keys() >= {"memcube", "peft", "torch"}
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "base-1b"
    assert "secret" not in "".join(f.read_text(errors="replace") for f in folder.iterdir())


def test_the_adapters_identity_is_the_same_on_disk_and_on_the_model(lora) -> None:
    (live,) = active_adapters(adapted())
    assert live.identity == adapter_identity(file_tensors(lora / "adapter_model.safetensors"))
    assert live.scale == "2"


@pytest.mark.parametrize("change", [{"seed": 1}, {"dtype": "bfloat16"}])
def test_a_model_with_other_weights_is_not_known_to_be_the_base(change, lora) -> None:
    model = model_of(**change)
    before = footprint(model)
    with pytest.raises(IncompatibleError, match="not known") as refusal:
        mount_lora(lora, model)
    assert "--allow-unverified-base" in refusal.value.hint
    assert footprint(model) == before


def test_a_given_identity_spares_the_hash_and_decides(lora) -> None:
    model = model_of(seed=1)
    with mount_lora(lora, model, base_identity=live_identity(model_of())) as mounted:
        assert mounted.verdict.level is Level.EXACT
    with pytest.raises(IncompatibleError):
        mount_lora(lora, model_of(), base_identity=BaseIdentity(bytes(32)))


@pytest.mark.parametrize(
    ("family", "changes", "reason"),
    [
        ("qwen3", {"num_hidden_layers": 2}, r"no module model\.layers\.2"),
        ("qwen3", {"intermediate_size": 64}, "64 x 64 in the model, 96 x 64"),
        ("qwen3", {"hidden_size": 32}, "in the model"),
    ],
)
def test_a_model_of_another_shape_is_refused_even_when_its_base_is_not_checked(
    family, changes, reason, lora
) -> None:
    model = model_of(family, **changes)
    before = footprint(model)
    with pytest.raises(InvalidTensorsError, match=reason):
        mount_lora(lora, model, allow_unverified_base=True)
    assert footprint(model) == before


def test_two_adapters_are_mounted_together_and_taken_off_in_any_order(lora, tmp_path) -> None:
    second = dump_lora(adapted(seed=2), tmp_path, memory_id="second")
    model = model_of()
    before = footprint(model)
    one, two = mount_lora(lora, model), mount_lora(second, model)
    both = logits(model)
    assert [a.identity for a in active_adapters(model)] == [
        adapter_identity(file_tensors(f / "adapter_model.safetensors")) for f in (lora, second)
    ]
    one.unmount()
    assert torch.equal(logits(model), logits(adapted(seed=2)))
    two.unmount()
    assert footprint(model) == before
    with mount_lora(second, model), mount_lora(lora, model):
        assert not torch.equal(logits(model), both)
    assert footprint(model) == before


def test_an_earlier_adapter_of_the_user_stays_as_it_was(lora) -> None:
    mine = adapted(seed=5, target_modules=["q_proj"])
    mine.train()
    before = footprint(mine)
    alone = logits(mine.eval())
    mine.train()
    with mount_lora(lora, mine):
        assert len(active_adapters(mine)) == 2
        assert not torch.equal(logits(mine), alone)
    assert footprint(mine)[1:] == before[1:]
    assert mine.active_adapters == ["default"]
    assert torch.equal(logits(mine.eval()), alone)


def test_the_same_adapter_twice_is_a_conflict_and_the_first_stays(lora) -> None:
    model = model_of()
    with mount_lora(lora, model) as mounted:
        with pytest.raises(ConflictError):
            mount_lora(lora, model)
        assert torch.equal(logits(model), logits(adapted()))
        mounted.unmount()
        mounted.unmount()
    assert torch.equal(logits(model), logits(model_of()))


def test_adapters_that_were_put_on_by_other_means_are_not_touched(lora) -> None:
    model = model_of()
    peft.inject_adapter_in_model(peft.LoraConfig(target_modules=["q_proj"]), model)
    with pytest.raises(UnsupportedError):
        mount_lora(lora, model)


def test_a_pickle_instead_of_safetensors_is_never_opened(tmp_path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"peft_type":"LORA"}')
    with pytest.raises(NotFoundError):
        read_adapter(tmp_path)
    (tmp_path / "adapter_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(ForbiddenMediaTypeError):
        read_adapter(tmp_path)


def test_what_cannot_be_dumped_is_refused(lora, tmp_path) -> None:
    with pytest.raises(ConflictError):
        dump_lora(lora, lora.parent.parent, memory_id="lora")
    with pytest.raises(InvalidConfigError):
        dump_lora(lora, tmp_path, memory_id="a/b")
    with pytest.raises(NotFoundError):
        dump_lora(adapted(), tmp_path, memory_id="x", adapter_name="other")
    with pytest.raises(UnsupportedError):
        dump_lora(adapted(init_lora_weights="olora"), tmp_path, memory_id="x")
    assert list(tmp_path.iterdir()) == []


def test_shapes_are_known_of_linear_embedding_and_convolution_like_modules() -> None:
    transformers = pytest.importorskip("transformers")
    model = model_of()
    assert module_shape(model.get_submodule("model.layers.0.mlp.up_proj")) == (96, 64)
    assert module_shape(model.get_submodule("model.embed_tokens")) == (64, 80)
    assert module_shape(model.get_submodule("model.norm")) is None
    config = transformers.GPT2Config(
        vocab_size=80, n_embd=32, n_layer=1, n_head=2, bos_token_id=None, eos_token_id=None
    )
    gpt2 = transformers.GPT2LMHeadModel(config)
    assert module_shape(gpt2.get_submodule("transformer.h.0.attn.c_attn")) == (96, 32)
