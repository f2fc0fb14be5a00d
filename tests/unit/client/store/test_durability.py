"""What is on the disk when a ref is kept, by the order of calls: no kill of a process can show it."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from memcube.speeds import Speeds, SpeedStore
from memcube.store import Store
from memcube_protocol.digest import Digest
from memcube_protocol.reference import Reference

NOTES = Reference.parse("registry.example/ann/notes:1.0.0")
CUBE, STATEMENT = Digest.of(b"cube"), Digest.of(b"statement")


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is synced and what takes the place of what, as it happens."""
    found: list[str] = []
    fsync, move = os.fsync, Path.replace

    def noted_fsync(handle: int) -> None:
        fsync(handle)
        found.append(f"sync {Path(f'/proc/self/fd/{handle}').readlink().relative_to(tmp_path)}")

    def noted_replace(source: Path, target: Path) -> Path:
        found.append(f"replace with {source.relative_to(tmp_path)}")
        return move(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux names the file of a descriptor")
def test_each_of_several_refs_is_synced_before_its_name_and_their_folder_once_at_the_end(
    tmp_path: Path, steps: list[str]
) -> None:
    tags = ("1.0.0", "1.0", "1", "latest")
    Store(tmp_path).put_refs((replace(NOTES, tag=tag) for tag in tags), CUBE, ())
    *files, folder = steps
    assert folder == "sync refs"
    assert len(files) == 2 * len(tags)
    for synced, named in zip(files[::2], files[1::2], strict=True):
        assert named == synced.replace("sync", "replace with")


def test_what_is_said_of_a_cube_is_kept_with_every_ref_of_it_at_that_place(tmp_path: Path) -> None:
    store = Store(tmp_path)
    latest, other = replace(NOTES, tag="latest"), Reference.parse("other.example/ann/notes:1.0.0")
    store.put_refs((NOTES, latest, other), CUBE, ())
    store.put_ref(replace(NOTES, tag="2.0.0"), Digest.of(b"another"))
    store.relate(NOTES.location, CUBE, STATEMENT)
    store.relate(NOTES.location, CUBE, STATEMENT)
    related = {str(ref.reference.host): ref.related for ref in store.refs() if ref.digest == CUBE}
    assert related == {"registry.example": (STATEMENT,), "other.example": ()}
    assert [ref.related for ref in store.refs() if ref.digest != CUBE] == [()]


def test_what_can_be_measured_again_waits_for_no_disk_and_may_be_lost(
    tmp_path: Path, steps: list[str]
) -> None:
    speeds = SpeedStore(tmp_path)
    speeds.keep(Speeds())
    assert not [step for step in steps if step.startswith("sync")]
    for path in tmp_path.iterdir():
        path.write_bytes(b"")
    assert speeds.load() == Speeds()
