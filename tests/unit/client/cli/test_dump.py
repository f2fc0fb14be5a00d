"""`memcube dump` of a KV cache: under the cube's own adapters, as a mount will put them on before it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from memcube_protocol.activation import KvManifest
from support.machine import Machine
from support.models import model_of, text_of, tokenizer_of

peft = pytest.importorskip("peft")
pytest.importorskip("qdrant_edge")
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint `model`, `other` of another seed, a text, and an adapter for each model."""
    folder = tmp_path_factory.mktemp("given")
    for name, seed in (("model", 0), ("other", 9)):
        model_of(seed=seed).save_pretrained(folder / name)
        tokenizer_of().save_pretrained(folder / name)
        config: Any = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
        peft.get_peft_model(model_of(seed=seed), config).save_pretrained(folder / f"lora-{name}")
    (folder / "text.txt").write_text(text_of(20))
    return folder


@pytest.fixture
def machine(tmp_path: Path, given: Path) -> Machine:
    """A user with a cube folder that holds an adapter for each of the two models."""
    made = Machine(tmp_path / "home", "http://127.0.0.1:9", more={"MEMCUBE_OFFLINE": "1"})
    for name in ("model", "other"):
        words = ("--adapter", given / f"lora-{name}", "--model", given / name)
        made.ok("dump", tmp_path / "cube", f"for-{name}", *words)
    return made


def dump(machine: Machine, given: Path, *more: str) -> str:
    cube = machine.home.parent / "cube"
    words = ("--model", given / "model", "--text", given / "text.txt")
    return machine.ok("dump", cube, "handbook", *words, *more)


def packed(machine: Machine) -> str:
    machine.ok("pack", machine.home.parent / "cube", "--name", "alice/notes", "--version", "1.0.0")
    return "alice/notes:1.0.0"


def test_a_cache_is_made_under_the_adapter_that_fits_and_mounts_behind_it(
    machine: Machine, given: Path, tmp_path: Path
) -> None:
    told = dump(machine, given)
    assert "made under the adapter for-model" in told
    assert "made without the adapter for-other: it is not known" in told
    raw = (tmp_path / "cube/activation/handbook/manifest.json").read_bytes()
    manifest = KvManifest.parse(raw)
    assert manifest.information["adapterMemories"] == ["for-model"]
    assert len(manifest.key.adapters) == 1
    found = machine.json("mount", packed(machine), "--model", given / "model")["steps"]
    steps = {one["memory"]: one["step"] for one in found}
    assert steps == {"handbook": "mounted", "for-model": "mounted", "for-other": "refused"}


def test_a_cache_of_the_model_alone_does_not_mount_behind_the_adapter(
    machine: Machine, given: Path, tmp_path: Path
) -> None:
    assert "adapter" not in dump(machine, given, "--model-alone")
    raw = (tmp_path / "cube/activation/handbook/manifest.json").read_bytes()
    assert not KvManifest.parse(raw).key.adapters
    done = machine.run("mount", packed(machine), "--model", given / "model")
    assert done.returncode
    assert "handbook" in done.stderr
    assert "adapters" in done.stderr
