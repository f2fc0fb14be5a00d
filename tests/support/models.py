"""Tiny random language models of several families, and a tokenizer for them; needs no pytest to be imported."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

WORDS = 64
SHAPE = {
    "vocab_size": 80,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": None,
}
WINDOW = 8
FAMILIES = ("llama", "qwen3", "mistral", "gemma3")


def config_of(family: str, **changes: Any) -> Any:
    """A configuration of `family`; Mistral and Gemma3 have windows of eight tokens."""
    import transformers

    values = {**SHAPE, **changes}
    if family == "llama":
        return transformers.LlamaConfig(**values)
    if family == "mistral":
        return transformers.MistralConfig(**{"sliding_window": WINDOW, **values})
    if family == "gemma3":
        kinds = ["sliding_attention", "full_attention", "sliding_attention"]
        settings = {"sliding_window": WINDOW, "layer_types": kinds, **values}
        return transformers.Gemma3TextConfig(**settings)
    return transformers.Qwen3Config(**values)


def model_of(family: str = "qwen3", dtype: str = "float32", seed: int = 0, **changes: Any) -> Any:
    """A random model of `family`; the same seed gives the same weights."""
    torch = _module("torch")
    transformers = _module("transformers")
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(
        config_of(family, **changes), dtype=getattr(torch, dtype)
    )
    return model.eval()


def tokenizer_of(*, bos: bool = False, words: int = WORDS) -> Any:
    """One token a word `w0`, `w1`, …; `bos` puts the token 65 before every text."""
    tokenizers = _module("tokenizers")
    transformers = _module("transformers")
    vocabulary = {f"w{number}": number for number in range(words)} | {"<unk>": 64, "<s>": 65}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    if bos:
        backend.post_processor = tokenizers.processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 65)]
        )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", pad_token="<unk>"
    )


def text_of(words: int, start: int = 1) -> str:
    """A text of so many words."""
    return " ".join(f"w{(start + position * 7) % WORDS}" for position in range(words))


def _module(name: str) -> Any:
    """The module of that name; the test that asks is skipped where it is not installed."""
    if importlib.util.find_spec(name) is None:
        import pytest

        pytest.skip(f"{name} is not installed", allow_module_level=True)
    return importlib.import_module(name)
