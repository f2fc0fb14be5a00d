"""An overlay that several processes write, and that is killed: what was acknowledged is there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from memcube.memories.plaintext.index import records_of
from memcube.overlay import Overlay
from memcube.packing.pack import pack_folder
from memcube.store import Store

WRITER = """
import itertools, sys
from memcube.overlay import Overlay
overlay = Overlay.open(sys.argv[1])
for number in itertools.count():
    print(overlay.remember(f"{sys.argv[2]} {number} " + "word " * 200).id, flush=True)
"""


def writer(folder: Path, name: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(folder), name]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_killed_writers_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    folder = tmp_path / "notes"
    acknowledged: set[str] = set()
    for turn in range(2):
        processes = [writer(folder, f"{turn}-{name}") for name in ("one", "two")]
        try:
            for process in processes:
                assert process.stdout is not None
                acknowledged |= {process.stdout.readline().strip() for _ in range(10)}
        finally:
            for process in processes:
                process.kill()
        for process in processes:
            assert process.stdout is not None
            acknowledged |= {line.strip() for line in process.stdout if line.endswith("\n")}
            process.stdout.close()
            process.wait()
    assert len(acknowledged) >= 40
    overlay = Overlay.open(folder)
    assert acknowledged <= {record.id for record in overlay.records()}
    store = Store(tmp_path / "store")
    packed = pack_folder(folder, store)
    assert acknowledged <= {record.id for record in records_of(packed.cube.manifest, store)}
