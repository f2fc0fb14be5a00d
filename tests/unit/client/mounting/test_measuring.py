"""Figures of this machine: measured once, by what a mount does."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from memcube.mounting import measuring
from memcube.speeds import Speeds
from support.models import model_of

NOW = datetime(2026, 11, 27, tzinfo=UTC)


def test_the_disk_is_measured_once_and_nothing_is_left_there(tmp_path: Path) -> None:
    speeds = measuring.with_disk(Speeds(), tmp_path / "home", NOW)
    assert speeds.cold
    assert speeds.warm
    assert min(speeds.cold.bytes_per_s, speeds.warm.bytes_per_s) > 1 << 20
    assert list((tmp_path / "home").iterdir()) == []
    assert measuring.with_disk(speeds, tmp_path / "another", NOW) is speeds
    assert not (tmp_path / "another").exists()


def test_a_file_that_was_just_read_is_warm_and_an_evicted_one_is_told(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(4 << 20))
    path.read_bytes()
    assert measuring.warm_share(path) in (0.0, 1.0)  # 0.0: this file system does not tell
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)
    assert 0.0 <= measuring.warm_share(path) <= 1.0
    assert measuring.warm_share(tmp_path / "absent") == 0.0
    (tmp_path / "empty").touch()
    assert measuring.warm_share(tmp_path / "empty") == 0.0


def test_a_model_is_measured_once_by_its_shape_and_not_by_its_weights() -> None:
    model, same, other = model_of(), model_of(seed=5), model_of(num_hidden_layers=2)
    speeds = measuring.with_model(Speeds(), model, NOW)
    (mark,) = speeds.prefills
    assert speeds.prefills[mark].seconds(100) > 0
    assert speeds.prefills[mark].tokens == 512, "no longer than the model reads"
    assert measuring.with_model(speeds, same, NOW) is speeds
    assert len(measuring.with_model(speeds, other, NOW).prefills) == 2


def test_a_disk_or_a_device_that_refuses_is_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    assert measuring.with_disk(Speeds(), tmp_path / "file", NOW) == Speeds()

    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("memcube.memories.activation.dump.prefill", full)
    assert measuring.with_model(Speeds(), model_of(), NOW) == Speeds()


def test_measuring_leaves_the_model_in_its_mode() -> None:
    pytest.importorskip("torch")
    model = model_of().train()
    measuring.measure_prefill(model, NOW)
    assert model.training
