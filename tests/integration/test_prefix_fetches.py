"""A prefix of a published KV memory comes from the registry by ranges: only its blocks, verified, mounted."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Person, fresh
from memcube.consuming.opening import resolve
from memcube.dumper import MemDumper
from memcube.memories.activation.fetching import fetch_prefix
from memcube.memories.activation.mount import mount_kv
from memcube_protocol import media_types
from memcube_protocol.errors import NotFoundError
from memcube_protocol.reference import Reference
from support.machine import Machine
from support.models import model_of, text_of, tokenizer_of

pytest.importorskip("torch")

TOKENS = 600


def test_only_the_blocks_of_a_prefix_cross_the_network(ada: Person, tmp_path: Path) -> None:
    model, tokenizer = model_of(max_position_embeddings=1024), tokenizer_of()
    name = f"{ada.name}/{fresh('long')}"
    dumper = MemDumper(tmp_path / "cube", name=name, version="1.0.0")
    dumper.add_kv(model, tokenizer, memory_id="handbook", text=text_of(TOKENS))
    publisher = Machine(tmp_path / "publisher", ada.server.url, ada.token)
    publisher.ok("push", dumper.folder)
    reader = Machine(tmp_path / "reader", ada.server.url, ada.token)
    with reader.client() as client:
        verified = resolve(client.context, Reference.parse(f"{name}:1.0.0"))
        kv = next(file for file in verified.cube.files if file.media_type == media_types.KV)
        found = fetch_prefix(client.context, verified, "handbook", 200)
        assert found.fetched_bytes < kv.size / 2
        assert not client.context.store.has(kv.digest)
        with mount_kv(found.folder, model, tokenizer, prefix_tokens=200) as memory:
            assert len(memory.token_ids) == 200
        assert fetch_prefix(client.context, verified, "handbook", 200).fetched_bytes == 0
        with pytest.raises(NotFoundError):
            fetch_prefix(client.context, verified, "plaintext", 200)
        client.pull(f"{name}:1.0.0")
        whole = fetch_prefix(client.context, verified, "handbook", TOKENS)
        assert (whole.folder / "kv.safetensors").is_file()
        assert whole.fetched_bytes == 0


def test_a_mount_says_that_a_cache_in_eight_bits_is_lossy(tmp_path: Path) -> None:
    model, tokenizer = model_of(), tokenizer_of()
    dumper = MemDumper(tmp_path / "cube", name="alice/small", version="1.0.0")
    dumper.add_kv(model, tokenizer, memory_id="handbook", text=text_of(30), storage="int8-token")
    with Machine(tmp_path / "home", "http://127.0.0.1:9").client() as client:
        client.pack(dumper.folder)
        with client.mount("alice/small", model=model, tokenizer=tokenizer) as memory:
            assert "lossy: stored in eight bits" in memory.steps[0].why
