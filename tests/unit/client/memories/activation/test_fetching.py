"""Prefixes by HTTP Range: only their blocks come, each is checked, and nothing passes for the whole memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from memcube.memories.activation import fetching as kv_fetching  # noqa: E402
from memcube.memories.activation.dump import dump_kv  # noqa: E402
from memcube.memories.activation.fetching import FetchedPrefix, fetch_into  # noqa: E402
from memcube.memories.activation.mount import mount_kv  # noqa: E402
from memcube.store import Store  # noqa: E402
from memcube_protocol import limits, media_types  # noqa: E402
from memcube_protocol.activation import KvManifest  # noqa: E402
from memcube_protocol.errors import (  # noqa: E402
    DigestMismatchError,
    InvalidTensorsError,
    MemcubeError,
    NetworkError,
    NotFoundError,
    UnsupportedError,
)
from support.models import model_of, text_of, tokenizer_of  # noqa: E402
from support.ranges import Ranges, memory_files, registry_of  # noqa: E402
from support.scripted import Answer, scripted  # noqa: E402

TOKENS = 600
Fetch = Callable[[int], FetchedPrefix]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tokenizer_of()


@pytest.fixture(scope="module")
def model() -> Any:
    return model_of("gemma3", max_position_embeddings=1024)


@pytest.fixture(scope="module", params=["none", "int8-token"])
def memory(request, model, tokenizer, tmp_path_factory) -> Path:
    return dump_kv(
        model,
        tokenizer,
        text=text_of(TOKENS),
        folder=tmp_path_factory.mktemp("cube"),
        memory_id="m",
        storage=request.param,
    )


@pytest.fixture
def served(memory) -> Ranges:
    return Ranges(memory_files(memory)[1])


@pytest.fixture
def fetch(memory, served, tmp_path) -> Iterator[Fetch]:
    files, _ = memory_files(memory)
    with scripted(served) as server:
        store, remote = Store(tmp_path / "store"), registry_of(server)
        yield lambda tokens: fetch_into(
            remote,
            "ann/notes",
            files,
            store,
            tmp_path / "m",
            tokens,
        )


def sent_of_tensors(served: Ranges, memory: Path) -> int:
    digest = memory_files(memory)[0][media_types.KV].digest
    return sum(size for asked, size in served.sent if asked == str(digest))


def manifest_of(memory: Path) -> KvManifest:
    return KvManifest.parse((memory / "manifest.json").read_bytes())


def prefix_bytes(manifest: KvManifest, tokens: int) -> int:
    """Bytes of the blocks that hold the first `tokens` tokens."""
    total = 0
    for blocks in manifest.blocks.values():
        row = blocks.block_bytes // limits.KV_BLOCK_TOKENS
        start, stop = blocks.covering(blocks.start, blocks.start + row * tokens)
        total += stop - start
    return total


def header_bytes(memory: Path) -> int:
    return min(blocks.start for blocks in manifest_of(memory).blocks.values())


@pytest.mark.parametrize("tokens", [1, 256, 257, TOKENS])
def test_a_fetched_prefix_is_mounted_as_that_of_the_whole_memory(
    tokens, memory, fetch, served, model, tokenizer
) -> None:
    found = fetch(tokens)
    wanted = prefix_bytes(manifest_of(memory), tokens) + header_bytes(memory)
    assert sent_of_tensors(served, memory) == wanted
    whole = mount_kv(memory, model, tokenizer, prefix_tokens=tokens)
    mounted = mount_kv(found.folder, model, tokenizer, prefix_tokens=found.tokens)
    assert mounted.token_ids == whole.token_ids
    for one, other in zip(mounted.new_cache().layers, whole.new_cache().layers, strict=True):
        assert torch.equal(one.keys, other.keys)
        assert torch.equal(one.values, other.values)


def test_a_longer_prefix_fetches_only_what_it_adds(memory, fetch, served) -> None:
    manifest = manifest_of(memory)
    fetch(256)
    served.sent.clear()
    found = fetch(300)
    assert sent_of_tensors(served, memory) == found.fetched_bytes
    assert found.fetched_bytes == prefix_bytes(manifest, 300) - prefix_bytes(manifest, 256)
    assert fetch(200).fetched_bytes == 0


@pytest.mark.parametrize("verify", [True, False])
def test_more_than_was_fetched_is_never_mounted(verify, fetch, model, tokenizer) -> None:
    folder = fetch(256).folder
    for tokens in (257, None):
        with pytest.raises(DigestMismatchError):
            mount_kv(folder, model, tokenizer, prefix_tokens=tokens, verify_blocks=verify)


def test_the_part_bears_another_name_than_the_whole_and_stays_out_of_the_store(
    memory, fetch, tmp_path
) -> None:
    folder = fetch(256).folder
    assert sorted(path.name for path in folder.iterdir()) == [
        "kv.safetensors.partial",
        "manifest.json",
        "tokens.u32",
    ]
    partial = folder / "kv.safetensors.partial"
    assert partial.stat().st_size == (memory / "kv.safetensors").stat().st_size
    assert not Store(tmp_path / "store").has(memory_files(memory)[0][media_types.KV].digest)


def damaged(answer: Answer, start: int) -> Answer:
    return (
        replace(answer, body=answer.body[:-1] + bytes([answer.body[-1] ^ 1])) if start else answer
    )


def test_other_bytes_are_refused_and_not_kept(memory, fetch, served, model, tokenizer) -> None:
    served.change = damaged
    with pytest.raises(DigestMismatchError):
        fetch(256)
    served.change = None
    mount_kv(fetch(256).folder, model, tokenizer, prefix_tokens=256)


def test_a_hostile_header_is_refused(fetch, served) -> None:
    def other(answer: Answer, start: int) -> Answer:
        return answer if start else replace(answer, body=answer.body.replace(b"l0.k", b"l9.k"))

    served.change = other
    with pytest.raises(InvalidTensorsError, match="l0"):
        fetch(256)


def test_a_registry_that_sends_no_parts_is_told_at_the_first_request(memory, served, fetch) -> None:
    def whole(answer: Answer, start: int) -> Answer:
        return Answer(200, {}, next(iter(served.blobs.values())))

    served.change = whole
    with pytest.raises(UnsupportedError, match="no parts") as refusal:
        fetch(256)
    assert "whole" in refusal.value.hint


def test_a_connection_that_breaks_once_is_gone_on_with(fetch, served, model, tokenizer) -> None:
    broken = set()

    def breaks(answer: Answer, start: int) -> Answer:
        if start and start not in broken:
            broken.add(start)
            return replace(answer, break_after=len(answer.body) // 2)
        return answer

    served.change = breaks
    mount_kv(fetch(300).folder, model, tokenizer, prefix_tokens=300)


def test_what_came_before_a_connection_that_stays_broken_is_kept(
    memory, fetch, served, monkeypatch
) -> None:
    monkeypatch.setattr(kv_fetching, "_PORTION_BYTES", 1)
    last = max(blocks.start for blocks in manifest_of(memory).blocks.values())

    def breaks(answer: Answer, start: int) -> Answer:
        return replace(answer, break_after=0) if start >= last else answer

    served.change = breaks
    with pytest.raises(NetworkError):
        fetch(TOKENS)
    served.change = None
    assert 0 < fetch(TOKENS).fetched_bytes < prefix_bytes(manifest_of(memory), TOKENS)


@pytest.mark.parametrize("tokens", [0, -1, TOKENS + 1])
def test_a_prefix_that_the_memory_does_not_have_is_not_found(tokens, fetch) -> None:
    with pytest.raises(NotFoundError, match="a prefix of"):
        fetch(tokens)


def test_what_was_changed_on_the_disk_is_fetched_anew(memory, fetch, model, tokenizer) -> None:
    folder = fetch(256).folder
    for name in ("manifest.json", "tokens.u32"):
        (folder / name).write_bytes(b"other")
    with (folder / "kv.safetensors.partial").open("r+b") as file:
        file.seek(header_bytes(memory))
        file.write(b"\xff" * 10)
    with pytest.raises(MemcubeError):
        mount_kv(folder, model, tokenizer, prefix_tokens=256)
    assert fetch(256).fetched_bytes > 0
    mount_kv(folder, model, tokenizer, prefix_tokens=256)
