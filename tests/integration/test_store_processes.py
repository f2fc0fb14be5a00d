"""One store, several processes at once: they add, name, forget and prune, and lose nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from memcube.store import Store

WORK = """
import sys
from datetime import timedelta
from pathlib import Path
from memcube.store import Store
from memcube_protocol import media_types, oci
from memcube_protocol.errors import ConflictError
from memcube_protocol.oci import Descriptor
from memcube_protocol.reference import Reference
store, who = Store(Path(sys.argv[1])), sys.argv[2]
for n in range(25):
    with store.session():
        shared = Descriptor(media_types.RECORDS, *store.blobs.add(b"shared" * 5000))
        own = Descriptor(media_types.RECORDS, *store.blobs.add(f"{who} {n}".encode() * 1000))
        config = Descriptor(media_types.CONFIG, *store.blobs.add(b"{}"))
        cube = oci.write_manifest(
            artifact_type=media_types.CUBE, config=config, layers=[shared, own])
        store.blobs.add(cube.raw)
        store.put_ref(Reference.parse(f"registry.example/{who}/notes:{n}.0.0"), cube.digest)
    if n % 5 == 4:
        store.remove_ref(Reference.parse(f"registry.example/{who}/notes:{n - 4}.0.0"))
        try:
            store.prune(young=timedelta(0))
        except ConflictError:
            print("busy")
"""


def test_processes_share_a_store_without_losing_what_is_named(tmp_path: Path) -> None:
    both = [
        subprocess.Popen([sys.executable, "-c", WORK, str(tmp_path / "store"), f"user{n}"])
        for n in range(3)
    ]
    assert [process.wait(100) for process in both] == [0, 0, 0]
    store = Store(tmp_path / "store", strict=True)
    assert len(store.refs()) == 3 * 20
    assert store.damaged() == []
    needed = store.locations("registry.example")
    assert all(store.has(digest) for digest in needed)
    assert not list(store.blobs.partial.iterdir())
