"""KV memories that stream to a device: the same layers as the mapped file's, damage told, ended at any time."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from memcube.memories.activation import streaming as kv_streaming  # noqa: E402
from memcube.memories.activation.dump import dump_kv  # noqa: E402
from memcube.memories.activation.files import open_kv  # noqa: E402
from memcube.memories.activation.mount import MountedKv, mount_kv  # noqa: E402
from memcube.memories.activation.streaming import HeldKv, StreamedLayers  # noqa: E402
from memcube_protocol.errors import (  # noqa: E402
    ConflictError,
    DigestMismatchError,
    LimitExceededError,
    SizeMismatchError,
)
from support.models import model_of, text_of, tokenizer_of  # noqa: E402

TOKENS = 600
DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
    ),
]


@pytest.fixture(autouse=True)
def small_stages(monkeypatch) -> None:
    """Several stages and pieces, also for a small memory."""
    monkeypatch.setattr(kv_streaming, "STAGE_BYTES", 30_000)
    monkeypatch.setattr(kv_streaming, "PIECE_BYTES", 20_000)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tokenizer_of()


@pytest.fixture(scope="module")
def model() -> Any:
    return model_of("gemma3", "bfloat16", max_position_embeddings=1024)


@pytest.fixture(scope="module", params=["none", "int8-token"])
def memory(request, model, tokenizer, tmp_path_factory) -> Path:
    return dump_kv(
        model,
        tokenizer,
        text=text_of(TOKENS),
        folder=tmp_path_factory.mktemp("cube"),
        memory_id="kv",
        storage=request.param,
    )


def streamed(
    folder: Path, tokens: int = TOKENS, device: str = "cpu", **more: Any
) -> StreamedLayers:
    manifest, _, _ = open_kv(folder)
    return StreamedLayers(manifest, folder / "kv.safetensors", tokens, device, **more)


@pytest.mark.parametrize("held", [False, True], ids=["read", "held"])
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("tokens", [1, 255, 256, 257, TOKENS])
def test_what_arrives_equals_what_is_mapped(tokens, device, held, memory, model, tokenizer) -> None:
    mapped = mount_kv(memory, model, tokenizer, prefix_tokens=tokens)
    manifest = mapped.manifest
    source = HeldKv(manifest, memory / "kv.safetensors") if held else memory / "kv.safetensors"
    layers = StreamedLayers(manifest, source, tokens, device)
    other = MountedKv(manifest, mapped.token_ids, model, layers)
    for position, one in enumerate(mapped.new_cache().layers):
        view = layers.view(position)
        start = view.keys.shape[2] - one.keys.shape[2]
        assert torch.equal(view.keys[:, :, start:].cpu(), one.keys)
        assert torch.equal(view.values[:, :, start:].cpu(), one.values)
        assert view.keys.shape[2] == tokens
    other.wait()
    other.unmount()


@pytest.mark.parametrize("tokens", [300, TOKENS])
def test_a_question_can_be_asked_while_the_memory_arrives(
    tokens, memory, model, tokenizer, monkeypatch
) -> None:
    mapped = mount_kv(memory, model, tokenizer, prefix_tokens=tokens)
    gate = threading.Event()
    read = kv_streaming._Reader.__call__

    def held_back(*arguments: Any) -> None:
        gate.wait()
        read(*arguments)

    monkeypatch.setattr(kv_streaming._Reader, "__call__", held_back)
    layers = streamed(memory, tokens)
    arriving = MountedKv(mapped.manifest, mapped.token_ids, model, layers)
    question = torch.tensor([[1, 2, 3]])
    with torch.inference_mode():
        wanted = model(input_ids=question, past_key_values=mapped.new_cache()).logits
        cache = arriving.new_cache()
        threading.Timer(0.1, gate.set).start()
        assert torch.equal(model(input_ids=question, past_key_values=cache).logits, wanted)
    arriving.unmount()


def copied(folder: Path, target: Path) -> Path:
    target.mkdir()
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


def test_a_flipped_byte_ends_the_question_that_comes_to_it(memory, model, tmp_path) -> None:
    folder = copied(memory, tmp_path / "kv")
    layers = streamed(folder)
    layers.close()
    content = bytearray((folder / "kv.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "kv.safetensors").write_bytes(content)
    damaged = streamed(folder)
    with pytest.raises(DigestMismatchError):
        damaged.view(2)
    damaged.close()
    trusted = streamed(folder, verify=False)
    trusted.view(2)
    trusted.close()
    beginning = streamed(folder, 256)
    beginning.view(2)
    beginning.close()


def test_what_is_held_was_checked(memory, tmp_path) -> None:
    folder = copied(memory, tmp_path / "kv")
    manifest, _, storage = open_kv(folder)
    del storage
    content = bytearray((folder / "kv.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "kv.safetensors").write_bytes(content)
    with pytest.raises(DigestMismatchError):
        HeldKv(manifest, folder / "kv.safetensors")


def test_what_is_held_of_another_memory_is_not_mounted(memory) -> None:
    manifest, _, _ = open_kv(memory)
    held = HeldKv(manifest, memory / "kv.safetensors")
    with pytest.raises(ConflictError, match="another memory"):
        StreamedLayers(replace(manifest, id="other"), held, TOKENS, "cpu")


def test_a_file_cut_after_it_was_opened_is_told(memory, tmp_path) -> None:
    folder = copied(memory, tmp_path / "kv")
    manifest, _, storage = open_kv(folder)
    del storage
    path = folder / "kv.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    layers = StreamedLayers(manifest, path, TOKENS, "cpu", verify=False)
    with pytest.raises(SizeMismatchError, match="shorter"):
        layers.view(2)
    layers.close()


def test_a_memory_unmounted_while_it_arrives_reads_no_further(memory, monkeypatch) -> None:
    gate, reads = threading.Event(), []
    read = kv_streaming._Reader.__call__

    def held_back(self: Any, piece: Any, into: memoryview) -> None:
        gate.wait()
        reads.append(piece)
        read(self, piece, into)

    monkeypatch.setattr(kv_streaming._Reader, "__call__", held_back)
    layers = streamed(memory)
    threading.Timer(0.1, gate.set).start()
    layers.close()
    with pytest.raises(ConflictError, match="unmounted"):
        layers.view(0)
    manifest, _, _ = open_kv(memory)
    every = sum(len(stage.pieces) for stage in kv_streaming._stages(manifest, TOKENS))
    assert len(reads) < every


def test_a_device_without_room_says_so(memory, monkeypatch) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("no room")

    manifest, _, _ = open_kv(memory)
    monkeypatch.setattr(torch, "empty", full)
    with pytest.raises(LimitExceededError, match="room"):
        StreamedLayers(manifest, memory / "kv.safetensors", TOKENS, "cpu")
