"""Every command and every line of Python of the guide "Mount a cube" runs."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from memcube.dumper import MemDumper
from memcube_protocol.records import Record
from support.machine import Machine
from support.models import model_of, text_of, tokenizer_of

pytest.importorskip("qdrant_edge")
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
GUIDE = (Path(__file__).parents[2] / "docs" / "guide" / "mount-a-cube.md").read_text("utf-8")


def small(seed: int) -> Any:
    return model_of(seed=seed, num_hidden_layers=1)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """Two cubes and two checkpoints, as the guide supposes them."""
    place = tmp_path_factory.mktemp("guide")
    machine = Machine(place / "home", "http://127.0.0.1:9")
    for name, model in (("model", small(1)), ("other-model", small(2))):
        model.save_pretrained(place / name)
        tokenizer_of().save_pretrained(place / name)
    for name, words in (("alice/notes", 12), ("acme/handbook", 9)):
        dumper = MemDumper(place / name.partition("/")[2], name=name, version="1.0.0")
        dumper.add_records([Record(id="ferry", text=f"The ferry of {name} leaves at {words}.")])
        dumper.add_kv(small(1), tokenizer_of(), memory_id="manual", text=text_of(words))
        machine.ok("pack", dumper.folder)
    return machine


def test_every_command_does_what_the_guide_says(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(machine.home.parent)
    blocks = re.findall(r"^```sh\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    assert len(lines) == 7
    told = {line: machine.ok(*shlex.split(line)[1:]) for line in lines}
    records, model, several, composed, planned, planned_json, rebuilt = told.values()
    assert "alice/notes leaves at 12" in records
    assert "12 tokens, every field of the key equal" in model
    assert "cube: acme/handbook:1.0.0" in several
    assert "approximate" in composed
    assert "loading pays above" in planned
    assert "would fetch 0 B" in planned
    assert '"act": "prefill"' in planned_json
    assert "rebuilt" in rebuilt


def test_the_python_of_the_guide_runs(machine: Machine) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    names: dict[str, Any] = {"model": small(1), "tokenizer": tokenizer_of()}
    with mock.patch.dict(os.environ, machine.environment, clear=True):
        for block in blocks:
            exec(block, names)
    assert names["first"].record.id == "ferry"
