"""What is durable when a push is acknowledged, by the order of calls: no kill of a process can show it."""

import os
import sys
from contextlib import closing
from pathlib import Path

import pytest
from memcube_registry.database import Database
from memcube_registry.storage import LocalFiles
from sqlalchemy import event
from support.registry_core import Core


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux names the file of a descriptor")
def test_bytes_and_name_of_a_blob_are_on_the_disk_before_its_row_is_committed(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def noted_fsync(handle: int) -> None:
        fsync(handle)
        place = Path(f"/proc/self/fd/{handle}").readlink().relative_to(tmp_path)
        steps.append(
            f"fsync {place.parts[0]}/…" if place.parts[0] == "uploads" else f"fsync {place}"
        )

    def noted_rename(source: Path, target: Path) -> Path:
        steps.append(f"rename to {target.parent.relative_to(tmp_path)}")
        return rename(source, target)

    with closing(Database(sqlite_url)) as database:
        database.migrate()
        core = Core(database, LocalFiles(tmp_path))
        core.principal = core.person("ada")
        monkeypatch.setattr(os, "fsync", noted_fsync)
        monkeypatch.setattr(Path, "rename", noted_rename)
        event.listen(database.engine, "commit", lambda _: steps.append("commit"))
        core.push_blob("ada/notes", b"content")
        (kept,) = core.store.objects()
    shard = f"blobs/{kept.name[:2]}"
    last = ["fsync uploads/…", f"rename to {shard}", f"fsync {shard}", "commit"]
    assert steps[-4:] == last


def test_a_commit_in_sqlite_waits_for_the_disk(sqlite_url: str) -> None:
    with closing(Database(sqlite_url)) as database:
        for sessions in (database.read, database.write):
            with sessions() as session:
                ask = session.connection().exec_driver_sql
                assert ask("PRAGMA synchronous").scalar_one() == 2  # FULL
                assert ask("PRAGMA journal_mode").scalar_one() == "wal"
