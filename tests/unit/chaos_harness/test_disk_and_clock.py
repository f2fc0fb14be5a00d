"""The faults that are no kills are real: a disk without room, and a wall clock that jumps."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from chaos.clock import Clock
from chaos.disk import Disk

DAY_S = 24 * 3600


def test_a_full_disk_takes_nothing_until_it_is_freed(tmp_path: Path) -> None:
    disk = Disk.mount(tmp_path / "disk")
    if disk is None:
        pytest.skip("mounting is not permitted here")
    try:
        kept = disk.folder / "kept"
        kept.write_bytes(b"before")
        disk.fill()
        with pytest.raises(OSError) as refused:
            (disk.folder / "more").write_bytes(bytes(1 << 20))
        assert refused.value.errno == errno.ENOSPC
        disk.free()
        (disk.folder / "more").write_bytes(bytes(1 << 20))
        assert kept.read_bytes() == b"before"
    finally:
        disk.unmount()
    assert not (tmp_path / "disk" / "kept").exists()


@pytest.mark.parametrize("shift_s", [-DAY_S, DAY_S])
def test_a_process_believes_a_clock_that_jumps_while_its_intervals_stay_true(
    tmp_path: Path, shift_s: int
) -> None:
    clock = Clock.build(tmp_path)
    if clock is None:
        pytest.skip("there is no C compiler")
    program = (
        "import sys, time\n"
        "for _ in sys.stdin:\n"
        "    print(time.time(), time.monotonic(), flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **clock.environment},
    ) as process:
        assert process.stdin

        def now() -> tuple[float, float]:
            assert process.stdin
            assert process.stdout
            process.stdin.write("\n")
            process.stdin.flush()
            wall, steady = process.stdout.readline().split()
            return float(wall), float(steady)

        before = now()
        clock.move(shift_s)
        after = now()
        process.stdin.close()
    assert abs(before[0] - time.time()) < 600
    assert abs(after[0] - before[0] - shift_s) < 600, "the wall clock jumped"
    assert 0 <= after[1] - before[1] < 600, "and no interval did"
