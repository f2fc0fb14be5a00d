"""The Python of the guide "Memory for any program" runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import memcube
import pytest
from memcube.dumper import MemDumper
from memcube.mounting import MountedMemory

for package in ("qdrant_edge", "langchain_core", "langgraph.store.base"):
    pytest.importorskip(package)
GUIDE = Path(__file__).parents[3] / "docs" / "guide" / "memory-for-any-program.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def test_every_block_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from memcube.integrations.langgraph import MemcubeStore

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEMCUBE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MEMCUBE_KEYRING", "0")
    for name, text in (
        ("alice/notes", "A backup is tested by reading it back."),
        ("acme/handbook", "On call this week: who has the phone."),
    ):
        dumper = MemDumper(tmp_path / name, name=name, version="1.0.0")
        dumper.add_records([text])
        memcube.pack(dumper.folder)
    names: dict[str, object] = {"memcube": memcube}
    assert len(BLOCKS) == 3
    for block in BLOCKS:
        exec(block, names)
        memory, store = names["memory"], names.get("store")
        assert isinstance(memory, MountedMemory)
        if isinstance(store, MemcubeStore):
            assert (tmp_path / "my-notes" / "memcube.toml").is_file()
        memory.close()
    assert "read" in str(names["documents"])
