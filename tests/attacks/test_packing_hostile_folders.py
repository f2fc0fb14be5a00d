"""Folders that try to smuggle something into a cube: links, devices, names, pickles, bombs."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from memcube.packing.pack import pack_folder
from memcube.packing.scan import FoundFile, scan
from memcube.store import Store
from memcube_protocol import limits
from memcube_protocol.errors import (
    ForbiddenMediaTypeError,
    InvalidConfigError,
    InvalidError,
    InvalidRecordError,
    InvalidTensorsError,
    LimitExceededError,
    MemcubeError,
    StorageError,
    UnsafePathError,
)


class Boom:
    """What must never run."""

    def __reduce__(self):
        return os.mkdir, ("/tmp/memcube-pickle-ran",)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "cube"
    for name in ("plaintext", "attachments", "activation/a", "parametric/l"):
        (folder / name).mkdir(parents=True)
    (folder / "memcube.toml").write_text('name = "alice/notes"\nversion = "1.0.0"\n')
    (folder / "plaintext" / "a.jsonl").write_text('{"id":"a","text":"b"}\n')
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def refused(folder: Path, store: Store, error: type[MemcubeError]) -> MemcubeError:
    with pytest.raises(error) as caught:
        pack_folder(folder, store)
    assert caught.value.hint
    assert store.refs() == []
    return caught.value


@pytest.mark.parametrize(
    "path", ["README.md", "plaintext/b.jsonl", "attachments/a.txt", "memcube.toml"]
)
def test_a_link_is_never_followed(folder: Path, store: Store, tmp_path: Path, path: str) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text('name = "a/b"\nversion = "1.0.0"')
    (folder / path).unlink(missing_ok=True)
    (folder / path).symlink_to(secret)
    refused(folder, store, UnsafePathError)


def test_a_link_to_a_folder_is_never_followed(folder: Path, store: Store, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (folder / "attachments" / "more").symlink_to(tmp_path / "elsewhere")
    refused(folder, store, UnsafePathError)


def test_a_pipe_does_not_hang_the_packer(folder: Path, store: Store) -> None:
    os.mkfifo(folder / "attachments" / "pipe.txt")
    refused(folder, store, UnsafePathError)


def test_a_file_replaced_by_a_link_after_the_scan_is_refused(folder: Path, tmp_path: Path) -> None:
    found = next(file for file in scan(folder) if file.path == "plaintext/a.jsonl")
    found.location.unlink()
    found.location.symlink_to(tmp_path)
    with pytest.raises(UnsafePathError):
        found.open()


@pytest.mark.parametrize(
    "names",
    [
        ("a.txt", "A.txt"),
        ("ß.txt", "ss.txt"),
        ("é.txt", "É.txt"),
        ("e\u0301.txt", "e.txt"),
        ("nul.txt", "ok.txt"),
        ("a\u200bb.txt", "ok.txt"),
        ("a\nb.txt", "ok.txt"),
        ("a\\b.txt", "ok.txt"),
    ],
)
def test_names_that_some_machine_cannot_hold_are_refused(
    folder: Path, store: Store, names: tuple[str, str]
) -> None:
    for name in names:
        (folder / "attachments" / name).write_text(name)
    refused(folder, store, UnsafePathError)


def test_a_name_that_is_not_utf_8_is_refused(folder: Path, store: Store) -> None:
    os.mkfifo(os.fsencode(folder / "attachments") + b"/\xff.txt")
    refused(folder, store, UnsafePathError)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("name", ["attachments/a.txt", "attachments/a.png", "README.md"])
def test_a_pickle_of_another_name_is_known_by_its_bytes(
    folder: Path, store: Store, name: str, protocol: int
) -> None:
    (folder / name).write_bytes(pickle.dumps(Boom(), protocol=protocol))
    refused(folder, store, ForbiddenMediaTypeError)
    assert not Path("/tmp/memcube-pickle-ran").exists()


@pytest.mark.parametrize(
    "name", ["a.pkl", "a.pickle", "a.pt", "a.pth", "a.ckpt", "a.joblib", "a.PKL", "a.bin"]
)
def test_a_pickle_is_known_by_its_name(folder: Path, store: Store, name: str) -> None:
    (folder / "attachments" / name).write_bytes(b"harmless")
    error = refused(folder, store, ForbiddenMediaTypeError)
    assert "safetensors" in str(error.hint)


def test_an_archive_of_pytorch_is_known_by_its_bytes(folder: Path, store: Store) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("archive/data.pkl", pickle.dumps(Boom()))
    (folder / "attachments" / "a.pdf").write_bytes(archive.getvalue())
    refused(folder, store, ForbiddenMediaTypeError)


def test_a_pickle_renamed_to_safetensors_is_refused(folder: Path, store: Store) -> None:
    (folder / "parametric" / "l" / "adapter_config.json").write_text('{"peft_type":"LORA"}')
    weights = folder / "parametric" / "l" / "adapter_model.safetensors"
    weights.write_bytes(pickle.dumps(Boom(), protocol=4))
    error = refused(folder, store, InvalidTensorsError)
    assert "parametric/l/adapter_model.safetensors" in str(error)


def test_safetensors_that_promise_a_giant_header_are_refused(folder: Path, store: Store) -> None:
    (folder / "parametric" / "l" / "adapter_config.json").write_text('{"peft_type":"LORA"}')
    weights = folder / "parametric" / "l" / "adapter_model.safetensors"
    weights.write_bytes((2**62).to_bytes(8, "little") + b"{}")
    refused(folder, store, LimitExceededError)


def test_an_adapter_config_that_is_no_lora_is_refused(folder: Path, store: Store) -> None:
    (folder / "parametric" / "l" / "adapter_config.json").write_text("[]")
    header = b"{}      "
    (folder / "parametric" / "l" / "adapter_model.safetensors").write_bytes(
        len(header).to_bytes(8, "little") + header
    )
    refused(folder, store, InvalidError)


def test_records_of_a_bomb_stop_at_the_limit_of_one_record(folder: Path, store: Store) -> None:
    bomb = zstandard.ZstdCompressor(level=19).compress(b'{"id":"a","text":"' + b"x" * 2**28)
    (folder / "plaintext" / "bomb.jsonl.zst").write_bytes(bomb)
    refused(folder, store, LimitExceededError)


def test_a_window_beyond_the_limit_is_refused(folder: Path, store: Store) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=27)
    content = b'{"id":"c","text":"d"}\n' * 2**20
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    wide = compressor.compress(content) + compressor.flush()
    (folder / "plaintext" / "wide.jsonl.zst").write_bytes(wide)
    refused(folder, store, InvalidRecordError)


def test_a_card_beyond_the_limit_is_refused(folder: Path, store: Store) -> None:
    (folder / "README.md").write_bytes(b"x" * (limits.CARD_BYTES + 1))
    refused(folder, store, LimitExceededError)


@pytest.mark.parametrize(
    "line",
    [
        '{"id":"a","id":"b","text":"x"}',
        '{"id":"a","text":NaN}',
        '{"id":"z","text":"x","confidence":1e999}',
        '{"id":"z","text":"\\ud800"}',
        '{"id":"z","text":' + "[" * 2000,
        "\x00",
        '{"id":"z","text":"x","attachments":["../../etc/passwd"]}',
        '{"text":"x"}',
    ],
    ids=lambda line: line[:30],
)
def test_a_hostile_record_is_refused_by_file_and_line(
    folder: Path, store: Store, line: str
) -> None:
    (folder / "plaintext" / "b.jsonl").write_text('{"id":"y","text":"x"}\n' + line)
    error = refused(folder, store, MemcubeError)
    assert "plaintext/b.jsonl, line 2" in str(error)


def test_a_config_that_smuggles_fields_is_refused(folder: Path, store: Store) -> None:
    with (folder / "memcube.toml").open("a") as toml:
        toml.write('[governance]\nexec = "rm -rf /"\n')
    refused(folder, store, InvalidConfigError)


@settings(
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.binary(max_size=64))
def test_any_bytes_in_the_place_of_a_cache_raise_only_our_errors(
    folder: Path, store: Store, content: bytes
) -> None:
    for name in ("manifest.json", "tokens.u32", "kv.safetensors"):
        (folder / "activation" / "a" / name).write_bytes(content)
    with pytest.raises(MemcubeError):
        pack_folder(folder, store)


def test_a_store_that_is_no_folder_is_said_to_be_none(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    with pytest.raises(StorageError):
        pack_folder(folder, Store(tmp_path / "store"))


def test_a_found_file_reads_no_more_than_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"a": "b" * 100}))
    with pytest.raises(LimitExceededError):
        FoundFile("a.json", path, 10).read(50)
