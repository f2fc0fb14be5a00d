"""A mount fetches what its plan wants and nothing else, and a dry run no layer at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Person, fresh
from memcube.client import Client
from memcube.dumper import MemDumper
from memcube.mounting import Act, Step
from memcube_protocol.errors import NotFoundError
from support.machine import Machine, client_on
from support.models import model_of, text_of, tokenizer_of

pytest.importorskip("qdrant_edge")
peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")


def small() -> Any:
    return model_of(num_hidden_layers=1)


@pytest.fixture(scope="module")
def name(ada: Person, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A cube with records, an adapter, and a KV cache made under the plain model, at the registry."""
    home = tmp_path_factory.mktemp("publisher")
    name = f"{ada.name}/{fresh('mounted')}"
    dumper = MemDumper(home / "cube", name=name, version="1.0.0")
    dumper.add_records(["The ferry to Hiiumaa leaves at nine."])
    dumper.add_kv(small(), tokenizer_of(), memory_id="handbook", text=text_of(30))
    other = model_of(seed=5, num_hidden_layers=1)
    dumper.add_kv(other, tokenizer_of(), memory_id="others", text=text_of(9))
    Machine(home / "home", ada.server.url, ada.token).ok("push", dumper.folder, "--public")
    return name


@pytest.fixture
def reader(bob: Person, tmp_path: Path) -> Iterator[Client]:
    with client_on(tmp_path / "home", bob) as client:
        yield client


def held(client: Client, name: str) -> set[str]:
    """Paths of the cube's layers that the store holds."""
    cube = client.open(name, filters=["kind=card"]).cube
    return {file.path for file in cube.files if client.context.store.has(file.digest, file.size)}


def test_a_dry_run_fetches_no_layer_and_tells_of_the_bytes(reader: Client, name: str) -> None:
    planned = reader.plan(name, model=small(), tokenizer=tokenizer_of())
    told = {choice.offer.memory: choice for choice in planned.choices}
    assert told["handbook"].act is Act.LOAD
    assert told["handbook"].fetch_bytes > 30 * 2 * 2 * 16 * 4
    assert "whose speed is not measured yet" in told["handbook"].why
    assert "its manifest is here" in told["handbook"].why
    assert told["others"].act is Act.LEAVE
    assert "base" in told["others"].why
    assert told["plaintext"].act is Act.RETRIEVE
    assert planned.fetch_bytes == told["handbook"].fetch_bytes + told["plaintext"].fetch_bytes
    assert held(reader, name) <= {"README.md"}


def test_without_a_model_only_records_and_manifests_come(reader: Client, name: str) -> None:
    with reader.mount(name) as memory:
        assert "Hiiumaa" in memory.context("When does the ferry leave?")
        assert text_of(30) in memory.prefix_text
        assert [step.step for step in memory.steps] == [Step.PREFIX, Step.PREFIX, Step.MOUNTED]
    came = held(reader, name)
    assert not {path for path in came if path.endswith((".safetensors", ".u32"))}
    assert {path for path in came if path.endswith("manifest.json")} == {
        "activation/handbook/manifest.json",
        "activation/others/manifest.json",
    }


def test_with_a_model_comes_what_fits_it_and_the_rest_stays_where_it_is(
    reader: Client, name: str
) -> None:
    with reader.mount(name, model=small(), tokenizer=tokenizer_of()) as memory:
        assert len(memory.prefix_ids) == 30
        assert {step.memory: step.step for step in memory.steps} == {
            "handbook": Step.MOUNTED,
            "others": Step.REFUSED,
            "plaintext": Step.MOUNTED,
        }
    assert not {path for path in held(reader, name) if path.startswith("activation/others/")}


def test_what_was_mounted_is_mounted_again_without_a_network(
    reader: Client, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with reader.mount(name, filters=["kind=plaintext"]):
        pass

    def no_network(*_: Any) -> Any:
        raise AssertionError("the registry was asked")

    monkeypatch.setattr(reader.context, "remote", no_network)
    with reader.mount(name, filters=["kind=plaintext"]) as memory:
        assert memory.search("ferry")
    with pytest.raises(AssertionError, match="asked"):
        reader.mount(name, model=small(), tokenizer=tokenizer_of())


def test_of_a_beginning_no_more_is_fetched(reader: Client, name: str) -> None:
    asked: dict[str, Any] = {"model": small(), "tokenizer": tokenizer_of(), "prefix_tokens": 7}
    filters = ["kind=activation"]
    planned = reader.plan(name, filters=filters, **asked)
    whole = reader.plan(name, model=asked["model"], tokenizer=asked["tokenizer"], filters=filters)
    assert planned.fetch_bytes < whole.fetch_bytes / 3
    with reader.mount(name, filters=filters, **asked) as memory:
        assert len(memory.prefix_ids) == 7
        assert memory.prefix_text == ""
        assert memory.generate("w1 w2", context="", max_new_tokens=2)
        told = next(step.why for step in memory.steps if step.memory == "handbook")
    assert told.startswith("the first 7 of 30 tokens")
    assert "activation/handbook/kv.safetensors" not in held(reader, name)


def test_how_fast_a_registry_was_is_known_to_the_next_plan(
    reader: Client, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memcube.speeds._SHORT_BYTES", 1)
    with reader.mount(name, filters=["kind=plaintext"]):
        pass
    host = reader.context.settings.endpoint.host
    assert [*reader.context.speeds.load().networks] == [host]
    planned = reader.plan(name, model=small(), tokenizer=tokenizer_of())
    told = next(one for one in planned.choices if one.offer.memory == "handbook")
    assert f"from {host} at " in told.why


def test_offline_says_what_is_lacking(reader: Client, name: str) -> None:
    with reader.mount(name, filters=["kind=plaintext"]):
        pass
    object.__setattr__(reader.context.settings, "offline", True)
    with pytest.raises(NotFoundError, match="does not hold all that is wanted"):
        reader.mount(name, model=small(), tokenizer=tokenizer_of())
