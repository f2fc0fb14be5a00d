"""How fast records are indexed, mounted and found, against qdrant-client's local mode and LanceDB.

`MEMCUBE_BENCH_RECORDS` are the numbers of records, divided by commas. Each contestant is a process of its
own (tests/bench/searching.py). How well they find is measured in bench_search_quality.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.measuring import report

ROOT = Path(__file__).parents[2]
PAGES = ROOT.parent / "shared/data/tldr/pages.jsonl.gz"
RECORDS = os.environ.get("MEMCUBE_BENCH_RECORDS", "10000,100000,1000000")
QUESTIONS = {"memcube, words": 1000, "memcube, both (LSA)": 1000, "LanceDB, words": 300}
FEW = 20
"""Questions to those that read everything for each."""
MOST_RECORDS = {"qdrant-client, local mode": 100_000, "LanceDB, words": 1_000_000}
COLUMNS = (
    *("records", "searched with", "built in s", "peak MiB", "MB on disk"),
    *("mounted in ms", "memory MiB", "query p50 ms", "p99 ms"),
)


@pytest.mark.skipif(not PAGES.exists(), reason="the shared tldr pages are not here")
def test_build_mount_and_query(tmp_path: Path) -> None:
    rows = [
        row
        for count in map(int, RECORDS.split(","))
        for name in ("memcube, words", "memcube, both (LSA)", *MOST_RECORDS)
        if count <= MOST_RECORDS.get(name, count) and (row := told(name, count, tmp_path))
    ]
    title = "Indexing and searching; to qdrant-client's local mode 20 questions"
    report("search_speed", title, COLUMNS, rows)


def told(name: str, count: int, folder: Path) -> list[object] | None:
    """The row of one contestant; nothing where what it needs is not installed."""
    asked = QUESTIONS.get(name, FEW)
    place = folder / f"{name} {count}".replace(", ", "-")
    ran = subprocess.run(
        [
            sys.executable,
            str(Path(__file__).with_name("searching.py")),
            *(name, str(PAGES), str(count), str(asked), str(place)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode and "No module named 'lancedb'" in ran.stderr:
        return None
    assert ran.returncode == 0, ran.stderr[-2000:]
    value = json.loads(ran.stdout.splitlines()[-1])
    return [
        count,
        name,
        *(f"{value[key]:.1f}" for key in ("build_s", "peak_mib", "disk_mb", "mount_ms")),
        *(f"{value['memory_mib']:.0f}", f"{value['p50_ms']:.2f}", f"{value['p99_ms']:.2f}"),
    ]
