"""What this machine was measured to do is remembered, and forgotten where it cannot be believed."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memcube.speeds import FILE, Prefill, Rate, Speeds, SpeedStore

NOW = datetime(2026, 11, 27, 12, 30, 15, 250, tzinfo=UTC)
MIB = 1 << 20


def test_what_was_measured_is_read_back(tmp_path: Path) -> None:
    store = SpeedStore(tmp_path / "home")
    assert store.load() == Speeds()
    figure = Prefill.through((64, 0.5), (256, 3.0), NOW)
    speeds = Speeds(Rate.at(1e9, NOW), Rate.at(4e9, NOW)).with_prefill("a model", figure)
    speeds = speeds.with_transfer("registry.example", 50 * MIB, 2.0, NOW)
    store.keep(speeds)
    assert store.load() == speeds
    assert store.load().networks["registry.example"].bytes_per_s == 25 * MIB


def test_a_new_transfer_counts_half_and_a_short_one_not_at_all() -> None:
    speeds = Speeds().with_transfer("hub", 100 * MIB, 1.0, NOW)
    speeds = speeds.with_transfer("hub", 50 * MIB, 1.0, NOW)
    assert speeds.networks["hub"].bytes_per_s == 75 * MIB
    assert speeds.with_transfer("hub", MIB - 1, 100.0, NOW) is speeds
    assert speeds.with_transfer("hub", 50 * MIB, 0.0, NOW) is speeds


def test_only_the_latest_registries_are_remembered() -> None:
    speeds = Speeds()
    for number in range(70):
        at = NOW + timedelta(minutes=number)
        speeds = speeds.with_transfer(f"host{number}", 2 * MIB, 1.0, at)
    assert len(speeds.networks) == 64
    assert "host5" not in speeds.networks
    assert "host69" in speeds.networks


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"{",
        b"[]",
        b'{"format":2,"disk":{},"networks":{},"prefills":{}}',
        b'{"format":1,"disk":{"cold":{"bytesPerSecond":NaN,"measuredAt":"2026-11-27T12:00:00Z"}}}',
        b'{"format":1,"disk":{"cold":{"bytesPerSecond":-1,"measuredAt":"2026-11-27T12:00:00Z"}}}',
        b'{"format":1,"disk":{"cold":{"bytesPerSecond":1e999,"measuredAt":"2026-11-27T12:00:00Z"}}}',
        b'{"format":1,"disk":{"cold":{"bytesPerSecond":1' + b"0" * 400 + b"}}}",
        b"[" * 100_000,
        b"x" * (MIB // 2),
    ],
)
def test_a_damaged_file_is_as_none(tmp_path: Path, damaged: bytes) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / FILE).write_bytes(damaged)
    assert SpeedStore(tmp_path).load() == Speeds()


def test_a_file_that_others_can_write_is_as_none(tmp_path: Path) -> None:
    store = SpeedStore(tmp_path / "home")
    store.keep(Speeds(cold=Rate.at(1.0, NOW)))
    (tmp_path / "home" / FILE).chmod(0o666)
    assert store.load() == Speeds()


def test_a_disk_that_refuses_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file in the way")
    SpeedStore(tmp_path / "home").keep(Speeds(cold=Rate.at(1.0, NOW)))


def test_the_file_says_when_each_figure_was_measured(tmp_path: Path) -> None:
    SpeedStore(tmp_path / "home").keep(Speeds(cold=Rate.at(2.5, NOW)))
    held = json.loads((tmp_path / "home" / FILE).read_bytes())
    assert held["disk"] == {"cold": {"bytesPerSecond": 2.5, "measuredAt": "2026-11-27T12:30:15Z"}}


@given(st.integers(1, 512), st.integers(1, 2048), st.floats(1e-6, 1e3), st.floats(1e-6, 1e3))
def test_the_curve_goes_through_the_longer_measurement_and_never_falls(
    few: int, more: int, few_s: float, many_s: float
) -> None:
    many = few + more
    figure = Prefill.through((few, few_s), (many, many_s), NOW)
    assert figure.seconds(many) == pytest.approx(many_s)
    assert figure.seconds(2 * many) >= 2 * figure.seconds(many) * 0.999
    if many_s / many > few_s / few and figure.quadratic_s:
        assert figure.seconds(few) == pytest.approx(few_s, rel=1e-6)
