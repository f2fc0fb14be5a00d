"""Cubes that lie about their memories: the mount believes files, not descriptions, and says so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from memcube.client import Client
from memcube.dumper import MemDumper
from memcube.mounting import Act, Step
from memcube.settings import Settings
from memcube_protocol.activation import KvManifest, Source
from memcube_protocol.cube import Cube
from memcube_protocol.errors import IncompatibleError
from memcube_protocol.reference import Reference
from support.models import model_of, text_of, tokenizer_of

pytest.importorskip("torch")
pytest.importorskip("qdrant_edge")
NAME = "mallory/notes"


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    environ = {"MEMCUBE_HOME": str(tmp_path / "home"), "MEMCUBE_KEYRING": "0"}
    with Client(Settings.load(environ)) as client:
        yield client


@pytest.fixture(scope="module")
def model() -> Any:
    return model_of(num_hidden_layers=1)


@pytest.fixture
def packed(client: Client, tmp_path: Path) -> Cube:
    """A cube with a record and a KV cache of another model."""
    dumper = MemDumper(tmp_path / "cube", name=NAME, version="1.0.0")
    dumper.add_records(["The ferry leaves at nine."])
    other = model_of(seed=5, num_hidden_layers=1)
    dumper.add_kv(other, tokenizer_of(), memory_id="handbook", text=text_of(12))
    return client.pack(dumper.folder).cube


def lying(client: Client, cube: Cube, **changes: Mapping[str, Any]) -> None:
    """Let the store hold `cube` with another description of its KV cache."""
    memories = tuple(
        replace(memory, **changes) if memory.id == "handbook" else memory
        for memory in cube.config.memories
    )
    written = Cube.write(replace(cube.config, memories=memories), cube.files)
    store = client.context.store
    store.blobs.add(written.config.write())
    store.blobs.add(written.manifest.raw)
    store.put_ref(Reference("", NAME, "1.0.0"), written.digest)


def test_a_cache_that_only_says_that_it_fits_is_refused_by_its_file(
    client: Client, packed: Cube, model: Any, tmp_path: Path
) -> None:
    own = MemDumper(tmp_path / "own", name="alice/own", version="1.0.0")
    own.add_kv(model, tokenizer_of(), memory_id="handbook", text=text_of(12))
    fits = client.pack(own.folder).cube.config.memory("handbook")
    assert fits is not None
    lying(client, packed, compatibility=fits.compatibility)
    asked: Any = {"model": model, "tokenizer": tokenizer_of()}
    assert client.plan(NAME, **asked).of(f"{NAME}:1.0.0", "handbook").act is Act.LOAD  # type: ignore[union-attr]
    before = [(name, id(module)) for name, module in model.named_modules()]
    with pytest.raises(IncompatibleError, match="base is"):
        client.mount(NAME, **asked)
    assert [(name, id(module)) for name, module in model.named_modules()] == before


@pytest.mark.parametrize("tokens", [2**53 - 1, -5, 0, True, "many", None, [1], 1e300])
def test_a_length_that_cannot_be_is_none_and_no_crash(
    client: Client, packed: Cube, tokens: Any
) -> None:
    lying(client, packed, shape={} if tokens is None else {"tokens": tokens})
    choices = {one.offer.memory: one for one in client.plan(NAME).choices}
    assert 0 <= choices["handbook"].offer.tokens <= 1
    with client.mount(NAME) as memory:
        assert memory.search("ferry")


def test_a_text_beside_a_cache_of_few_tokens_fills_neither_prompts_nor_the_model(
    client: Client, model: Any, tmp_path: Path
) -> None:
    dumper = MemDumper(tmp_path / "cube", name=NAME, version="1.0.0")
    folder = dumper.add_kv(model, tokenizer_of(), memory_id="handbook", text=text_of(12))
    file = folder / "manifest.json"
    manifest = KvManifest.parse(file.read_bytes())
    long = replace(manifest, source=Source(text_of(3000)))
    file.write_bytes(long.to_bytes())
    client.pack(dumper.folder)
    with client.mount(NAME) as memory:
        assert memory.prefix_text == ""
        assert [step.step for step in memory.steps] == [Step.TEXT]
    for rebuild in (False, True):
        with pytest.raises(IncompatibleError, match="tokens"):
            client.mount(NAME, model=model, tokenizer=tokenizer_of(), rebuild=rebuild)


@pytest.mark.parametrize("fits", [{}, {"baseIdentity": []}, {"adapters": 7, "rope": {"a": {}}}])
def test_a_key_that_is_none_leaves_the_memory_out_of_the_plan(
    client: Client, packed: Cube, model: Any, fits: Mapping[str, Any]
) -> None:
    lying(client, packed, compatibility=fits)
    planned = client.plan(NAME, model=model, tokenizer=tokenizer_of())
    acts = {one.offer.memory: one.act for one in planned.choices}
    assert acts == {"handbook": Act.LEAVE, "plaintext": Act.RETRIEVE}
