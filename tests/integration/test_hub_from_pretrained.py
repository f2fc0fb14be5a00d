"""transformers and peft load from our registry by its names, as from the Hub."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import Person, fresh
from support.folders import push_files
from support.hub_library import HubLibrary
from support.machine import Machine
from support.models import model_of

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")

IDS = [[1, 2, 3, 4]]
LOAD = """
import torch, transformers
from peft import PeftModel
base, cube, subfolder, revision = sys.argv[1:]
model = transformers.AutoModelForCausalLM.from_pretrained(base)
model = PeftModel.from_pretrained(model, cube, subfolder=subfolder or None, revision=revision).eval()
with torch.inference_mode():
    say(model(input_ids=torch.tensor([[1, 2, 3, 4]])).logits.double().sum().item())
"""


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, float]:
    """Folders of a base model and of an adapter for it, and the sum of the logits of both together."""
    folder = tmp_path_factory.mktemp("models")
    base, adapter = folder / "base", folder / "adapter"
    model: Any = model_of()
    model.save_pretrained(base)
    config = peft.LoraConfig(target_modules=["q_proj", "v_proj"], r=4, init_lora_weights=False)
    torch.manual_seed(3)
    tuned = peft.get_peft_model(model, config).eval()
    tuned.save_pretrained(adapter)
    with torch.inference_mode():
        total = tuned(input_ids=torch.tensor(IDS)).logits.double().sum().item()
    return base, adapter, total


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def library_of(person: Person, home: Path) -> HubLibrary:
    return HubLibrary(Path(sys.executable), person.server.url, home, person.token)


def test_a_model_and_its_adapter_come_from_the_registry(
    ada: Person, adapted: tuple[Path, Path, float], tmp_path: Path
) -> None:
    base, adapter, total = adapted
    model = push_files(ada.repository(fresh("base")), files_of(base), "latest")
    lora = push_files(ada.repository(fresh("lora")), files_of(adapter), "1.0.0")
    loaded = library_of(ada, tmp_path).run(LOAD, model.name, lora.name, "", "1.0.0")
    assert loaded == pytest.approx(total, rel=1e-6)


def test_the_adapter_in_a_released_cube_loads_from_its_folder(
    ada: Person, adapted: tuple[Path, Path, float], tmp_path: Path
) -> None:
    base, adapter, total = adapted
    name = f"{ada.name}/{fresh('style')}"
    source = tmp_path / "cube"
    target = source / "parametric" / "style"
    target.mkdir(parents=True)
    for file, content in files_of(adapter).items():
        if file != "README.md":
            (target / file).write_bytes(content)
    (source / "memcube.toml").write_text(f'name = "{name}"\nversion = "1.0.0"\n')
    pushed = Machine(tmp_path / "home", ada.server.url, ada.token).json("push", source)
    library = library_of(ada, tmp_path / "hf")
    for revision in ("1.0.0", "main", pushed["digest"]):
        loaded = library.run(LOAD, str(base), name, "parametric/style", revision)
        assert loaded == pytest.approx(total, rel=1e-6)
