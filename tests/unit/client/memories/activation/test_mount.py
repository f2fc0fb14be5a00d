"""KV memories: bit-equal when mounted, refused for every difference, never left half-written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from memcube.memories.activation.dump import dump_kv, prefill
from memcube.memories.activation.generation import generate
from memcube.memories.activation.mount import mount_kv
from memcube.memories.model_identity import live_identity
from memcube.memories.parametric.dump import dump_lora
from memcube.memories.parametric.mount import mount_lora
from memcube_protocol.activation import KvManifest
from memcube_protocol.compatibility import CompatibilityKey
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    ConflictError,
    DigestMismatchError,
    IncompatibleError,
    InvalidConfigError,
    NotFoundError,
    UnsupportedError,
)
from support.models import model_of, text_of, tokenizer_of

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")

TEXT = text_of(40)
QUESTION = [1, 2, 3]


def live_cache(model: Any, ids: tuple[int, ...]) -> Any:
    cache = transformers.DynamicCache(config=model.config)
    with torch.inference_mode():
        model(input_ids=torch.tensor([list(ids)]), past_key_values=cache)
    return cache


def logits(model: Any, ids: list[int], cache: Any = None) -> Any:
    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids]), past_key_values=cache).logits


@pytest.fixture(scope="module")
def model() -> Any:
    return model_of()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tokenizer_of()


@pytest.fixture(scope="module")
def memory(model, tokenizer, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cube")
    return dump_kv(model, tokenizer, text=text_of(300), folder=folder, memory_id="kv")


def test_nothing_is_copied_and_every_question_gets_a_fresh_cache(memory, model, tokenizer) -> None:
    mounted = mount_kv(memory, model, tokenizer)
    one, other = mounted.new_cache(), mounted.new_cache()
    assert one.layers[0].keys.data_ptr() == other.layers[0].keys.data_ptr()
    first = logits(model, QUESTION, one)
    logits(model, [9, 9, 9], one)
    assert one.get_seq_length() == 306
    assert other.get_seq_length() == 300
    assert torch.equal(logits(model, QUESTION, other), first)
    assert torch.equal(logits(model, QUESTION, mounted.new_cache()), first)


def test_the_file_is_read_by_the_official_library(memory) -> None:
    from safetensors import safe_open

    with safe_open(memory / "kv.safetensors", "pt") as file:
        assert file.get_slice("l0.k").get_shape() == [300, 2, 16]
        assert len(list(file.keys())) == 6


def test_the_manifest_describes_what_was_dumped(memory, model) -> None:
    manifest = KvManifest.parse((memory / "manifest.json").read_bytes())
    assert manifest.id == "kv"
    assert manifest.source.text == text_of(300)
    assert manifest.key.base == live_identity(model)
    assert manifest.key.compute_dtype == manifest.key.kv_dtype == "F32"
    assert manifest.key.special_tokens == "added:"
    assert len(manifest.chain) == 2
    assert manifest.information["libraries"]["torch"] == torch.__version__


def test_all_differences_are_listed_at_once(memory) -> None:
    with pytest.raises(IncompatibleError) as refusal:
        mount_kv(memory, model_of(dtype="bfloat16", seed=1), tokenizer_of(words=60))
    for field in ("base", "compute_dtype", "kv_dtype", "tokenizer", "tokens"):
        assert f"{field} is " in str(refusal.value)


def test_tokens_that_the_text_does_not_give_are_refused(model, tokenizer, tmp_path) -> None:
    folder = dump_kv(model, tokenizer, text=TEXT, folder=tmp_path, memory_id="kv")
    manifest = KvManifest.parse((folder / "manifest.json").read_bytes())
    lie = replace(manifest, source=replace(manifest.source, text=text_of(40, 2), digest=None))
    (folder / "manifest.json").write_bytes(lie.to_bytes())
    with pytest.raises(IncompatibleError, match="tokens is "):
        mount_kv(folder, model, tokenizer)


def test_a_prompt_that_starts_otherwise_is_refused_with_the_position(
    memory, model, tokenizer
) -> None:
    ids = list(mount_kv(memory, model, tokenizer).token_ids)
    mount_kv(memory, model, tokenizer, expected_ids=[*ids, 5])
    ids[20] = 63 - ids[20]
    with pytest.raises(IncompatibleError, match="at position 20"):
        mount_kv(memory, model, tokenizer, expected_ids=ids)
    mount_kv(memory, model, tokenizer, expected_ids=ids, prefix_tokens=20)


def test_an_adapter_that_was_not_active_before_refuses_the_mount(
    memory, model, tokenizer, tmp_path
) -> None:
    with mount_lora(adapter_folder(tmp_path), model):
        with pytest.raises(IncompatibleError, match="adapters is none in the memory") as refusal:
            mount_kv(memory, model, tokenizer)
        assert "unmount the adapter" in refusal.value.hint
    mount_kv(memory, model, tokenizer)


def test_a_cache_made_under_an_adapter_wants_it_mounted_first(model, tokenizer, tmp_path) -> None:
    lora = adapter_folder(tmp_path)
    with mount_lora(lora, model):
        folder = dump_kv(
            model, tokenizer, text=TEXT, folder=tmp_path, memory_id="kv", cube_adapters=["lora"]
        )
        mounted = mount_kv(folder, model, tokenizer)
        live = live_cache(model, mounted.token_ids)
        assert torch.equal(
            logits(model, QUESTION, mounted.new_cache()), logits(model, QUESTION, live)
        )
    assert mounted.manifest.information["adapterMemories"] == ["lora"]
    with pytest.raises(ConflictError, match="other adapters"):
        mounted.new_cache()
    with pytest.raises(IncompatibleError) as refusal:
        mount_kv(folder, model, tokenizer)
    assert "mount the LoRA memory" in refusal.value.hint


def adapter_folder(folder: Path) -> Path:
    torch.manual_seed(3)
    config = peft.LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    adapted = peft.get_peft_model(model_of(), config)
    return dump_lora(adapted, folder, memory_id="lora")


def test_token_ids_and_special_tokens_are_kept_as_given(model, tmp_path) -> None:
    tokenizer = tokenizer_of(bos=True)
    given = dump_kv(model, tokenizer, token_ids=[3, 4, 5], folder=tmp_path, memory_id="given")
    assert mount_kv(given, model, tokenizer).token_ids == (3, 4, 5)
    added = dump_kv(model, tokenizer, text="w3 w4", folder=tmp_path, memory_id="added")
    assert mount_kv(added, model, tokenizer).token_ids == (65, 3, 4)
    bare = dump_kv(
        model, tokenizer, text="w3 w4", folder=tmp_path, memory_id="bare", add_special_tokens=False
    )
    assert mount_kv(bare, model, tokenizer).token_ids == (3, 4)
    private = dump_kv(
        model, tokenizer, text="w3 w4", folder=tmp_path, memory_id="private", keep_text=False
    )
    assert mount_kv(private, model, tokenizer).manifest.source.digest == Digest.of(b"w3 w4")
    assert b"w3 w4" not in (private / "manifest.json").read_bytes()


@pytest.mark.parametrize("prompt", [{}, {"text": "w1", "token_ids": [1]}, {"text": ""}])
def test_neither_both_or_nothing_is_not_dumped(prompt, model, tokenizer, tmp_path) -> None:
    with pytest.raises(InvalidConfigError):
        dump_kv(model, tokenizer, **prompt, folder=tmp_path, memory_id="kv")
    assert list(tmp_path.iterdir()) == []


def test_a_memory_that_exists_is_not_overwritten(memory, model, tokenizer) -> None:
    with pytest.raises(ConflictError):
        dump_kv(model, tokenizer, text="w1", folder=memory.parent.parent, memory_id="kv")


def mamba() -> Any:
    config = transformers.MambaConfig(
        vocab_size=80, hidden_size=32, num_hidden_layers=2, state_size=4, pad_token_id=0
    )
    return transformers.MambaForCausalLM(config).eval()


@pytest.mark.parametrize("kind", ["linear_attention", "conv", "moe"])
def test_a_layer_that_keeps_something_else_is_refused(
    kind, memory, model, tokenizer, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(model.config, "layer_types", ["full_attention", kind, "full_attention"])
    with pytest.raises(UnsupportedError):
        dump_kv(model, tokenizer, text=TEXT, folder=tmp_path, memory_id="kv")
    with pytest.raises(UnsupportedError):
        mount_kv(memory, model, tokenizer)


def test_a_model_without_a_cache_of_keys_and_values_is_refused(tokenizer, tmp_path) -> None:
    with pytest.raises(UnsupportedError):
        dump_kv(mamba(), tokenizer, text=TEXT, folder=tmp_path, memory_id="kv")
    assert list(tmp_path.rglob("*.safetensors")) == []


@pytest.fixture
def damaged(memory, tmp_path) -> Path:
    folder = tmp_path / "kv"
    folder.mkdir()
    for file in memory.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_a_flipped_byte_is_found_unless_it_lies_behind_the_prefix(
    damaged, model, tokenizer
) -> None:
    file = damaged / "kv.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(DigestMismatchError):
        mount_kv(damaged, model, tokenizer)
    mount_kv(damaged, model, tokenizer, prefix_tokens=256)
    mount_kv(damaged, model, tokenizer, verify_blocks=False)


@pytest.mark.parametrize("name", ["manifest.json", "tokens.u32", "kv.safetensors"])
def test_a_missing_file_is_not_found(name, damaged, model, tokenizer) -> None:
    (damaged / name).unlink()
    with pytest.raises(NotFoundError):
        mount_kv(damaged, model, tokenizer)


def test_a_longer_prefix_than_there_is_and_an_unmounted_memory_are_refused(
    memory, model, tokenizer
) -> None:
    with pytest.raises(NotFoundError):
        mount_kv(memory, model, tokenizer, prefix_tokens=301)
    with mount_kv(memory, model, tokenizer) as mounted:
        pass
    with pytest.raises(ConflictError):
        mounted.new_cache()


def test_generation_behind_a_memory_equals_generation_behind_its_text(model, tmp_path) -> None:
    tokenizer = tokenizer_of(bos=True)
    folder = dump_kv(model, tokenizer, text=TEXT, folder=tmp_path, memory_id="kv")
    mounted = mount_kv(folder, model, tokenizer)
    for question in ("w5 w6 w7", "w9"):
        behind = generate(model, tokenizer, question, memory=mounted, max_new_tokens=5)
        text = f"{TEXT} {question}"
        assert behind == generate(model, tokenizer, text, max_new_tokens=5)
    assert len(mounted.token_ids) == 41


def test_a_checkpoint_and_its_live_model_have_the_same_key(tokenizer, tmp_path) -> None:
    model = model_of("gemma3")
    model.save_pretrained(tmp_path / "checkpoint")
    folder = dump_kv(model, tokenizer, text=TEXT, folder=tmp_path, memory_id="kv")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint")
    assert isinstance(mount_kv(folder, again, tokenizer).manifest.key, CompatibilityKey)


def test_a_cache_made_under_autocast_is_mounted_under_autocast_only(
    model, tokenizer, tmp_path
) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        folder = dump_kv(model, tokenizer, text=TEXT, folder=tmp_path, memory_id="kv")
        mount_kv(folder, model, tokenizer)
    with pytest.raises(IncompatibleError, match="compute_dtype is BF16 in the memory, F32 here"):
        mount_kv(folder, model, tokenizer)


def test_a_cache_of_another_type_than_the_models_is_not_dumped(
    model, tokenizer, tmp_path, monkeypatch
) -> None:
    def half_widened(*given: Any) -> Any:
        cache = prefill(*given)
        cache.layers[1].values = cache.layers[1].values.double()
        return cache

    monkeypatch.setattr("memcube.memories.activation.dump.prefill", half_widened)
    with pytest.raises(UnsupportedError, match="F64"):
        dump_kv(model, tokenizer, text=TEXT, folder=tmp_path, memory_id="kv")
    assert list(tmp_path.rglob("*.safetensors")) == []


def test_a_peft_model_is_dumped_and_mounted_as_a_model(tokenizer, tmp_path) -> None:
    config = peft.LoraConfig(target_modules=["q_proj", "k_proj"], init_lora_weights=False)
    torch.manual_seed(6)
    adapted = peft.get_peft_model(model_of(), config).eval()
    folder = dump_kv(adapted, tokenizer, text=TEXT, folder=tmp_path, memory_id="kv")
    mounted = mount_kv(folder, adapted, tokenizer)
    answer = generate(adapted, tokenizer, "w5 w6", memory=mounted, max_new_tokens=4)
    assert answer == generate(adapted, tokenizer, f"{TEXT} w5 w6", max_new_tokens=4)
    mount_kv(folder, adapted.get_base_model(), tokenizer)
    with adapted.disable_adapter(), pytest.raises(IncompatibleError, match="adapters is "):
        mount_kv(folder, adapted, tokenizer)


def test_sliding_windows_larger_than_the_memory_keep_all_of_it(tokenizer, tmp_path) -> None:
    model = model_of("gemma3", sliding_window=64)
    folder = dump_kv(model, tokenizer, text=TEXT, folder=tmp_path, memory_id="kv")
    mounted = mount_kv(folder, model, tokenizer)
    live = live_cache(model, mounted.token_ids)
    assert mounted.new_cache().layers[0].keys.shape == live.layers[0].keys.shape
    behind = logits(model, [1] * 40, mounted.new_cache())
    assert torch.equal(behind, logits(model, [1] * 40, live))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_attention_implementation_does_not_matter(attention, tokenizer, tmp_path) -> None:
    model = model_of("gemma3")
    folder = dump_kv(model, tokenizer, text=TEXT, folder=tmp_path, memory_id="kv")
    model.set_attn_implementation(attention)
    mounted = mount_kv(folder, model, tokenizer)
    full = logits(model, [*mounted.token_ids, *QUESTION])[:, -len(QUESTION) :]
    assert (logits(model, QUESTION, mounted.new_cache()) - full).abs().max() <= 1e-5
