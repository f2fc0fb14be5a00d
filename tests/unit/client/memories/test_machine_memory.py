"""How much memory is free: of the machine, or of a container's share of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from memcube.memories.machine_memory import free_bytes

MIB = 1024 * 1024


@pytest.fixture
def meminfo(tmp_path: Path) -> Path:
    path = tmp_path / "meminfo"
    path.write_text("MemTotal:  4096 kB\nMemAvailable:     2048 kB\n")
    return path


def group_of(folder: Path, most: str, used: int, spare: int) -> Path:
    folder.mkdir()
    (folder / "memory.max").write_text(f"{most}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 7\ninactive_file {spare}\nslab 3\n")
    return folder


def test_the_machine_tells_what_is_available(meminfo: Path, tmp_path: Path) -> None:
    assert free_bytes(meminfo, tmp_path / "none") == 2 * MIB


def test_a_container_with_less_decides(meminfo: Path, tmp_path: Path) -> None:
    small = group_of(tmp_path / "small", str(MIB), MIB // 2, MIB // 4)
    assert free_bytes(meminfo, small) == MIB // 2 + MIB // 4
    full = group_of(tmp_path / "full", str(MIB), 2 * MIB, 0)
    assert free_bytes(meminfo, full) == 0


def older_group_of(folder: Path, most: int, used: int, spare: int) -> Path:
    """As version 1 of control groups tells it: in a folder of its own, and the whole below `total_`."""
    (folder / "memory").mkdir(parents=True)
    (folder / "memory" / "memory.limit_in_bytes").write_text(f"{most}\n")
    (folder / "memory" / "memory.usage_in_bytes").write_text(f"{used}\n")
    stat = f"inactive_file 1\ntotal_cache 9\ntotal_inactive_file {spare}\n"
    (folder / "memory" / "memory.stat").write_text(stat)
    return folder


def test_a_container_of_the_older_kind_decides_as_well(meminfo: Path, tmp_path: Path) -> None:
    small = older_group_of(tmp_path / "small", MIB, MIB // 2, MIB // 4)
    assert free_bytes(meminfo, small) == MIB // 2 + MIB // 4
    endless = older_group_of(tmp_path / "endless", (1 << 63) - 4096, MIB, 0)
    assert free_bytes(meminfo, endless) == 2 * MIB
    assert free_bytes(tmp_path / "absent", endless) is None


def test_a_container_without_a_limit_has_what_the_machine_has(
    meminfo: Path, tmp_path: Path
) -> None:
    assert free_bytes(meminfo, group_of(tmp_path / "any", "max", MIB, 0)) == 2 * MIB
    large = group_of(tmp_path / "large", str(64 * MIB), MIB, 0)
    assert free_bytes(meminfo, large) == 2 * MIB


@pytest.mark.parametrize("told", ["", "MemAvailable:\n", "MemAvailable: many kB\n"])
def test_where_nothing_is_told_nothing_is_known(tmp_path: Path, told: str) -> None:
    (tmp_path / "meminfo").write_text(told)
    assert free_bytes(tmp_path / "meminfo", tmp_path / "none") is None
    assert free_bytes(tmp_path / "absent", tmp_path / "none") is None


def test_this_machine_has_some() -> None:
    assert free_bytes() is None or free_bytes()
