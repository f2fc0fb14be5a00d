"""What a live model, tokenizer or adapter differs in refuses a mount by the field's name, with what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from memcube.memories.activation.dump import dump_kv
from memcube.memories.activation.mount import mount_kv
from memcube_protocol.activation import KvManifest
from memcube_protocol.compatibility import CompatibilityKey
from memcube_protocol.errors import IncompatibleError
from support.models import model_of, text_of, tokenizer_of

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")

TEXT = text_of(30)
Given = tuple[Any, Any]
"""A model and a tokenizer."""


@pytest.fixture(scope="module")
def memory(tmp_path_factory) -> Path:
    """Made by the model of seed 0 without an adapter."""
    folder = tmp_path_factory.mktemp("cube")
    return dump_kv(model_of(), tokenizer_of(), text=TEXT, folder=folder, memory_id="kv")


def adapted(*names: str) -> Any:
    """The model of seed 0 under LoRAs of these names, all active in this order."""
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "k_proj"], init_lora_weights=False)
    torch.manual_seed(7)
    model = peft.get_peft_model(model_of(), config, names[0])
    for name in names[1:]:
        model.add_adapter(name, config)
    model.base_model.set_adapter(list(names))
    return model.eval()


def quantised() -> Any:
    model = model_of()
    model.config.quantization_config = {"quant_method": "made up", "bits": 8}
    return model


@contextmanager
def autocast() -> Iterator[None]:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        yield


@contextmanager
def nothing() -> Iterator[None]:
    yield


LIVE: dict[str, tuple[Callable[[], Given], Any, str]] = {
    "base": (
        lambda: (model_of(seed=1), tokenizer_of()),
        nothing,
        "very checkpoint that the memory was made with, or compute it anew (--rebuild)",
    ),
    "compute_dtype": (lambda: (model_of(), tokenizer_of()), autocast, "in the memory's dtype"),
    "weight_quantisation": (lambda: (quantised(), tokenizer_of()), nothing, "quantisation"),
    "architecture": (
        lambda: (model_of("mistral", sliding_window=5), tokenizer_of()),
        nothing,
        "layers, heads or windows differ",
    ),
    "rope": (
        lambda: (
            model_of(rope_parameters={"rope_type": "default", "rope_theta": 5e5}),
            tokenizer_of(),
        ),
        nothing,
        "RoPE configuration",
    ),
    "kv_dtype": (
        lambda: (model_of(dtype="bfloat16"), tokenizer_of()),
        nothing,
        "in the dtype of the memory's cache",
    ),
    "adapters": (lambda: (adapted("one"), tokenizer_of()), nothing, "unmount the adapter"),
    "tokenizer": (lambda: (model_of(), tokenizer_of(words=60)), nothing, "the tokenizer that"),
    "special_tokens": (
        lambda: (model_of(), tokenizer_of(bos=True)),
        nothing,
        "special-token policy",
    ),
    "tokens": (lambda: (model_of(), tokenizer_of(words=60)), nothing, "other tokens"),
    "token_count": (
        lambda: (model_of(), tokenizer_of(bos=True)),
        nothing,
        "another number of tokens",
    ),
}
"""Per field: a model and tokenizer that differ in it, under what they are used, and words of the remedy."""
FIXED = {"kv_quantisation", "position_offset", "post_rope"}
"""Fields that no live model has another value of: how a file is stored, and what can be mounted at all."""


def test_every_field_is_looked_at() -> None:
    assert LIVE.keys() | FIXED == {field.name for field in fields(CompatibilityKey)}


@pytest.mark.parametrize("field", LIVE)
def test_what_differs_is_named_and_the_hint_says_what_to_do(field: str, memory: Path) -> None:
    make, using, remedy = LIVE[field]
    model, tokenizer = make()
    with using(), pytest.raises(IncompatibleError, match=rf"\b{field} is .+ in the memory") as told:
        mount_kv(memory, model, tokenizer)
    assert remedy in (told.value.hint or "")


@pytest.fixture(scope="module")
def coupled(tmp_path_factory) -> Path:
    """Made under the adapters `one` and then `two`."""
    folder = tmp_path_factory.mktemp("cube")
    return dump_kv(adapted("one", "two"), tokenizer_of(), text=TEXT, folder=folder, memory_id="kv")


def scaled() -> Any:
    model = adapted("one", "two")
    for module in model.modules():
        if isinstance(getattr(module, "scaling", None), dict) and "one" in module.scaling:
            module.scaling["one"] *= 2
    return model


def switched_off() -> Any:
    model = adapted("one", "two")
    model.base_model.disable_adapter_layers()
    return model


def reordered() -> Any:
    model = adapted("one", "two")
    model.base_model.set_adapter(["two", "one"])
    return model


def one_of_two() -> Any:
    model = adapted("one", "two")
    model.base_model.set_adapter(["one"])
    return model


ADAPTERS: dict[str, tuple[Callable[[], Any], str]] = {
    "none is active": (model_of, "mount the LoRA memory"),
    "they are switched off": (switched_off, "mount the LoRA memory"),
    "one is missing": (one_of_two, "mount the LoRA memory"),
    "one has another scale": (scaled, "same scale"),
    "the order is another": (reordered, "same order"),
    "another one takes the place": (lambda: adapted("two"), "mount the LoRA memory"),
}


@pytest.mark.parametrize("case", ADAPTERS)
def test_other_adapters_than_when_it_was_made_refuse_the_mount(case: str, coupled: Path) -> None:
    make, remedy = ADAPTERS[case]
    with pytest.raises(IncompatibleError, match="adapters is ") as told:
        mount_kv(coupled, make(), tokenizer_of())
    assert remedy in (told.value.hint or "")


def test_the_same_adapters_mount_it(coupled: Path) -> None:
    mount_kv(coupled, adapted("one", "two"), tokenizer_of())


def test_a_merged_adapter_is_another_base(memory: Path) -> None:
    merged = adapted("one").merge_and_unload()
    with pytest.raises(IncompatibleError, match="base is "):
        mount_kv(memory, merged, tokenizer_of())


@pytest.mark.parametrize(
    ("field", "value", "remedy"),
    [("position_offset", 5, "position 0"), ("post_rope", False, "behind the rotation")],
)
def test_what_no_model_can_mount_is_refused(field, value, remedy, memory, tmp_path) -> None:
    manifest = KvManifest.parse((memory / "manifest.json").read_bytes())
    other = replace(manifest, key=replace(manifest.key, **{field: value}))
    (tmp_path / "manifest.json").write_bytes(other.to_bytes())
    for name in ("tokens.u32", "kv.safetensors"):
        (tmp_path / name).symlink_to(memory / name)
    with pytest.raises(IncompatibleError, match=f"{field} is ") as told:
        mount_kv(tmp_path, model_of(), tokenizer_of())
    assert remedy in (told.value.hint or "")


def test_how_it_is_stored_says_nothing_of_the_model(tmp_path: Path) -> None:
    model = model_of()
    folder = dump_kv(
        model,
        tokenizer_of(),
        text=TEXT,
        folder=tmp_path,
        memory_id="kv",
        storage="int8-token",
    )
    assert KvManifest.parse((folder / "manifest.json").read_bytes()).key.kv_quantisation != "none"
    mount_kv(folder, model, tokenizer_of())
