"""Disks that are full or cannot be written: a named error, nothing half-visible, what came is kept."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from memcube.http import HttpClient, RetryPolicy
from memcube.remote import Registry
from memcube.settings import Settings
from memcube.store import Store
from memcube.transfer import pull_blobs
from memcube_protocol import limits, media_types
from memcube_protocol.content import Expected
from memcube_protocol.digest import Digest
from memcube_protocol.errors import DiskFullError, ReadOnlyError
from memcube_protocol.oci import Descriptor
from memcube_protocol.reference import Reference
from support.scripted import Answer, Scripted, scripted

CONTENT = os.urandom(limits.MIB)
BLOB = Descriptor.of(media_types.RECORDS, CONTENT)


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MiB."""
    folder = tmp_path / "tmpfs"
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(["mount", *options], capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("this machine has no mount")
    if mounted.returncode:
        pytest.skip("this user may not mount a tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def full(tmpfs: Path) -> Store:
    """A store on a disk with about half a mebibyte left."""
    store = Store(tmpfs / "store")
    store.blobs.add(b"first")
    (tmpfs / "others").write_bytes(bytes(2 * limits.MIB + limits.MIB // 2))
    return store


def registry(server: Scripted) -> Registry:
    settings = Settings.load({"MEMCUBE_HOME": "/nonexistent"})
    retry = RetryPolicy(attempts=2, sleep=lambda seconds: None)
    http = HttpClient(settings, find_credentials=lambda host: None, retry=retry)
    return Registry(server.host, http, settings)


def test_a_pull_that_cannot_fit_is_refused_before_a_byte_is_asked_for(full: Store) -> None:
    with scripted(lambda request: Answer(body=CONTENT)) as server:
        with pytest.raises(DiskFullError, match="bytes are to be fetched") as caught:
            pull_blobs(registry(server), "a/b", [BLOB], full)
        assert not server.received
    assert "prune" in str(caught.value.hint)


def test_a_disk_that_fills_up_on_the_way_keeps_what_came_for_the_next_time(
    full: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memcube.transfer._require_space", lambda store, blobs: None)
    asked = []

    def script(request: object) -> Answer:
        start = int(request.headers.get("range", "bytes=0-")[6:].partition("-")[0])  # type: ignore[attr-defined]
        asked.append(start)
        headers = {"Content-Range": f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"}
        return Answer(206 if start else 200, headers, CONTENT[start:])

    with scripted(script) as server:  # type: ignore[arg-type]
        with pytest.raises(DiskFullError):
            pull_blobs(registry(server), "a/b", [BLOB], full)
        assert not full.has(BLOB.digest)
        (full.root.parent / "others").unlink()
        pull_blobs(registry(server), "a/b", [BLOB], full)
    assert full.has(BLOB.digest, BLOB.size)
    assert asked[0] == 0
    assert asked[-1] > 0


def test_writers_leave_nothing_half_visible_on_a_full_disk(full: Store) -> None:
    with pytest.raises(DiskFullError):
        full.blobs.add(CONTENT)
    with (
        full.blobs.ingest(Expected(BLOB.digest, BLOB.size)) as ingest,
        pytest.raises(DiskFullError),
    ):
        ingest.write(CONTENT)
    assert [digest for digest, _ in full.blobs] == [Digest.of(b"first")]


@pytest.fixture
def read_only(tmpfs: Path) -> Store:
    """A store with one blob and one ref, on a disk that was then made read-only."""
    store = Store(tmpfs / "store")
    digest, _ = store.blobs.add(b"first")
    store.put_ref(Reference.parse("registry.example/a/b:1"), digest)
    subprocess.run(["mount", "-o", "remount,ro", str(tmpfs)], check=True)
    return Store(tmpfs / "store")


def test_a_read_only_store_still_reads(read_only: Store) -> None:
    digest = Digest.of(b"first")
    assert read_only.has(digest)
    assert b"".join(read_only.read(digest)) == b"first"
    assert [ref.digest for ref in read_only.refs()] == [digest]
    for mark in (read_only.root / "marks").iterdir():
        assert mark.exists()
    assert Store(read_only.root, strict=True).has(digest)
    with read_only.session():
        assert read_only.damaged() == []


def test_a_read_only_store_says_so_when_written(read_only: Store) -> None:
    with pytest.raises(ReadOnlyError) as caught:
        read_only.blobs.add(b"second")
    assert "MEMCUBE_HOME" in str(caught.value.hint)
    with pytest.raises(ReadOnlyError):
        read_only.blobs.ingest(Expected(BLOB.digest))
    with pytest.raises(ReadOnlyError):
        read_only.put_ref(Reference.parse("registry.example/a/b:2"), Digest.of(b"first"))
    with pytest.raises(ReadOnlyError):
        read_only.remove_ref(Reference.parse("registry.example/a/b:1"))
    with pytest.raises(ReadOnlyError):
        read_only.prune()
    with (
        scripted(lambda request: Answer(body=CONTENT)) as server,
        pytest.raises(ReadOnlyError),
    ):
        pull_blobs(registry(server), "a/b", [BLOB], read_only)


def test_a_store_of_another_user_is_read_only_too(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    tmp_path.chmod(0o755)
    store = Store(tmp_path / "store")
    store.blobs.add(b"first")
    script = (
        "import os, sys; from pathlib import Path; from memcube.store import Store\n"
        "from memcube_protocol.errors import ReadOnlyError\n"
        "store = Store(Path(sys.argv[1])); os.setgid(65534); os.setuid(65534)\n"
        "try: store.blobs.add(b'second')\n"
        "except ReadOnlyError: print('refused')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(store.root)], capture_output=True, text=True, check=False
    )
    assert done.stdout == "refused\n", done.stderr
