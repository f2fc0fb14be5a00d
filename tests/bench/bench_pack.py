"""Packing and pushing a cube of records that is larger than memory should need, against zstd and sha256sum."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from bench.bench_client import fresh_machine, make_cube, memcube, scratch, sentences
from support.measuring import GIB, MIB, Cost, report

SIZE_BYTES = 5 * GIB
__all__ = ["scratch"]


def write_records(path: Path, size_bytes: int) -> int:
    """Records of one to eight sentences until the file has that size; how many."""
    texts, chosen, written, number = sentences(), random.Random(3), 0, 0
    with path.open("w", buffering=MIB) as file:
        while written < size_bytes:
            text = "\n".join(chosen.choices(texts, k=chosen.randint(1, 8)))
            record = {"id": f"memory/{number:09}", "text": text, "tags": [f"topic-{number % 97}"]}
            written += file.write(json.dumps(record) + "\n")
            number += 1
    return number


def zstd_and_sha256(path: Path) -> float:
    """Wall seconds of `zstd -1 | sha256sum`."""
    began = time.perf_counter()
    subprocess.run(f"zstd -1 -T1 -q -c {path} | sha256sum", shell=True, check=True, stdout=subprocess.DEVNULL)  # fmt: skip
    return time.perf_counter() - began


def test_a_large_cube_of_records(scratch: Path) -> None:
    if shutil.which("zstd") is None:
        pytest.skip("zstd is not installed")
    folder = make_cube(scratch / "cube", 0, 0)
    path = folder / "plaintext" / "records.jsonl"
    count = write_records(path, SIZE_BYTES)
    size = path.stat().st_size
    rows = [["zstd -1 | sha256sum", size / MIB / zstd_and_sha256(path), "", ""]]
    with fresh_machine(scratch / "memcube") as (machine, pid):
        costs: dict[str, Cost] = {
            "memcube pack": memcube(machine, pid, "pack", folder),
            "memcube push, packed before": memcube(machine, pid, "push", "bench/cube:0.1.0"),
        }
    rows += [
        [what, size / MIB / cost.wall_s, cost.client_cpu_s, round(cost.peak_bytes / MIB)]
        for what, cost in costs.items()
    ]
    columns = ["5 GiB of records", "MiB of records a second", "client CPU s", "peak resident MiB"]
    report("pack", f"{count} records in one JSON Lines file of {size / GIB:.1f} GiB", columns, rows)
