"""PEFT adapters on tiny models, and what a model looks like from outside."""

from __future__ import annotations

from typing import Any

import pytest
from memcube.memories.model_identity import live_identity

from support.models import model_of

IDS = [[1, 2, 3, 4]]


def adapted(dtype: str = "float32", seed: int = 1, **options: Any) -> Any:
    """A PeftModel whose adapter changes the answers."""
    peft, torch = pytest.importorskip("peft"), pytest.importorskip("torch")
    values = {"target_modules": "all-linear", "r": 4, "init_lora_weights": False, **options}
    config, model = peft.LoraConfig(**values), model_of(dtype=dtype)
    torch.manual_seed(seed)
    return peft.get_peft_model(model, config, autocast_adapter_dtype=False).eval()


def logits(model: Any) -> Any:
    torch = pytest.importorskip("torch")
    with torch.inference_mode():
        return model(input_ids=torch.tensor(IDS)).logits


def footprint(model: Any) -> tuple[Any, ...]:
    """Everything that mounting could leave behind."""
    return (
        live_identity(model),
        list(model.state_dict()),
        [(path, type(module), id(module)) for path, module in model.named_modules()],
        [(tensor.data_ptr(), tensor.requires_grad) for tensor in model.parameters()],
        [module.training for module in model.modules()],
        set(vars(model)),
        model.config.to_json_string(),
    )
