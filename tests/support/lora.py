"""Small LoRA adapters made of bytes alone, as PEFT lays them out."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from memcube_protocol import tensors

CONFIG: Mapping[str, Any] = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": "acme/base-1b",
    "revision": None,
    "r": 2,
    "lora_alpha": 4,
    "target_modules": ["q_proj"],
    "bias": "none",
    "lora_dropout": 0.0,
    "a_field_of_tomorrow": {"x": 1},
}
A = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
B = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"
INNER_BIAS = ("base_model.model.model.layers.0.self_attn.q_proj.base_layer.bias", "F32", (6,))
BIAS = ("base_model.model.model.norm.bias", "F32", (8,))
SPECS: Sequence[tuple[str, str, tuple[int, ...]]] = ((A, "F32", (2, 8)), (B, "F32", (6, 2)))


def config_bytes(**changes: Any) -> bytes:
    """`adapter_config.json` with some fields changed."""
    return json.dumps({**CONFIG, **changes}).encode()


def lora_file(
    specs: Sequence[tuple[str, str, tuple[int, ...]]] = SPECS,
    metadata: Mapping[str, str] | None = None,
    value: float = 0.5,
) -> bytes:
    """`adapter_model.safetensors` whose float32 elements are all `value`."""
    header = tensors.write_header(specs, metadata)
    size = sum(tensors.size_bytes(dtype, shape) for _, dtype, shape in specs)
    return header + struct.pack("<f", value) * (size // 4) + bytes(size % 4)
