"""Live caches: what has every token is dumped to the bit, what has lost one or rounds is refused in words."""

from __future__ import annotations

from typing import Any

import pytest
from memcube.memories.activation import mounted as kv_mounted
from memcube.memories.activation.capture import captured
from memcube.memories.activation.dump import dump_kv
from memcube.memories.activation.mount import mount_kv
from memcube.memories.activation.mounted import LYING_TOKENS
from memcube_protocol.activation import KvManifest
from memcube_protocol.errors import InvalidConfigError, UnsupportedError
from support.models import FAMILIES, WINDOW, model_of, text_of, tokenizer_of

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from transformers import cache_utils  # noqa: E402

IDS = list(range(1, 7))
"""Fewer than a window of the models has."""


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return {family: model_of(family) for family in FAMILIES}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tokenizer_of()


def used(model: Any, ids: list[int], cache: Any, step: int = 4) -> Any:
    """`cache` after `ids` went through `model` in portions."""
    with torch.inference_mode():
        for at in range(0, len(ids), step):
            model(input_ids=torch.tensor([ids[at : at + step]]), past_key_values=cache)
    return cache


CACHES = {
    "dynamic": lambda model: transformers.DynamicCache(config=model.config),
    "dynamic, every token": lambda model: transformers.DynamicCache(),
    "static": lambda model: transformers.StaticCache(config=model.config, max_cache_len=32),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", CACHES)
def test_a_live_cache_is_mounted_as_it_was_to_the_bit(
    kind, family, models, tokenizer, tmp_path
) -> None:
    model = models[family]
    cache = used(model, IDS, CACHES[kind](model))
    folder = dump_kv(model, tokenizer, token_ids=IDS, cache=cache, folder=tmp_path, memory_id="kv")
    manifest = KvManifest.parse((folder / "manifest.json").read_bytes())
    assert manifest.information["from"] == "live"
    mounted = mount_kv(folder, model, tokenizer)
    for one, other in zip(mounted.new_cache().layers, cache.layers, strict=True):
        assert torch.equal(one.keys, other.keys[:, :, : len(IDS)])
        assert torch.equal(one.values, other.values[:, :, : len(IDS)])


@pytest.mark.parametrize("lying", [1, LYING_TOKENS], ids=["where it lies", "copied"])
def test_a_conversation_behind_a_memory_becomes_a_memory_itself(
    lying, models, tokenizer, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(kv_mounted, "LYING_TOKENS", lying)
    model = models["qwen3"]
    first = dump_kv(model, tokenizer, text=text_of(5), folder=tmp_path, memory_id="first")
    mounted = mount_kv(first, model, tokenizer)
    ids = [*mounted.token_ids, 9, 10]
    cache = used(model, [9, 10], mounted.new_cache())
    second = dump_kv(
        model, tokenizer, token_ids=ids, cache=cache, folder=tmp_path, memory_id="second"
    )
    again = mount_kv(second, model, tokenizer)
    assert again.token_ids == tuple(ids)
    for one, other in zip(again.new_cache().layers, cache.layers, strict=True):
        assert torch.equal(one.keys, other.keys)


def test_the_cache_that_generate_leaves_lacks_the_last_token_it_returned(
    models, tokenizer, tmp_path
) -> None:
    model = models["llama"]
    cache = transformers.DynamicCache(config=model.config)
    made = model.generate(
        torch.tensor([IDS]), past_key_values=cache, max_new_tokens=3, do_sample=False
    )[0].tolist()
    with pytest.raises(InvalidConfigError, match="has seen 8 tokens, 9 ids") as refusal:
        dump_kv(model, tokenizer, token_ids=made, cache=cache, folder=tmp_path, memory_id="kv")
    assert "last one" in refusal.value.hint
    assert list(tmp_path.iterdir()) == []
    dump_kv(model, tokenizer, token_ids=made[:-1], cache=cache, folder=tmp_path, memory_id="kv")


def test_a_text_beside_a_live_cache_is_checked_like_any_other(models, tokenizer, tmp_path) -> None:
    model = models["qwen3"]
    text = text_of(6)
    cache = used(model, tokenizer(text)["input_ids"], transformers.DynamicCache())
    folder = dump_kv(model, tokenizer, text=text, cache=cache, folder=tmp_path, memory_id="kv")
    assert mount_kv(folder, model, tokenizer).manifest.source.text == text
    with pytest.raises(InvalidConfigError, match="has seen 6 tokens, 7 ids"):
        dump_kv(model, tokenizer, text=text_of(7), cache=cache, folder=tmp_path, memory_id="other")


@pytest.mark.parametrize("kind", ["dynamic", "static"])
@pytest.mark.parametrize("family", ["mistral", "gemma3"])
def test_a_window_that_moved_on_has_dropped_tokens_and_says_how_many(
    family, kind, models, tokenizer, tmp_path
) -> None:
    model = models[family]
    ids = list(range(1, WINDOW + 5))
    cache = used(model, ids, CACHES[kind](model))
    with pytest.raises(
        UnsupportedError, match=r"layer 0 attends to a window and has dropped \d of 12"
    ):
        dump_kv(model, tokenizer, token_ids=ids, cache=cache, folder=tmp_path, memory_id="kv")
    assert list(tmp_path.iterdir()) == []


def test_a_window_that_records_its_past_still_has_every_token(models, tokenizer, tmp_path) -> None:
    model = models["gemma3"]
    ids = list(range(1, WINDOW + 5))
    cache = transformers.DynamicCache(config=model.config)
    cache.activate_past_recording()
    used(model, ids, cache)
    folder = dump_kv(model, tokenizer, token_ids=ids, cache=cache, folder=tmp_path, memory_id="kv")
    behind = mount_kv(folder, model, tokenizer).new_cache()
    assert behind.get_seq_length() == len(ids)


class Quantized(cache_utils.QuantizedLayer):
    """A quantised layer without the library that would quantise."""

    def _quantize(self, tensor: Any, axis: int) -> Any:
        return tensor.round()

    def _dequantize(self, q_tensor: Any) -> Any:
        return q_tensor


def state(length: int = len(IDS), batch: int = 1) -> Any:
    return torch.zeros(batch, 2, length, 16)


def cache_with(layer: Any) -> Any:
    return transformers.Cache(layers=[layer])


def test_a_quantised_cache_is_refused() -> None:
    layer = Quantized()
    layer.update(state(), state())
    with pytest.raises(UnsupportedError, match="rounded") as refusal:
        captured(cache_with(layer), len(IDS))
    assert "int8-token" in refusal.value.hint


@pytest.mark.parametrize("kind", ["LinearAttentionLayer", "LinearAttentionAndFullAttentionLayer"])
def test_a_layer_with_a_running_state_is_refused(kind) -> None:
    with pytest.raises(UnsupportedError, match="keeps no key and value for every token"):
        captured(cache_with(getattr(cache_utils, kind)()), len(IDS))


@pytest.mark.parametrize(
    "cache",
    [
        None,
        "cache",
        transformers.EncoderDecoderCache(transformers.DynamicCache(), transformers.DynamicCache()),
        transformers.DynamicCache(),
    ],
)
def test_what_is_no_cache_or_an_empty_one_is_refused(cache) -> None:
    with pytest.raises(UnsupportedError):
        captured(cache, len(IDS))


def test_a_layer_that_was_never_used_has_seen_nothing(models) -> None:
    cache = transformers.DynamicCache(config=models["qwen3"].config)
    with pytest.raises(InvalidConfigError, match="has seen 0 tokens"):
        captured(cache, len(IDS))


def test_several_sequences_are_refused() -> None:
    layer = cache_utils.DynamicLayer()
    layer.update(state(batch=2), state(batch=2))
    with pytest.raises(InvalidConfigError, match="2 sequences") as refusal:
        captured(cache_with(layer), len(IDS))
    assert "batch_select_indices" in refusal.value.hint


def test_the_cache_of_a_model_of_fewer_layers_is_refused(models, tokenizer, tmp_path) -> None:
    short = used(model_of(num_hidden_layers=2), IDS, transformers.DynamicCache())
    with pytest.raises(UnsupportedError):
        dump_kv(
            models["qwen3"],
            tokenizer,
            token_ids=IDS,
            cache=short,
            folder=tmp_path,
            memory_id="kv",
        )
    assert list(tmp_path.iterdir()) == []
