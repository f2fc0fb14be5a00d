"""KV memories in eight bits: half the bytes, an error that is bounded and told, hostile scales refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memcube.memories.activation.dump import dump_kv
from memcube.memories.activation.files import open_kv
from memcube.memories.activation.mount import mount_kv
from memcube.memories.activation.recompute import recompute, tolerance_of
from memcube.memories.activation.storage import dequantise, quantise
from memcube_protocol.activation import KvManifest
from memcube_protocol.content import Blocks
from memcube_protocol.errors import InvalidConfigError, InvalidTensorsError, UnsupportedError
from support.models import model_of, text_of, tokenizer_of

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

TEXT = text_of(300)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tokenizer_of()


@given(
    rows=st.lists(
        st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=4, max_size=4),
        min_size=1,
        max_size=8,
    )
)
def test_no_element_is_off_by_more_than_half_a_step(rows) -> None:
    # Numbers so small that their scale is no normal number count as zero.
    tensor = torch.tensor(rows, dtype=torch.float32)
    back = dequantise(*quantise(tensor), torch.float32)
    steps = tensor.abs().amax(dim=-1, keepdim=True) / 127
    assert bool(((back - tensor).abs() <= steps * 0.5001 + 1e-37).all())


def test_a_row_of_zeros_stays_zeros() -> None:
    numbers, scales = quantise(torch.zeros(2, 3))
    assert not bool(scales.any())
    assert torch.equal(dequantise(numbers, scales, torch.bfloat16), torch.zeros(2, 3).bfloat16())


@pytest.mark.parametrize("shape", [(3001, 3, 64), (2, 1, 1 << 18), (0, 2, 8)])
def test_what_is_decoded_in_portions_is_whole(shape) -> None:
    made = torch.Generator().manual_seed(0)
    numbers = torch.randint(-127, 128, shape, dtype=torch.int8, generator=made)
    scales = torch.rand(shape[:-1], generator=made)
    at_once = (numbers.float() * scales.unsqueeze(-1)).bfloat16()
    assert torch.equal(dequantise(numbers, scales, torch.bfloat16), at_once)


def test_a_cache_in_eight_bits_agrees_with_its_text(tokenizer, tmp_path) -> None:
    model = model_of()
    folder = small_memory(model, tokenizer, tmp_path)
    manifest = KvManifest.parse((folder / "manifest.json").read_bytes())
    found = recompute(folder, model, tokenizer)
    assert 1e-3 < found.difference < tolerance_of(manifest.key)


def test_a_prefix_of_a_cache_in_eight_bits_is_its_beginning(tokenizer, tmp_path) -> None:
    model = model_of()
    folder = small_memory(model, tokenizer, tmp_path)
    whole, part = (
        mount_kv(folder, model, tokenizer, prefix_tokens=count).new_cache() for count in (None, 17)
    )
    for one, other in zip(whole.layers, part.layers, strict=True):
        assert torch.equal(one.keys[:, :, :17], other.keys)
        assert torch.equal(one.values[:, :, :17], other.values)


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), -1.0])
def test_a_scale_that_no_writer_makes_is_refused(scale, tokenizer, tmp_path) -> None:
    model = model_of()
    folder = small_memory(model, tokenizer, tmp_path)
    damage(folder, "l1.v.scale", torch.tensor([scale], dtype=torch.float32).numpy().tobytes())
    with pytest.raises(InvalidTensorsError, match="scale"):
        mount_kv(folder, model, tokenizer)


@pytest.mark.parametrize("storage", ["int4", "", "fp8-token"])
def test_another_storage_is_neither_written_nor_read(storage, tokenizer, tmp_path) -> None:
    model = model_of()
    with pytest.raises(UnsupportedError, match="storage"):
        dump_kv(model, tokenizer, text=TEXT, folder=tmp_path, memory_id="kv", storage=storage)
    folder = small_memory(model, tokenizer, tmp_path)
    manifest, _, _ = open_kv(folder)
    key = replace(manifest.key, kv_quantisation="int4-group")
    with pytest.raises(InvalidConfigError, match="int4-group"):
        replace(manifest, key=key)


def small_memory(model: Any, tokenizer: Any, folder: Path) -> Path:
    return dump_kv(
        model, tokenizer, text=TEXT, folder=folder, memory_id="small", storage="int8-token"
    )


def damage(folder: Path, tensor: str, start: bytes) -> None:
    """Let `tensor` begin with other bytes, and the manifest's hashes agree with them."""
    manifest = KvManifest.parse((folder / "manifest.json").read_bytes())
    content = bytearray((folder / "kv.safetensors").read_bytes())
    blocks = manifest.blocks[tensor]
    content[blocks.start : blocks.start + len(start)] = start
    (folder / "kv.safetensors").write_bytes(content)
    held = memoryview(content)[blocks.start : blocks.start + blocks.size]
    forged = Blocks.of(held, blocks.block_bytes, blocks.start)
    other = replace(manifest, blocks={**manifest.blocks, tensor: forged})
    (folder / "manifest.json").write_bytes(other.to_bytes())
