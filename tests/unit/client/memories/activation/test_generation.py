"""Asking behind a KV memory gives the answer of the whole prompt, however the answer is searched for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from memcube_protocol.errors import InvalidRequestError, LimitExceededError, UnsupportedError
from support.models import model_of, text_of, tokenizer_of

torch = pytest.importorskip("torch")
from memcube.memories.activation.dump import dump_kv  # noqa: E402
from memcube.memories.activation.generation import generate  # noqa: E402
from memcube.memories.activation.mount import MountedKv, mount_kv  # noqa: E402
from memcube.memories.known_identity import known_identity  # noqa: E402

QUESTION = "w3 w9 w27"


def mounted(model: Any, folder: Path) -> MountedKv:
    """A memory of twenty words, more than a window, on `model`."""
    tokenizer = tokenizer_of()
    dumped = dump_kv(model, tokenizer, text=text_of(20), folder=folder, memory_id="handbook")
    return mount_kv(dumped, model, tokenizer)


def answers(model: Any, folder: Path, **options: Any) -> tuple[str, str]:
    """The answer behind the memory, and that to the whole text without one."""
    tokenizer = tokenizer_of()
    with mounted(model, folder) as memory:
        behind = generate(model, tokenizer, QUESTION, memory=memory, max_new_tokens=8, **options)
    whole = generate(
        model,
        tokenizer,
        f"{text_of(20)} {QUESTION}",
        max_new_tokens=8,
        num_beams=options.get("num_beams", 1),
    )
    return behind, whole


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma3"])
def test_beams_share_a_memory_in_windows_too(family: str, tmp_path: Path) -> None:
    behind, whole = answers(model_of(family), tmp_path, num_beams=3)
    assert behind == whole


@pytest.mark.parametrize("option", [{"use_cache": False}, {"cache_implementation": "static"}])
def test_a_memory_is_the_cache_whatever_cache_is_asked_for(
    option: dict[str, Any], tmp_path: Path
) -> None:
    model = model_of("llama", num_key_value_heads=1)
    behind, whole = answers(model, tmp_path, **option)
    assert behind == whole


def test_a_model_with_a_cache_of_its_own_kind_takes_a_memory(tmp_path: Path) -> None:
    model = model_of("llama")
    model.generation_config.cache_implementation = "static"
    with mounted(model, tmp_path) as memory:
        assert generate(model, tokenizer_of(), QUESTION, memory=memory, max_new_tokens=2)


@pytest.mark.parametrize("named", ["prompt_lookup_num_tokens", "assistant_model"])
def test_guessing_ahead_behind_a_memory_is_refused(named: str, tmp_path: Path) -> None:
    model = model_of("llama")
    given = {named: 2 if named == "prompt_lookup_num_tokens" else model}
    with mounted(model, tmp_path) as memory, pytest.raises(UnsupportedError, match="assisted"):
        generate(model, tokenizer_of(), QUESTION, memory=memory, **given)


def test_an_answer_comes_as_text_where_more_is_asked_of_transformers(tmp_path: Path) -> None:
    behind, whole = answers(model_of("llama"), tmp_path, return_dict_in_generate=True)
    assert behind == whole


def test_a_model_without_its_weights_is_refused_with_words() -> None:
    with pytest.raises(UnsupportedError, match="not in memory"):
        known_identity(model_of("llama").to("meta"))


def test_a_compiled_model_is_the_model_that_was_compiled() -> None:
    model = model_of("llama")
    assert known_identity(torch.compile(model, backend="eager")) == known_identity(model)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
def test_an_adapter_with_tokens_of_its_own_is_refused_with_words() -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], trainable_token_indices=[1, 2])
    with pytest.raises(UnsupportedError, match="cannot be told"):
        known_identity(peft.get_peft_model(model_of("llama"), config))


def test_a_prompt_longer_than_the_model_reads_is_refused_with_both_lengths(tmp_path: Path) -> None:
    model = model_of("llama", max_position_embeddings=24)
    tokenizer = tokenizer_of()
    with pytest.raises(LimitExceededError, match=r"25 tokens.* reads 24"):
        generate(model, tokenizer, text_of(25), max_new_tokens=1)
    with (
        mounted(model, tmp_path) as memory,
        pytest.raises(LimitExceededError, match=r"25 tokens.* reads 24"),
    ):
        generate(model, tokenizer, text_of(5), memory=memory, max_new_tokens=1)


@pytest.mark.parametrize(
    "asked", [[QUESTION], None, QUESTION.encode()], ids=["list", "none", "bytes"]
)
def test_what_is_no_text_is_refused_with_words(asked: Any) -> None:
    with pytest.raises(InvalidRequestError, match=f"of type {type(asked).__name__}"):
        generate(model_of("llama"), tokenizer_of(), asked)


@pytest.mark.parametrize("wanted", [0, -1])
def test_an_answer_of_no_token_is_refused_with_words(wanted: int) -> None:
    with pytest.raises(InvalidRequestError, match=f"an answer of {wanted} tokens") as caught:
        generate(model_of("llama"), tokenizer_of(), QUESTION, max_new_tokens=wanted)
    assert "max_new_tokens" in str(caught.value.hint)
