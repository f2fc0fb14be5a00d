"""A KV cache computed anew: what agrees with its text agrees to the bit, and what does not is found."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from memcube.memories.activation.dump import dump_kv
from memcube.memories.activation.recompute import ROUNDING, recompute
from memcube_protocol.activation import KvManifest, Source
from memcube_protocol.digest import Digest
from memcube_protocol.errors import IncompatibleError, NotFoundError
from support.kv import with_text_of
from support.models import FAMILIES, model_of, text_of, tokenizer_of

torch = pytest.importorskip("torch")

TEXT, OTHER = text_of(40), text_of(40, start=3)


@pytest.fixture(scope="module")
def model() -> Any:
    return model_of()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tokenizer_of()


def dumped(model: Any, tokenizer: Any, folder: Path, text: str = TEXT, **options: Any) -> Path:
    return dump_kv(model, tokenizer, text=text, folder=folder, memory_id="kv", **options)


def rewrite(folder: Path, **changes: Any) -> None:
    path = folder / "manifest.json"
    path.write_bytes(replace(KvManifest.parse(path.read_bytes()), **changes).to_bytes())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cache_agrees_with_its_text_to_the_bit(family, tokenizer, tmp_path):
    model = model_of(family, "bfloat16")
    found = recompute(dumped(model, tokenizer, tmp_path), model, tokenizer)
    assert found.difference == 0
    assert found.compute_dtype == "BF16"
    assert found.environment.keys() == {"torch", "transformers", "device", "attention"}


def test_another_way_of_computing_differs_by_less_than_the_tolerance(tokenizer, tmp_path):
    for dtype, name in (("float32", "F32"), ("bfloat16", "BF16")):
        model = model_of(dtype=dtype, num_hidden_layers=8, layer_types=None)
        folder = dumped(model, tokenizer, tmp_path / dtype, text_of(200))
        model.set_attn_implementation("eager")
        assert 0 < recompute(folder, model, tokenizer).difference < ROUNDING[name] / 2


def test_a_text_that_was_altered_afterwards_is_found_by_its_tokens(model, tokenizer, tmp_path):
    folder = dumped(model, tokenizer, tmp_path)
    rewrite(folder, source=Source(TEXT.replace("w8", "w9", 1)))
    found = recompute(folder, model, tokenizer)
    assert (found.difference, found.token) == (math.inf, 1)


def test_a_cache_under_the_text_and_tokens_of_another_is_found_by_its_numbers(
    model, tokenizer, tmp_path
):
    one, other = (dumped(model, tokenizer, tmp_path / text[:2], text) for text in (TEXT, OTHER))
    with_text_of(one, other)
    found = recompute(one, model, tokenizer)
    assert ROUNDING["BF16"] * 3 < found.difference < math.inf


def test_one_token_among_many_is_enough(model, tokenizer, tmp_path):
    words = TEXT.split()
    changed = " ".join([*words[:20], "w5", *words[21:]])
    one, other = (
        dumped(model, tokenizer, tmp_path / name, text)
        for name, text in (("one", TEXT), ("other", changed))
    )
    with_text_of(one, other)
    found = recompute(one, model, tokenizer)
    assert found.token == 20
    assert found.difference > ROUNDING["BF16"] * 3


def test_not_a_number_is_as_far_away_as_can_be(model, tokenizer, tmp_path):
    folder = dumped(model, tokenizer, tmp_path)
    file = folder / "kv.safetensors"
    raw = bytearray(file.read_bytes())
    raw[-4:] = b"\xff\xff\xff\xff"
    file.write_bytes(raw)
    assert recompute(folder, model, tokenizer).difference == math.inf


def test_a_text_kept_apart_is_taken_if_it_has_the_digest(model, tokenizer, tmp_path):
    folder = dumped(model, tokenizer, tmp_path, keep_text=False)
    assert KvManifest.parse((folder / "manifest.json").read_bytes()).source.digest == Digest.of(
        TEXT.encode()
    )
    assert recompute(folder, model, tokenizer, text=TEXT).difference == 0
    for text in (None, OTHER):
        with pytest.raises(NotFoundError, match="carries no source text"):
            recompute(folder, model, tokenizer, text=text)


def test_another_model_cannot_say_anything(model, tokenizer, tmp_path):
    folder = dumped(model, tokenizer, tmp_path)
    with pytest.raises(IncompatibleError, match="base"):
        recompute(folder, model_of(seed=1), tokenizer)
