import fcntl
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memcube.store import Store
from memcube_protocol.content import Cell, Commitment, Expected, merkle_root, read_verified
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    ConflictError,
    DigestMismatchError,
    NotFoundError,
    SizeMismatchError,
    StorageError,
)

CONTENT = b"memory " * 1000


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_reads_back_what_was_written(store: Store) -> None:
    for algorithm in ("sha256", "sha512"):
        digest, size = store.blobs.add(CONTENT, algorithm)
        assert (digest, size) == (Digest.of(CONTENT, algorithm), len(CONTENT))
        assert read_verified(store, digest) == CONTENT


@given(st.integers(0, 7001), st.none() | st.integers(0, 7001))
def test_a_range_is_the_same_slice_of_the_content(
    tmp_path_factory: pytest.TempPathFactory, start: int, stop: int | None
) -> None:
    store = Store(tmp_path_factory.mktemp("store"))
    digest, _ = store.blobs.add(CONTENT)
    assert b"".join(store.read(digest, start=start, stop=stop)) == CONTENT[start:stop]


def test_files_and_folders_are_private(store: Store) -> None:
    digest, _ = store.blobs.add(CONTENT)
    path = store.path(digest)
    assert path.stat().st_mode & 0o777 == 0o600
    while path != store.root:
        path = path.parent
        assert path.stat().st_mode & 0o777 == 0o700


def test_what_the_store_does_not_hold_is_not_found(store: Store) -> None:
    digest = Digest.of(CONTENT)
    assert not store.has(digest)
    with pytest.raises(NotFoundError):
        store.path(digest)
    with pytest.raises(NotFoundError):
        b"".join(store.read(digest))


def test_a_blob_is_visible_only_when_it_is_right(store: Store) -> None:
    digest = Digest.of(CONTENT)
    with store.blobs.ingest(Expected(digest, len(CONTENT))) as ingest:
        ingest.write(CONTENT[:-1])
        assert not store.has(digest)
        ingest.write(CONTENT[-1:])
        assert not store.has(digest)
        ingest.commit()
    assert store.has(digest, len(CONTENT))


def test_a_writer_goes_on_where_the_last_one_stopped(store: Store) -> None:
    expected = Expected(Digest.of(CONTENT), len(CONTENT))
    with store.blobs.ingest(expected) as ingest:
        ingest.write(CONTENT[:3000])
    with store.blobs.ingest(expected) as ingest:
        assert ingest.offset == 3000
        ingest.write(CONTENT[3000:])
        assert ingest.commit() == Digest.of(CONTENT)


def test_wrong_bytes_are_thrown_away(store: Store) -> None:
    expected = Expected(Digest.of(CONTENT), len(CONTENT))
    with store.blobs.ingest(expected) as ingest:
        ingest.write(b"x" * len(CONTENT))
        with pytest.raises(DigestMismatchError):
            ingest.commit()
    with store.blobs.ingest(expected) as ingest:
        assert ingest.offset == 0
        with pytest.raises(SizeMismatchError):
            ingest.write(CONTENT + b"x")
    assert not store.has(Digest.of(CONTENT))
    assert not list(store.blobs.partial.iterdir())


def test_a_leftover_longer_than_the_blob_is_begun_anew(store: Store) -> None:
    expected = Expected(Digest.of(CONTENT), len(CONTENT))
    with store.blobs.ingest(expected) as ingest:
        ingest.write(CONTENT)
    (leftover,) = store.blobs.partial.iterdir()
    leftover.write_bytes(CONTENT + b"more")
    with store.blobs.ingest(expected) as ingest:
        assert ingest.offset == 0


def test_a_personal_copy_is_kept_under_its_own_digest(store: Store) -> None:
    cells = (Cell(4, 0, b"s" * 16, b"o" * 32), Cell(3, 1, b"t" * 16, b"p" * 32))
    root = merkle_root([cells[0].leaf(b"abcd"), cells[1].leaf(b"efg")])
    with store.blobs.ingest(Expected(Commitment(root, 2), cells=cells)) as ingest:
        ingest.write(b"abcdefg")
        assert ingest.commit() == Digest.of(b"abcdefg")
    assert read_verified(store, Digest.of(b"abcdefg")) == b"abcdefg"


def test_one_blob_has_one_writer_at_a_time(store: Store) -> None:
    expected = Expected(Digest.of(CONTENT), len(CONTENT))
    with store.blobs.ingest(expected), pytest.raises(ConflictError):
        store.blobs.ingest(expected, wait_s=0.1)


def test_a_second_writer_waits_and_then_finds_the_blob(store: Store) -> None:
    expected = Expected(Digest.of(CONTENT), len(CONTENT))
    first = store.blobs.ingest(expected)
    found = []

    def second() -> None:
        with store.blobs.ingest(expected) as ingest:
            found.append((ingest.offset, store.has(Digest.of(CONTENT))))
            ingest.discard()

    thread = threading.Thread(target=second)
    thread.start()
    first.write(CONTENT)
    first.commit()
    first.close()
    thread.join()
    assert found == [(0, True)]


def test_a_changed_file_is_found_and_removed(store: Store) -> None:
    digest, _ = store.blobs.add(CONTENT)
    path = store.path(digest)
    path.write_bytes(b"X" + CONTENT[1:])
    with pytest.raises(DigestMismatchError):
        store.path(digest)
    assert store.damaged() == [digest]
    assert not store.has(digest)
    assert not path.exists()


def test_a_change_that_keeps_size_and_time_is_found_by_its_change_time(store: Store) -> None:
    digest, _ = store.blobs.add(CONTENT)
    path = store.path(digest)
    looks = path.stat()
    path.write_bytes(b"X" + CONTENT[1:])
    os.utime(path, ns=(looks.st_atime_ns, looks.st_mtime_ns))
    assert not store.has(digest)


def test_a_verified_blob_is_not_hashed_again_unless_strict(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest, _ = store.blobs.add(CONTENT)
    hashed: list[Expected] = []
    monkeypatch.setattr(
        type(store.blobs), "_verify", lambda self, descriptor, expected: hashed.append(expected)
    )
    store.path(digest)
    assert not hashed
    store.path(digest, strict=True)
    Store(store.root, strict=True).path(digest)
    assert len(hashed) == 2


def test_marks_of_an_earlier_boot_and_of_shared_folders_do_not_count(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest, _ = store.blobs.add(CONTENT)
    hashed: list[Expected] = []
    monkeypatch.setattr(
        type(store.blobs), "_verify", lambda self, descriptor, expected: hashed.append(expected)
    )
    for mark in (store.root / "marks").iterdir():
        line = mark.read_text().split(" ")
        mark.write_text(" ".join([*line[:-1], "another-boot\n"]))
    store.path(digest)
    assert len(hashed) == 1
    store.path(digest)
    assert len(hashed) == 1
    store.root.chmod(0o777)
    store.path(digest)
    assert len(hashed) == 2


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\n", b"a b\nc d e f g\n", b"x" * 100])
def test_damaged_marks_cost_only_time(store: Store, content: bytes) -> None:
    digest, _ = store.blobs.add(CONTENT)
    for mark in (store.root / "marks").iterdir():
        mark.write_bytes(content)
    assert store.has(digest)


def test_links_are_refused(store: Store, tmp_path: Path) -> None:
    digest, _ = store.blobs.add(CONTENT)
    path = store.path(digest)
    elsewhere = tmp_path / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    with pytest.raises(StorageError, match="not a regular file"):
        store.path(digest)


def test_a_folder_that_is_a_link_is_refused(store: Store, tmp_path: Path) -> None:
    store.root.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (store.root / "blobs").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="not a folder"):
        store.blobs.add(CONTENT)


def test_a_file_is_copied_into_the_store(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "kv.safetensors"
    source.write_bytes(CONTENT)
    with source.open("rb", buffering=0) as file:
        digest, size = store.blobs.add_copy(file)
    source.write_bytes(b"changed")
    assert read_verified(store, digest, size) == CONTENT


@pytest.mark.parametrize("size", [0, 1, 256 * 1024, (1 << 20) + 17])
def test_a_file_of_any_size_is_copied_whole(store: Store, tmp_path: Path, size: int) -> None:
    source, content = tmp_path / "kv.safetensors", os.urandom(size)
    source.write_bytes(content)
    with source.open("rb", buffering=0) as file:
        assert store.blobs.add_copy(file) == (Digest.of(content), size)
    assert read_verified(store, Digest.of(content), size) == content


def test_where_a_file_system_shares_blocks_the_digest_is_that_of_the_copy(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is written to right after: the copy, which shares its old blocks, keeps the old bytes."""
    source, content = tmp_path / "kv.safetensors", os.urandom((1 << 20) + 17)
    source.write_bytes(content)

    def share(target: int, request: int, shared: int) -> int:
        assert request == 0x40049409
        os.write(target, os.pread(shared, len(content), 0))
        source.write_bytes(b"changed")
        return 0

    monkeypatch.setattr(fcntl, "ioctl", share)
    with source.open("rb", buffering=0) as file:
        digest, size = store.blobs.add_copy(file)
    assert digest == Digest.of(content)
    assert read_verified(store, digest, size) == content


def test_an_interrupted_copy_leaves_nothing(store: Store) -> None:
    def pieces() -> object:
        yield b"abc"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.blobs.add(pieces())  # type: ignore[arg-type]
    assert not list(store.blobs.partial.iterdir())
