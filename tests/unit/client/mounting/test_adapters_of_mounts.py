"""The adapters of mounted cubes: named by memory, described by their cubes, checked once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from memcube.client import Client
from memcube.dumper import MemDumper
from memcube.memories.model_identity import live_identity
from memcube.memories.parametric import files as parametric_files
from memcube.memories.turns import asking, turn
from memcube.mounting import Step
from memcube.settings import Settings
from memcube_protocol.errors import ConflictError
from support.adapters import adapted, footprint, logits
from support.biased import base_of_shape, trained
from support.models import model_of, tokenizer_of

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")

A_WHILE_S = 0.3
"""So long what must wait gets to come too early; it gets nothing done by being slow."""
CUBES = {
    "alice/law": ("Contracts, leases and claims", 1),
    "bob/heart": ("Arrhythmia and its drugs", 2),
}


@pytest.fixture(scope="module")
def client(tmp_path_factory) -> Iterator[Client]:
    home = tmp_path_factory.mktemp("home")
    with Client(Settings.load({"MEMCUBE_HOME": str(home), "MEMCUBE_KEYRING": "0"})) as client:
        for name, (summary, seed) in CUBES.items():
            dumper = MemDumper(home / "cubes" / name, name=name, version="1.0.0")
            dumper.add_lora(adapted(seed=seed), memory_id="expert")
            toml = dumper.folder / "memcube.toml"
            toml.write_text(f'{toml.read_text()}summary = "{summary}"\n')
            client.pack(dumper.folder)
        yield client


@pytest.fixture(scope="module")
def model() -> Any:
    return model_of()


def test_experts_of_several_cubes_take_the_questions_that_are_theirs(client, model) -> None:
    before = footprint(model)
    with client.mount(list(CUBES), model=model, tokenizer=tokenizer_of()) as memory:
        first, second = (state.name for state in memory.adapters.list())
        assert first == "expert"
        assert second.endswith("bob/heart:1.0.0#expert")
        for question, seed, name in (("two leases", 1, first), ("drugs", 2, second)):
            (choice,) = memory.adapters.route(question)
            assert choice.name == name
            assert torch.equal(logits(model), logits(adapted(seed=seed)))
        memory.adapters.combine({first: 0.5, second: 0.5})
    assert footprint(model) == before


def test_a_switch_that_waited_goes_by_the_adapters_that_are_left(client, model) -> None:
    """The other memory is unmounted while a question holds both up."""
    before, waited = footprint(model), threading.Event()
    mounted = partial(client.mount, model=model, tokenizer=tokenizer_of())
    other, memory = mounted("alice/law"), mounted("bob/heart")
    with memory, ThreadPoolExecutor(2) as threads:
        with asking(model):
            closing = threads.submit(other.close)
            waited.wait(A_WHILE_S)
            switching = threads.submit(memory.adapters.switch, "expert")
            waited.wait(A_WHILE_S)
            assert not closing.done()
            assert not switching.done()
        closing.result()
        switching.result()
        assert torch.equal(logits(model), logits(adapted(seed=2)))
    assert footprint(model) == before


def test_adapters_are_combined_while_nothing_is_being_mounted(client, model) -> None:
    """A mount that fails puts back the modules that it saw first, and would take the combination off."""
    waited = threading.Event()
    with (
        client.mount("alice/law", model=model, tokenizer=tokenizer_of()) as memory,
        ThreadPoolExecutor(1) as threads,
    ):
        with turn(model):
            combining = threads.submit(memory.adapters.combine, {"expert": 0.5}, name="half")
            waited.wait(A_WHILE_S)
            assert not combining.done()
        assert combining.result() == "half"


def test_a_second_mount_reads_no_adapter_through(client, model, monkeypatch) -> None:
    client.mount("alice/law", model=model, tokenizer=tokenizer_of()).close()
    monkeypatch.setattr(parametric_files, "require_bounded", None)
    with client.mount("alice/law", model=model, tokenizer=tokenizer_of()) as memory:
        assert memory.adapters.list()[0].level == "exact"
        assert torch.equal(logits(model), logits(adapted(seed=1)))


def test_an_adapter_that_two_cubes_carry_is_mounted_once(client, model, tmp_path) -> None:
    dumper = MemDumper(tmp_path / "fork", name="carol/law", version="1.0.0")
    dumper.add_lora(adapted(seed=1), memory_id="forked")
    client.pack(dumper.folder)
    names = ["alice/law", "carol/law"]
    with client.mount(names, model=model, tokenizer=tokenizer_of()) as memory:
        assert [step.step for step in memory.steps] == [Step.MOUNTED, Step.SKIPPED]
        assert torch.equal(logits(model), logits(adapted(seed=1)))
        with pytest.raises(ConflictError):
            client.mount("carol/law", model=model, tokenizer=tokenizer_of())
    assert torch.equal(logits(model), logits(model_of()))


def test_of_two_cubes_with_biases_the_second_is_left_out_and_told(client, tmp_path) -> None:
    model = base_of_shape("qwen2")
    names, before = ["alice/biased", "bob/biased"], footprint(model)
    for seed, name in enumerate(names):
        dumper = MemDumper(tmp_path / name, name=name, version="1.0.0")
        dumper.add_lora(
            trained("qwen2", "all", seed), memory_id="expert", base_identity=live_identity(model)
        )
        client.pack(dumper.folder)
    with client.mount(names, model=model, tokenizer=tokenizer_of()) as memory:
        first, second = memory.steps
        assert (first.step, second.step) == (Step.MOUNTED, Step.SKIPPED)
        assert "only one adapter with biases" in second.why
        assert torch.equal(logits(model), logits(trained("qwen2", "all", 0)))
    assert footprint(model) == before


def test_without_a_model_there_are_no_adapters_to_speak_of(client, tmp_path) -> None:
    dumper = MemDumper(tmp_path / "cube", name="alice/notes", version="1.0.0")
    dumper.add_records(["The ferry leaves at nine."])
    client.pack(dumper.folder)
    with client.mount("alice/notes") as memory:
        assert memory.adapters.list() == ()
