"""Models with biases and without, and PeftModels that were trained with their biases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from support.models import SHAPE, model_of

LINEAR = {
    "qwen2": ["q_proj", "v_proj", "up_proj"],
    "gpt2": ["c_attn", "c_fc"],
    "llama": ["q_proj", "up_proj"],
}


def base_of_shape(shape: str, dtype: str = "float32") -> Any:
    """A model of two layers: biases in attention (qwen2), everywhere and in norms (gpt2), or none (llama)."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    if shape == "llama":
        return model_of("llama", dtype, num_hidden_layers=2)
    if shape == "gpt2":
        sizes = {"vocab_size": 80, "n_embd": 32, "n_layer": 2, "n_head": 2}
        config = transformers.GPT2Config(**sizes, bos_token_id=None, eos_token_id=None)
    else:
        small = {key: value for key, value in SHAPE.items() if key != "head_dim"}
        config = transformers.Qwen2Config(**{**small, "num_hidden_layers": 2})
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    fill(model, lambda name: name.endswith(".bias"))
    return model.eval()


def fill(model: Any, is_meant: Callable[[str], bool]) -> None:
    """Random numbers into the parameters whose names are meant: new models have biases of zero."""
    torch = pytest.importorskip("torch")
    for name, tensor in model.named_parameters():
        if is_meant(name):
            tensor.data = torch.randn_like(tensor, dtype=torch.float32).to(tensor.dtype)


def trained(shape: str, bias: str, seed: int = 1, dtype: str = "float32", **options: Any) -> Any:
    """A PeftModel as if it had been trained with `bias`."""
    peft, torch = pytest.importorskip("peft"), pytest.importorskip("torch")
    values = {"target_modules": LINEAR[shape], "r": 4, "init_lora_weights": False, **options}
    config = peft.LoraConfig(bias=bias, fan_in_fan_out=shape == "gpt2", **values)
    base = base_of_shape(shape, dtype)
    torch.manual_seed(seed)
    model = peft.get_peft_model(base, config, autocast_adapter_dtype=False).eval()
    learned = {name for name, tensor in model.named_parameters() if tensor.requires_grad}
    fill(model, lambda name: name in learned and name.endswith(".bias"))
    return model
