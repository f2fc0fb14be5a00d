"""Attacks on a backup by another user of the machine, who can look into its folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from memcube_protocol.digest import Digest
from memcube_registry.backups.pool import Pool

SECRET = b"a private cube"


def modes(folder: Path) -> list[int]:
    return [path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()]


def test_nobody_else_reads_a_blob_in_a_folder_that_was_open_before(tmp_path: Path) -> None:
    """Neither when it is whole nor while it is written."""
    pool, seen = Pool(tmp_path), list[int]()
    tmp_path.chmod(0o755)
    pool.prepare()

    def pieces() -> Iterator[bytes]:
        yield SECRET[:4]
        seen.extend(modes(tmp_path))
        yield SECRET[4:]

    pool.add(str(Digest.of(SECRET)), pieces())
    assert [mode & 0o077 for mode in (*seen, *modes(tmp_path))] == [0, 0]
