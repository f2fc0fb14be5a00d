"""KV memories that lie, break or find no room: a clear error, the model as it was, and nothing left in memory."""

from __future__ import annotations

import gc
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from memcube.memories.activation import dump as activation_dump
from memcube.memories.activation import files as kv_files
from memcube.memories.activation import mount as kv_mount
from memcube.memories.activation import mounted as kv_mounted
from memcube.memories.activation.capture import captured
from memcube.memories.activation.dump import dump_kv
from memcube.memories.activation.generation import generate
from memcube.memories.activation.layers import LayerView
from memcube.memories.activation.mount import mount_kv
from memcube.memories.activation.streaming import HeldKv, StreamedLayers
from memcube.memories.model_identity import live_identity
from memcube_protocol.activation import KvManifest, Source, encode_tokens, token_chain
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    DigestMismatchError,
    InvalidTensorsError,
    LimitExceededError,
    MemcubeError,
)
from support.models import model_of, text_of, tokenizer_of

torch = pytest.importorskip("torch")

TOKENS = 300
QUESTION = [1, 2, 3]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tokenizer_of()


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return {name: model_of(dtype=name) for name in ("float32", "bfloat16", "float16")}


@pytest.fixture(scope="module")
def model(models) -> Any:
    return models["float32"]


@pytest.fixture(autouse=True)
def untouched(model):
    """The model is the same before and after every test."""
    before = live_identity(model), list(model.state_dict()), model.training
    yield
    assert (live_identity(model), list(model.state_dict()), model.training) == before


@pytest.fixture(scope="module")
def memories(models, tokenizer, tmp_path_factory) -> dict[tuple[str, str], Path]:
    return {
        (dtype, storage): dump_kv(
            model,
            tokenizer,
            text=text_of(TOKENS),
            folder=tmp_path_factory.mktemp("cube"),
            memory_id="kv",
            storage=storage,
        )
        for dtype, model in models.items()
        for storage in ("none", "int8-token")
    }


@pytest.fixture
def kv(memories, tmp_path) -> Path:
    return Path(shutil.copytree(memories["float32", "none"], tmp_path / "kv"))


def ask(model: Any, memory: Any) -> Any:
    with torch.inference_mode():
        return model(torch.tensor([QUESTION]), past_key_values=memory.new_cache()).logits


def forge(folder: Path, model: Any, change: Any, monkeypatch: Any) -> Path:
    """Write the memory in `folder` anew, its layers changed, every hash right: as a publisher may sign it."""
    manifest, ids, _ = kv_files.open_kv(folder)
    views = change(list(captured(activation_dump.prefill(model, ids), len(ids))))
    (folder / "kv.safetensors").unlink()
    monkeypatch.setattr(activation_dump, "require_bounded", lambda *_: None)
    forged = activation_dump._write(folder, views, manifest.key, ids, manifest.id)
    described = replace(forged, source=manifest.source, information=manifest.information)
    (folder / "manifest.json").write_bytes(described.to_bytes())
    return folder


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_signed_cache_of_numbers_that_are_none_is_refused(
    dtype, value, models, memories, tokenizer, tmp_path, monkeypatch
) -> None:
    def spoiled(views: list[LayerView]) -> list[LayerView]:
        values = views[1].values.clone()
        values[0, 1, 270, 3] = float(value)
        return [views[0], LayerView(views[1].keys, values), *views[2:]]

    folder = Path(shutil.copytree(memories[dtype, "none"], tmp_path / "kv"))
    forge(folder, models[dtype], spoiled, monkeypatch)
    with pytest.raises(InvalidTensorsError, match=r"l1\.v of the cache holds NaN"):
        mount_kv(folder, models[dtype], tokenizer)
    mount_kv(folder, models[dtype], tokenizer, prefix_tokens=256)
    manifest, _, _ = kv_files.open_kv(folder)
    with pytest.raises(InvalidTensorsError, match="NaN"):
        HeldKv(manifest, folder / "kv.safetensors")
    layers = StreamedLayers(manifest, folder / "kv.safetensors", TOKENS, "cpu")
    with pytest.raises(InvalidTensorsError, match="NaN"):
        layers.view(2)
    layers.close()


@pytest.mark.parametrize("value", [65536.0, -1e30])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_signed_cache_of_huge_numbers_is_refused(
    dtype, value, models, memories, tokenizer, tmp_path, monkeypatch
) -> None:
    def huge(views: list[LayerView]) -> list[LayerView]:
        keys = views[2].keys.clone()
        keys[0, 0, 3, 1] = value
        return [*views[:2], LayerView(keys, views[2].values)]

    folder = Path(shutil.copytree(memories[dtype, "none"], tmp_path / "kv"))
    forge(folder, models[dtype], huge, monkeypatch)
    with pytest.raises(InvalidTensorsError, match=r"l2\.k of the cache .* beyond 65536"):
        mount_kv(folder, models[dtype], tokenizer)


def test_a_cache_of_large_numbers_is_mounted(kv, model, tokenizer, monkeypatch) -> None:
    def large(views: list[LayerView]) -> list[LayerView]:
        keys = views[2].keys.clone()
        keys[0, 0, 3, 1] = 65000.0
        return [*views[:2], LayerView(keys, views[2].values)]

    forge(kv, model, large, monkeypatch)
    assert torch.isfinite(ask(model, mount_kv(kv, model, tokenizer))).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_scale_that_leads_beyond_the_element_type_is_refused(
    dtype, models, memories, tokenizer, tmp_path, monkeypatch
) -> None:
    largest = float(torch.finfo(getattr(torch, dtype)).max)

    def huge(views: list[LayerView]) -> list[LayerView]:
        keys = views[0].keys.double()
        keys[0, 0, 5, 0] = largest * 2
        return [LayerView(keys, views[0].values), *views[1:]]

    folder = Path(shutil.copytree(memories[dtype, "int8-token"], tmp_path / "kv"))
    monkeypatch.setattr(activation_dump, "_require_dtype", lambda *_: None)
    forge(folder, models[dtype], huge, monkeypatch)
    with pytest.raises(InvalidTensorsError, match="scale"):
        mount_kv(folder, models[dtype], tokenizer)


def test_a_model_that_computes_nan_is_not_dumped(tokenizer, tmp_path) -> None:
    broken = model_of()
    with torch.no_grad():
        broken.model.layers[1].self_attn.v_proj.weight[0, 0] = float("nan")
    with pytest.raises(InvalidTensorsError, match="NaN"):
        dump_kv(broken, tokenizer, text=text_of(9), folder=tmp_path, memory_id="kv")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("lying", [1, TOKENS + 1], ids=["where it lies", "copied"])
def test_a_cache_of_one_head_is_not_repeated_to_fit(
    lying, kv, model, tokenizer, monkeypatch
) -> None:
    monkeypatch.setattr(kv_mounted, "LYING_TOKENS", lying)

    def one_head(views: list[LayerView]) -> list[LayerView]:
        return [LayerView(view.keys[:, :1], view.values[:, :1]) for view in views]

    forge(kv, model, one_head, monkeypatch)
    memory = mount_kv(kv, model, tokenizer)
    with pytest.raises(InvalidTensorsError, match="1 heads of width 16 where the model has 2"):
        ask(model, memory)


@pytest.mark.parametrize("family", ["mistral", "gemma3"])
def test_a_cache_of_other_widths_is_refused_in_windows_too(
    family, tokenizer, tmp_path, monkeypatch
) -> None:
    windowed = model_of(family)
    folder = dump_kv(windowed, tokenizer, text=text_of(20), folder=tmp_path, memory_id="kv")

    def narrow(views: list[LayerView]) -> list[LayerView]:
        return [LayerView(view.keys[..., :1], view.values[..., :1]) for view in views]

    forge(folder, windowed, narrow, monkeypatch)
    memory = mount_kv(folder, windowed, tokenizer)
    with pytest.raises(InvalidTensorsError, match="width 1 where"):
        ask(windowed, memory)


@pytest.mark.parametrize("count", [1, 2])
def test_a_cache_of_another_number_of_layers_under_the_models_key_is_refused(
    count, kv, model, tokenizer, monkeypatch
) -> None:
    forge(kv, model, lambda views: (views * 2)[: 3 * count - 2 + (count == 2) * 2], monkeypatch)
    with pytest.raises(InvalidTensorsError, match="layers for a model of 3"):
        mount_kv(kv, model, tokenizer)


def test_a_cache_of_tokens_that_the_model_does_not_have_is_refused(kv, model, tokenizer) -> None:
    """It carries no text that its ids could be compared with; a sampler that looks them up would fail."""
    manifest, ids, _ = kv_files.open_kv(kv)
    ids = (*ids[:-1], 2**32 - 1)
    key = replace(manifest.key, tokens=Digest.of(encode_tokens(ids)))
    forged = replace(manifest, key=key, chain=token_chain(ids), source=Source())
    (kv / "tokens.u32").write_bytes(encode_tokens(ids))
    (kv / "manifest.json").write_bytes(forged.to_bytes())
    with pytest.raises(InvalidTensorsError, match="token 4294967295"):
        mount_kv(kv, model, tokenizer)


def test_a_file_that_is_changed_while_it_is_mounted_ends_the_next_question(
    kv, model, tokenizer
) -> None:
    memory = mount_kv(kv, model, tokenizer)
    ask(model, memory)
    with (kv / "kv.safetensors").open("r+b") as file:
        file.seek(-8, os.SEEK_END)
        file.write(b"12345678")
    with pytest.raises(DigestMismatchError, match="changed since it was checked") as refusal:
        ask(model, memory)
    assert "mount the memory again" in refusal.value.hint
    with pytest.raises(DigestMismatchError):
        mount_kv(kv, model, tokenizer)


def test_a_file_that_is_changed_between_two_questions_ends_the_second(
    kv, model, tokenizer, monkeypatch
) -> None:
    """Of one talk, whose cache leaves the memory where it lies."""
    monkeypatch.setattr(kv_mounted, "LYING_TOKENS", 1)
    cache = mount_kv(kv, model, tokenizer).new_cache()
    with torch.inference_mode():
        model(torch.tensor([QUESTION]), past_key_values=cache)
        with (kv / "kv.safetensors").open("r+b") as file:
            file.seek(-8, os.SEEK_END)
            file.write(b"12345678")
        with pytest.raises(DigestMismatchError, match="changed since it was checked"):
            model(torch.tensor([QUESTION]), past_key_values=cache)


def test_a_file_that_is_cut_while_it_is_mounted_is_noticed_before_it_is_read(
    kv, model, tokenizer
) -> None:
    memory = mount_kv(kv, model, tokenizer)
    os.truncate(kv / "kv.safetensors", 4096)
    with pytest.raises(DigestMismatchError, match="changed since"):
        ask(model, memory)


def test_a_file_that_is_replaced_or_removed_stays_as_it_was_mounted(kv, model, tokenizer) -> None:
    memory = mount_kv(kv, model, tokenizer)
    before = ask(model, memory)
    other = kv / "other"
    other.write_bytes(b"other")
    other.replace(kv / "kv.safetensors")
    assert torch.equal(ask(model, memory), before)
    shutil.rmtree(kv)
    assert torch.equal(ask(model, memory), before)


def test_a_file_that_is_moved_away_and_changed_there_ends_the_next_question(
    kv, model, tokenizer
) -> None:
    """Its name is another file's, or nobody's: what is mapped is told by its descriptor."""
    memory = mount_kv(kv, model, tokenizer)
    before = ask(model, memory)
    away = kv.with_name("away")
    (kv / "kv.safetensors").rename(away)
    assert torch.equal(ask(model, memory), before)
    for name in (None, kv / "kv.safetensors"):
        if name is not None:
            shutil.copy(away, name)
        with away.open("r+b") as file:
            file.seek(-8, os.SEEK_END)
            file.write(b"12345678")
        with pytest.raises(DigestMismatchError, match="changed since it was checked"):
            ask(model, memory)


def test_a_file_that_is_replaced_while_it_is_opened_is_not_taken_for_the_other(
    kv, model, tokenizer, monkeypatch
) -> None:
    """What is looked at later would be one file, and what is mapped the other."""

    def opened(folder: Path) -> Any:
        found = kv_files.open_kv(folder)
        shutil.copy(folder / "kv.safetensors", folder / "other")
        (folder / "other").replace(folder / "kv.safetensors")
        return found

    monkeypatch.setattr(kv_mount, "open_kv", opened)
    with pytest.raises(DigestMismatchError, match="changed since it was checked"):
        mount_kv(kv, model, tokenizer)


FULL = {
    "host": MemoryError(),
    "device": torch.OutOfMemoryError("CUDA out of memory"),
    "allocator": RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
}


def failing(error: BaseException) -> Any:
    def fail(*_: Any, **__: Any) -> Any:
        raise type(error)(*error.args)  # a fresh one: a kept one would keep what it passed through

    return fail


@pytest.mark.parametrize("where", FULL)
def test_memory_that_is_full_is_told_at_the_mount(
    where, memories, model, tokenizer, monkeypatch
) -> None:
    monkeypatch.setattr(kv_files, "dequantise", failing(FULL[where]))
    with pytest.raises(LimitExceededError, match="no room") as refusal:
        mount_kv(memories["float32", "int8-token"], model, tokenizer)
    assert refusal.value.hint


@pytest.mark.parametrize("where", FULL)
def test_memory_that_is_full_is_told_at_the_dump_and_nothing_is_left(
    where, model, tokenizer, tmp_path
) -> None:
    model.train()
    hook = model.model.layers[1].register_forward_hook(failing(FULL[where]))
    try:
        with pytest.raises(LimitExceededError, match="no room"):
            dump_kv(model, tokenizer, text=text_of(9), folder=tmp_path, memory_id="kv")
        assert model.training
    finally:
        hook.remove()
        model.eval()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("where", FULL)
def test_memory_that_is_full_ends_an_answer_and_leaves_the_memory_mounted(
    where, kv, model, tokenizer
) -> None:
    memory = mount_kv(kv, model, tokenizer)
    hook = model.model.layers[1].register_forward_hook(failing(FULL[where]))
    try:
        with pytest.raises(LimitExceededError, match="no room") as refusal:
            generate(model, tokenizer, "w1", memory=memory)
        assert refusal.value.__context__.__traceback__ is None
    finally:
        hook.remove()
    assert generate(model, tokenizer, "w1", memory=memory, max_new_tokens=1)


def test_another_error_of_torch_is_not_taken_for_a_lack_of_memory(
    memories, model, tokenizer, monkeypatch
) -> None:
    monkeypatch.setattr(kv_files, "dequantise", failing(RuntimeError("shapes differ")))
    with pytest.raises(RuntimeError, match="shapes differ"):
        mount_kv(memories["float32", "int8-token"], model, tokenizer)


def mapped(path: Path) -> bool:
    """Whether this process has `path` in its memory."""
    gc.collect()
    return str(path) in Path("/proc/self/maps").read_text()


def test_what_is_unmounted_leaves_memory(kv, model, tokenizer) -> None:
    memory = mount_kv(kv, model, tokenizer)
    assert mapped(kv / "kv.safetensors")
    memory.unmount()
    assert not mapped(kv / "kv.safetensors")


@pytest.mark.parametrize("at", ["verify_blocks", "views"])
def test_a_mount_that_is_interrupted_leaves_nothing_in_memory(
    at, kv, model, tokenizer, monkeypatch
) -> None:
    import memcube.memories.activation.mount as module

    monkeypatch.setattr(module if at == "views" else kv_files, at, failing(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        mount_kv(kv, model, tokenizer)
    assert not mapped(kv / "kv.safetensors")


def test_a_dump_that_is_interrupted_leaves_nothing(model, tokenizer, tmp_path) -> None:
    hook = model.model.layers[2].register_forward_hook(failing(KeyboardInterrupt()))
    try:
        with pytest.raises(KeyboardInterrupt):
            dump_kv(model, tokenizer, text=text_of(9), folder=tmp_path, memory_id="kv")
    finally:
        hook.remove()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_dump_interrupted_while_it_writes_leaves_nothing(
    model, tokenizer, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(KvManifest, "to_bytes", failing(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        dump_kv(model, tokenizer, text=text_of(9), folder=tmp_path, memory_id="kv")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_holding_a_memory_that_is_damaged_at_its_start_reads_no_further(
    memories, tmp_path, monkeypatch
) -> None:
    from memcube.memories.activation import streaming as kv_streaming

    folder = Path(shutil.copytree(memories["float32", "none"], tmp_path / "kv"))
    manifest, _, _ = kv_files.open_kv(folder)
    monkeypatch.setattr(kv_streaming, "PIECE_BYTES", 1)
    monkeypatch.setattr(kv_streaming, "_READERS", 1)
    read, pieces = kv_streaming._Reader.__call__, []

    def counted(self: Any, piece: Any, into: memoryview) -> None:
        pieces.append(piece)
        if len(pieces) == 1:
            raise DigestMismatchError("damaged", hint="pull it again")
        read(self, piece, into)

    monkeypatch.setattr(kv_streaming._Reader, "__call__", counted)
    with pytest.raises(MemcubeError, match="damaged"):
        HeldKv(manifest, folder / "kv.safetensors")
    assert len(pieces) < sum(len(blocks.hashes) for blocks in manifest.blocks.values())
