"""Hostile safetensors, where they would hurt: as a KV cache, as an adapter, as a checkpoint.

Each is refused with an error of ours before torch maps it as tensors; nothing runs, nothing is
half-mounted, and what a header claims is never allocated.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from conformance.memories.generate import rejected_files
from memcube.memories.activation.dump import dump_kv
from memcube.memories.activation.mount import mount_kv
from memcube.memories.model_identity import checkpoint_identity, live_identity
from memcube.memories.parametric.dump import dump_lora
from memcube.memories.parametric.mount import mount_lora
from memcube_protocol import activation, canonical_json, parametric, tensors
from memcube_protocol.activation import KvManifest
from memcube_protocol.errors import (
    IncompatibleError,
    InvalidTensorsError,
    LimitExceededError,
    MemcubeError,
    UnsupportedError,
)
from memcube_protocol.tensors import Rejection
from support.models import model_of, text_of, tokenizer_of

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")

HOSTILE = [pytest.param(content, id=name) for name, content in rejected_files()]


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.target),)


@pytest.fixture(scope="module")
def model() -> Any:
    return model_of()


@pytest.fixture(scope="module")
def memories(tmp_path_factory) -> Path:
    """A cube folder with a good KV memory and a good adapter."""
    folder = tmp_path_factory.mktemp("cube")
    dump_kv(model_of(), tokenizer_of(), text=text_of(300), folder=folder, memory_id="m")
    base = model_of()
    torch.manual_seed(4)
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    dump_lora(peft.get_peft_model(base, config), folder, memory_id="m")
    return folder


@pytest.fixture
def kv(memories, tmp_path) -> Path:
    return Path(shutil.copytree(memories / "activation" / "m", tmp_path / "kv"))


@pytest.fixture
def lora(memories, tmp_path) -> Path:
    return Path(shutil.copytree(memories / "parametric" / "m", tmp_path / "lora"))


@pytest.mark.parametrize("content", HOSTILE)
def test_a_hostile_file_is_refused_as_cache_adapter_and_checkpoint(
    content, model, kv, lora
) -> None:
    before = live_identity(model), list(model.state_dict())
    (kv / "kv.safetensors").write_bytes(content)
    (lora / "adapter_model.safetensors").write_bytes(content)
    checkpoint = kv.parent / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "model.safetensors").write_bytes(content)
    for act in (
        lambda: mount_kv(kv, model, tokenizer_of()),
        lambda: mount_lora(lora, model),
        lambda: checkpoint_identity(checkpoint),
    ):
        with pytest.raises((InvalidTensorsError, LimitExceededError)) as refusal:
            act()
        assert refusal.value.hint
    assert (live_identity(model), list(model.state_dict())) == before


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_renamed_to_safetensors_is_never_run(protocol, model, kv, lora) -> None:
    target = kv.parent / "executed"
    content = pickle.dumps(Bomb(target), protocol=protocol)
    (kv / "kv.safetensors").write_bytes(content)
    (lora / "adapter_model.safetensors").write_bytes(content)
    with pytest.raises(MemcubeError):
        mount_kv(kv, model, tokenizer_of())
    with pytest.raises(MemcubeError):
        mount_lora(lora, model)
    assert not target.exists()


def test_a_torch_archive_renamed_to_safetensors_is_called_what_it_is(model, lora) -> None:
    torch.save({"a": torch.zeros(2)}, lora / "adapter_model.safetensors")
    with pytest.raises(InvalidTensorsError, match="pickle") as refusal:
        mount_lora(lora, model)
    assert refusal.value.rejection == Rejection.PICKLE


def test_a_giant_header_is_refused_without_reading_it(model, lora) -> None:
    file = lora / "adapter_model.safetensors"
    with file.open("wb") as opened:
        opened.write(struct.pack("<Q", 100 * 2**20 + 1))
        opened.truncate(200 * 2**20)
    tracemalloc.start()
    with pytest.raises(LimitExceededError, match="safetensors header"):
        mount_lora(lora, model)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


def test_a_million_dimensions_and_tensors_of_nothing_end_soon(model, lora) -> None:
    started = time.monotonic()
    for value in (
        {"a": {"dtype": "U8", "shape": [1] * 100_000, "data_offsets": [0, 1]}},
        {f"t{n}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for n in range(20_000)},
    ):
        text = json.dumps(value).encode()
        content = struct.pack("<Q", len(text)) + text + b"x"
        (lora / "adapter_model.safetensors").write_bytes(content)
        with pytest.raises(InvalidTensorsError):
            mount_lora(lora, model)
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_an_adapter_that_is_not_finite_is_refused_and_the_model_untouched(
    value, model, lora
) -> None:
    file = lora / "adapter_model.safetensors"
    content = bytearray(file.read_bytes())
    content[-4:] = struct.pack("<f", value)
    file.write_bytes(content)
    before = live_identity(model), [type(module) for module in model.modules()]
    with pytest.raises(InvalidTensorsError, match="NaN, infinity or") as refusal:
        mount_lora(lora, model)
    assert refusal.value.rejection == Rejection.NOT_FINITE
    assert (live_identity(model), [type(module) for module in model.modules()]) == before


def rewrite(lora: Path, **changes: Any) -> None:
    file = lora / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_a_regular_expression_that_never_ends_is_never_matched(model, lora) -> None:
    rewrite(lora, target_modules="(.*)*(.*)*(.*)*x$", exclude_modules="(.*)*(.*)*(.*)*y$")
    started = time.monotonic()
    mount_lora(lora, model).unmount()
    assert time.monotonic() - started < 20
    rewrite(lora, rank_pattern={"(.*)*x": 2})
    with pytest.raises(UnsupportedError):
        mount_lora(lora, model)


def test_nothing_that_a_config_names_is_imported_or_fetched(model, lora) -> None:
    rewrite(
        lora,
        auto_mapping={"base_model_class": "Popen", "parent_library": "no_such_library"},
        base_model_name_or_path="https://127.0.0.1:9/model",
        megatron_core="no.such.module",
        loftq_config={"x": 1},
        runtime_config={"ephemeral_gpu_offload": True},
    )
    mount_lora(lora, model).unmount()


@pytest.mark.parametrize(
    "changes",
    [
        {"init_lora_weights": "pissa"},
        {"init_lora_weights": "corda"},
        {"bias": "every"},
        {"layer_replication": [[0, 3], [0, 3]]},
        {"target_parameters": ["weight"]},
        {"peft_type": "PROMPT_TUNING"},
    ],
)
def test_an_adapter_that_would_rewrite_the_base_is_refused(changes, model, lora) -> None:
    rewrite(lora, **changes)
    with pytest.raises(UnsupportedError):
        mount_lora(lora, model)


def test_an_adapter_for_modules_that_are_none_is_refused(model, lora) -> None:
    adapter = parametric.check(
        (lora / "adapter_config.json").read_bytes(),
        tensors.parse_header((lora / "adapter_model.safetensors").read_bytes()),
    )
    for path in ("__class__", "model", "model.layers", "model.layers.0.self_attn.q_proj.weight"):
        names = [f"base_model.model.{path}.lora_{half}.weight" for half in "AB"]
        specs = [(names[0], "F32", (2, 64)), (names[1], "F32", (64, 2))]
        content = tensors.write_header(specs, parametric.metadata(adapter.base)) + bytes(1024)
        (lora / "adapter_model.safetensors").write_bytes(content)
        with pytest.raises(InvalidTensorsError, match="no module"):
            mount_lora(lora, model, allow_unverified_base=True)


def test_a_manifest_that_claims_more_tokens_than_the_file_holds_allocates_nothing(
    model, kv
) -> None:
    value = json.loads((kv / "manifest.json").read_bytes())
    value["key"]["tokens"]["count"] = 2**24
    (kv / "manifest.json").write_bytes(canonical_json.dump(value))
    tracemalloc.start()
    with pytest.raises(MemcubeError):
        mount_kv(kv, model, tokenizer_of())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 32 * 2**20


@pytest.mark.parametrize("key", ["start", "size", "blockBytes"])
@pytest.mark.parametrize("value", [0, 1, 2**40, 2**53 - 1])
def test_block_hashes_of_other_places_are_refused(key, value, model, kv) -> None:
    manifest = json.loads((kv / "manifest.json").read_bytes())
    manifest["blocks"]["l1.v"][key] = value
    (kv / "manifest.json").write_bytes(canonical_json.dump(manifest))
    with pytest.raises(MemcubeError):
        mount_kv(kv, model, tokenizer_of())


def test_swapped_tensors_of_one_shape_are_found(model, kv) -> None:
    file = kv / "kv.safetensors"
    header = tensors.parse_header(file.read_bytes())
    content = bytearray(file.read_bytes())
    (a, b), (c, d) = (header.range_of(header.tensor(name)) for name in ("l0.k", "l1.k"))
    content[a:b], content[c:d] = content[c:d], content[a:b]
    file.write_bytes(content)
    with pytest.raises(MemcubeError, match="differs from its signed hash"):
        mount_kv(kv, model, tokenizer_of())


def test_the_cache_of_other_tokens_cannot_be_passed_off(model, kv, tmp_path) -> None:
    other = dump_kv(model, tokenizer_of(), text=text_of(300, 5), folder=tmp_path, memory_id="o")
    for name in ("tokens.u32", "manifest.json"):
        mixed = Path(shutil.copytree(kv, tmp_path / f"mixed-{name}"))
        shutil.copy(other / name, mixed / name)
        with pytest.raises(MemcubeError):
            mount_kv(mixed, model, tokenizer_of())


def test_a_cache_that_claims_this_models_identity_has_to_be_hashed_as_such(kv) -> None:
    """The key is signed with the cube; a model of other weights is hashed, not believed."""
    impostor = model_of(seed=9)
    impostor.config._name_or_path = "acme/base"
    with pytest.raises(IncompatibleError, match="base is "):
        mount_kv(kv, impostor, tokenizer_of())


@pytest.mark.parametrize("name", ["kv.safetensors", "tokens.u32", "manifest.json"])
def test_a_pipe_or_folder_in_the_place_of_a_file_does_not_block(name, model, kv) -> None:
    (kv / name).unlink()
    os.mkfifo(kv / name)
    with pytest.raises(MemcubeError):
        mount_kv(kv, model, tokenizer_of())
    (kv / name).unlink()
    (kv / name).mkdir()
    with pytest.raises(MemcubeError):
        mount_kv(kv, model, tokenizer_of())


def test_a_tokens_file_or_manifest_above_the_limit_is_refused(model, kv) -> None:
    with (kv / "tokens.u32").open("r+b") as opened:
        opened.truncate(4 * (2**24 + 1))
    with pytest.raises(LimitExceededError):
        mount_kv(kv, model, tokenizer_of())
    manifest = KvManifest.parse((kv / "manifest.json").read_bytes())
    assert len(manifest.to_bytes()) < activation.limits.KV_MANIFEST_BYTES
    with (kv / "manifest.json").open("r+b") as opened:
        opened.truncate(2**40)
    with pytest.raises(LimitExceededError):
        mount_kv(kv, model, tokenizer_of())
