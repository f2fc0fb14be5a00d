"""Every command of the guide to building for another model runs, in its order, on a model of random weights."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Person
from memcube.dumper import MemDumper
from memcube_protocol.recipe import Recipe
from memcube_protocol.records import Record
from support.machine import Machine
from support.models import model_of, text_of, tokenizer_of

pytest.importorskip("qdrant_edge")
peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings(
    "ignore:.is_gradient_checkpointing:FutureWarning", "ignore:.*TypedStorage:UserWarning"
)
GUIDE = (Path(__file__).parents[2] / "docs" / "guide" / "build-for-another-model.md").read_text(
    "utf-8"
)


@pytest.fixture(scope="module")
def ada(new_person: Callable[[], Person]) -> Person:
    """Somebody who has nothing at the registry yet: the guide's cubes have names of their own."""
    return new_person()


@pytest.fixture(scope="module")
def machine(ada: Person, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Ada's machine in a folder with the model and the questions of the guide, its cubes pushed."""
    folder = tmp_path_factory.mktemp("guide")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        model, tokenizer = model_of(), tokenizer_of()
        model.save_pretrained("model")
        tokenizer.save_pretrained("model")
        questions = [{"question": text_of(3, n), "answer": text_of(1, n)} for n in range(3)]
        lines = "".join(json.dumps(one) + "\n" for one in questions)
        Path("questions.jsonl").write_text(lines)
        notes, style = (MemDumper(name, name=f"{ada.name}/{name}") for name in ("notes", "style"))
        notes.add_records(Record(id=f"r{n}", text=text_of(4, n)) for n in range(3))
        config = peft.LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
        style.add_lora(peft.get_peft_model(model, config), memory_id="style")
        machine = Machine(folder / "home", ada.server.url, ada.token)
        for name in ("notes", "style"):
            machine.ok("push", name)
        yield machine


def test_the_commands_of_the_guide_do_what_it_says(ada: Person, machine: Machine) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("alice/", f"{ada.name}/").splitlines()
    assert len(lines) >= 8
    for line in lines:
        words = shlex.split(line)[1:]
        if words[0] == "build":  # random weights recall nothing, and are sure of nothing
            words = ["build", "--accept", *words[1:]]
            words = ["0" if word == "0.3" else word for word in words]
        done = machine.run(*words)
        assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
    recipe = Recipe.parse(Path("recipe.json").read_bytes())
    assert recipe.method == "encode"
    again = machine.json(
        "build", f"{ada.name}/notes", "--for", "model", "--accept", "--recipe", "recipe.json"
    )
    assert again["digest"] == done.stdout.partition("Digest: ")[2].split()[0]
    assert again["made"]["recipe"] == recipe.to_json()
    assert again["memory"]["id"] == "notes-kv"
    asked = ("--for", "model", "--accept", "--again", again["digest"])
    assert "to the bit" in machine.ok("build", f"{ada.name}/notes", *asked)
    listed = machine.ok("builds", f"{ada.name}/notes")
    assert f"made here  {again['digest']}" in listed
    pulled = machine.ok("pull", f"{ada.name}/notes", "--for", "model")
    assert pulled.count("Build: ") == len(listed.splitlines()) - 1
    missing = ("--for", "model", "--again", "sha256:" + "0" * 64)
    assert "memcube builds" in machine.fails(4, "build", f"{ada.name}/notes", *missing)


def test_what_a_build_lacks_is_told_before_a_model_is_loaded(machine: Machine, ada: Person) -> None:
    name = f"{ada.name}/notes"
    assert "--kind" in machine.fails(2, "build", name, "--for", "model")
    assert "a model is needed" in machine.fails(8, "build", name, "--kind", "activation")
    assert "it has" in machine.fails(4, "build", name, "--kind", "plaintext", "--for", "model")
    Path("empty.jsonl").write_text("\n")
    asked = ("--for", "model", "--questions", "empty.jsonl")
    assert "0 questions" in machine.fails(8, "build", name, "--kind", "activation", *asked)
    useless = machine.fails(
        9, "build", name, "--kind", "activation", "--for", "model", "--questions", "questions.jsonl"
    )
    assert "--accept" in useless
