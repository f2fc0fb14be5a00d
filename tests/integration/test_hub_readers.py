"""What users of the Hub do with a cube there: download it, load its adapter, read its records and its card."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.hub import HubServer
from support.hub_library import HubLibrary, both_versions
from support.hub_machine import tolerant, write_notes
from support.machine import Machine
from support.models import model_of

DATASETS = Path("/usr/local/lib/hf-datasets/bin/python")
READ_RECORDS = """
import json, sys
import datasets
found = datasets.load_dataset(sys.argv[1], revision=sys.argv[2], split="train")
print(json.dumps([[row["id"], row["text"]] for row in found]))
"""
LOAD = """
import torch, transformers
from peft import PeftModel
base, cube, subfolder = sys.argv[1:]
model = transformers.AutoModelForCausalLM.from_pretrained(base)
model = PeftModel.from_pretrained(model, cube, subfolder=subfolder or None, revision="1.0.0").eval()
with torch.inference_mode():
    say(model(input_ids=torch.tensor([[1, 2, 3, 4]])).logits.double().sum().item())
"""
pytestmark = [
    tolerant,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated"),
]


def metadata_of(readme: str) -> dict[str, Any]:
    _, block, _ = readme.split("---\n", 2)
    found: dict[str, Any] = yaml.safe_load(block)
    return found


@both_versions
@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_hf_download_brings_every_file_as_the_cube_holds_it(
    hub: HubServer, hub_publisher: Machine, tmp_path: Path, python: Path, kind: str
) -> None:
    prefix = "" if kind == "model" else "datasets/"
    card = "---\ntags: [mine]\n---\n# Notes\n"
    folder = write_notes(tmp_path / "notes", "1.0.0", card=card)
    (folder / "attachments").mkdir()
    (folder / "attachments" / "plan.txt").write_text("The plan.")
    hub_publisher.ok("push", folder, f"hf://{prefix}ada/notes", "--public")
    hub_publisher.ok("unpack", f"hf://{prefix}ada/notes", tmp_path / "ours")
    library = HubLibrary(python, hub.url, tmp_path / "hf")
    target = tmp_path / "theirs"
    done = library.hf(
        *("download", "ada/notes", f"--repo-type={kind}", "--revision=1.0.0"),
        *("--local-dir", str(target)),
    )
    assert done.returncode == 0, done.stderr
    assert (target / "attachments" / "plan.txt").read_text() == "The plan."
    manifest = json.loads((target / ".memcube" / "manifest.json").read_text())
    for layer in manifest["layers"]:
        path = layer["annotations"]["org.opencontainers.image.title"]
        hexed = layer["digest"].partition(":")[2]
        lies_at = f".memcube/blobs/sha256/{hexed}" if path == "README.md" else path
        assert (target / lies_at).stat().st_size == layer["size"]
        assert (target / lies_at).read_bytes() == (tmp_path / "ours" / path).read_bytes()
    shown = (target / "README.md").read_text()
    assert "# Notes" in shown
    assert "mine" not in shown, "the card's own metadata does not stand beside ours"


def test_the_card_tells_the_hub_what_the_cube_says_of_itself(
    hub: HubServer, hub_publisher: Machine, tmp_path: Path
) -> None:
    hub_publisher.ok("push", write_notes(tmp_path / "n", "1.0.0"), "hf://datasets/ada/notes")
    made = hub.state.of("dataset", "ada/notes")
    shown = hub.state.content(made, made.head.files["README.md"]).decode()
    assert metadata_of(shown) == {
        "license": "cc-by-4.0",
        "language": ["en"],
        "tags": ["memcube", "ops"],
        "pretty_name": "Notes",
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": "train", "path": "plaintext/*.jsonl.zst"}],
            }
        ],
    }
    assert "memcube pull hf://datasets/ada/notes" in shown


@pytest.mark.skipif(not DATASETS.exists(), reason="run .ci/datasets for the library datasets")
def test_the_library_datasets_reads_the_records_by_the_cards_own_configuration(
    hub: HubServer, hub_publisher: Machine, tmp_path: Path
) -> None:
    hub_publisher.ok(
        "push", write_notes(tmp_path / "n", "1.0.0"), "hf://datasets/ada/notes", "--public"
    )
    environment = hub.environment(home=tmp_path / "hf")
    done = subprocess.run(
        [DATASETS, "-c", READ_RECORDS, "ada/notes", "1.0.0"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    rows = json.loads(done.stdout.splitlines()[-1])
    assert sorted(rows) == [[f"r{n}", f"Backups run at two. {n}"] for n in range(5)]


def test_peft_loads_the_adapter_from_the_repository_and_from_the_pulled_cube(
    hub: HubServer, hub_publisher: Machine, hub_reader: Machine, tmp_path: Path
) -> None:
    torch, peft = pytest.importorskip("torch"), pytest.importorskip("peft")
    base, target = tmp_path / "base", tmp_path / "cube" / "parametric" / "style"
    model: Any = model_of()
    model.save_pretrained(base)
    config = peft.LoraConfig(target_modules=["q_proj", "v_proj"], r=4, init_lora_weights=False)
    torch.manual_seed(3)
    tuned = peft.get_peft_model(model, config).eval()
    tuned.save_pretrained(target)
    settings = json.loads((target / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = "acme/base-1b"
    (target / "adapter_config.json").write_text(json.dumps(settings))
    (target / "README.md").unlink(missing_ok=True)
    (tmp_path / "cube" / "memcube.toml").write_text('name = "ada/style"\nversion = "1.0.0"\n')
    with torch.inference_mode():
        total = tuned(input_ids=torch.tensor([[1, 2, 3, 4]])).logits.double().sum().item()
    hub_publisher.ok("push", tmp_path / "cube", "hf://ada/style", "--public")
    made = hub.state.of("model", "ada/style")
    shown = hub.state.content(made, made.head.files["README.md"]).decode()
    told = metadata_of(shown)
    assert (told["library_name"], told["base_model"]) == ("peft", "acme/base-1b")
    library = HubLibrary(Path(sys.executable), hub.url, tmp_path / "hf")
    for subfolder in ("", "parametric/style"):
        loaded = library.run(LOAD, str(base), "ada/style", subfolder)
        assert loaded == pytest.approx(total, rel=1e-6)
    pulled = hub_reader.ok("path", "hf://ada/style", "--memory", "style").strip()
    again = peft.PeftModel.from_pretrained(model_of(), pulled).eval()
    with torch.inference_mode():
        mine = again(input_ids=torch.tensor([[1, 2, 3, 4]])).logits.double().sum().item()
    assert mine == pytest.approx(total, rel=1e-6)
