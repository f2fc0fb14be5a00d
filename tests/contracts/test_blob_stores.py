"""The contract of every blob store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import pytest
from memcube_protocol.errors import (
    ConflictError,
    NotFoundError,
    RangeMismatchError,
    SizeMismatchError,
)
from memcube_registry.storage import BlobStore, LocalFiles, MemoryStore
from memcube_registry.storage.claims import MemoryClaims
from memcube_registry.storage.interface import PIECE_BYTES
from memcube_registry.storage.s3 import Bucket, Place, S3Store
from moto import mock_aws
from support.hub import hub_server
from support.swift import REGION, SwiftServer

UPLOAD = "0123456789abcdef0123456789abcdef"
OTHER = "fedcba9876543210fedcba9876543210"


def put(store: BlobStore, content: bytes, upload: str = UPLOAD) -> str:
    sink = store.open(upload, size=0)
    sink.write([content])
    sink.close()
    return store.finish(upload, size=len(content))


class BlobStoreContract:
    """What every BlobStore must do; subclass it once per store."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> BlobStore:
        raise NotImplementedError

    @pytest.mark.parametrize(
        "content",
        [b"", b"a", b"hello" * 1000, os.urandom(2 * PIECE_BYTES + 3)],
        ids=["nothing", "a byte", "a piece", "pieces"],
    )
    def test_reads_back_what_was_written(self, store: BlobStore, content: bytes) -> None:
        assert b"".join(store.read(put(store, content))) == content

    def test_reads_in_pieces_of_bounded_size(self, store: BlobStore) -> None:
        location = put(store, os.urandom(3 * PIECE_BYTES))
        assert max(map(len, store.read(location))) <= PIECE_BYTES

    def test_says_how_many_bytes_come(self, store: BlobStore) -> None:
        location = put(store, b"0123456789")
        sizes = [
            store.read(location, start=a, stop=b).size for a, b in ((0, None), (4, 6), (4, 99))
        ]
        assert sizes == [10, 2, 6]

    def test_a_read_that_was_closed_gives_no_more(self, store: BlobStore) -> None:
        pieces = store.read(put(store, b"0" * 3 * PIECE_BYTES))
        next(pieces)
        pieces.close()
        pieces.close()
        assert list(pieces) == []

    def test_can_say_whether_the_next_piece_is_at_hand(self, store: BlobStore) -> None:
        pieces = store.read(put(store, b"0" * 2 * PIECE_BYTES))
        assert [pieces.at_hand() for _ in pieces][-1]

    @pytest.mark.parametrize(
        ("start", "stop"), [(0, 1), (5, 10), (10, None), (0, 99), (99, 200), (0, 0), (3, 3)]
    )
    def test_reads_ranges(self, store: BlobStore, start: int, stop: int | None) -> None:
        content = bytes(range(100))
        location = put(store, content)
        assert b"".join(store.read(location, start=start, stop=stop)) == content[start:stop]

    def test_says_that_an_object_is_absent_before_the_first_piece(self, store: BlobStore) -> None:
        with pytest.raises(NotFoundError):
            store.read(UPLOAD)

    def test_the_same_content_gets_another_location_each_time(self, store: BlobStore) -> None:
        assert put(store, b"same") != put(store, b"same")

    def test_an_upload_goes_on_where_it_stopped(self, store: BlobStore) -> None:
        for at, piece in ((0, b"one "), (4, b"two "), (8, b"three")):
            sink = store.open(UPLOAD, size=at)
            sink.write([piece])
            sink.close()
        assert store.size(UPLOAD) == 13
        assert b"".join(store.read(store.finish(UPLOAD, size=13))) == b"one two three"

    def test_a_writer_can_undo_what_it_wrote_and_nothing_before(self, store: BlobStore) -> None:
        sink = store.open(UPLOAD, size=0)
        sink.write([b"kept"])
        sink.close()
        sink = store.open(UPLOAD, size=4)
        sink.write([b" lost"])
        sink.undo()
        sink.write([b" and more"])
        sink.close()
        assert b"".join(store.read(store.finish(UPLOAD, size=13))) == b"kept and more"

    def test_an_upload_is_not_finished_while_somebody_writes_to_it(self, store: BlobStore) -> None:
        sink = store.open(UPLOAD, size=0)
        sink.write([b"four"])
        with pytest.raises(ConflictError):
            store.finish(UPLOAD, size=4)
        sink.close()
        assert b"".join(store.read(store.finish(UPLOAD, size=4))) == b"four"

    @pytest.mark.parametrize("size", [0, 3, 5])
    def test_an_upload_is_continued_only_where_it_ends(self, store: BlobStore, size: int) -> None:
        sink = store.open(UPLOAD, size=0)
        sink.write([b"four"])
        sink.close()
        with pytest.raises(RangeMismatchError):
            store.open(UPLOAD, size=size)
        store.open(UPLOAD, size=4).close()
        assert b"".join(store.read(store.finish(UPLOAD, size=4))) == b"four"

    def test_an_upload_has_one_writer_at_a_time(self, store: BlobStore) -> None:
        sink = store.open(UPLOAD, size=0)
        with pytest.raises(ConflictError):
            store.open(UPLOAD, size=0)
        store.open(OTHER, size=0).close()
        sink.close()
        sink.close()
        store.open(UPLOAD, size=0).close()

    def test_an_upload_of_another_size_is_not_finished(self, store: BlobStore) -> None:
        sink = store.open(UPLOAD, size=0)
        sink.write([b"four"])
        sink.close()
        with pytest.raises(SizeMismatchError):
            store.finish(UPLOAD, size=5)
        assert not list(store.objects())

    def test_an_unknown_upload_is_empty(self, store: BlobStore) -> None:
        assert store.size(UPLOAD) == 0
        store.abort(UPLOAD)
        assert b"".join(store.read(store.finish(UPLOAD, size=0))) == b""

    def test_an_aborted_upload_leaves_nothing(self, store: BlobStore) -> None:
        sink = store.open(UPLOAD, size=0)
        sink.write([b"half"])
        sink.close()
        store.abort(UPLOAD)
        assert store.size(UPLOAD) == 0
        assert not list(store.uploads())
        assert not list(store.objects())

    def test_ending_an_upload_lets_go_of_its_name(self, store: BlobStore) -> None:
        first = put(store, b"first")
        assert store.size(UPLOAD) == 0
        assert put(store, b"second") != first
        assert b"".join(store.read(first)) == b"first"

    def test_lists_what_it_holds(self, store: BlobStore) -> None:
        location = put(store, b"object")
        store.open(OTHER, size=0).close()
        (kept,), (open_upload,) = list(store.objects()), list(store.uploads())
        assert kept.name == location
        assert open_upload.name == OTHER
        assert abs(datetime.now(UTC) - kept.written_at) < timedelta(minutes=1)

    def test_deletes_once_and_for_all(self, store: BlobStore) -> None:
        location = put(store, b"gone")
        store.delete(location)
        store.delete(location)
        with pytest.raises(NotFoundError):
            store.read(location)
        assert not list(store.objects())

    def test_a_reader_that_began_before_the_deletion_reads_to_the_end(
        self, store: BlobStore
    ) -> None:
        content = os.urandom(2 * PIECE_BYTES)
        location = put(store, content)
        pieces = store.read(location)
        first = next(pieces)
        store.delete(location)
        assert first + b"".join(pieces) == content

    def test_a_healthy_store_says_so_and_leaves_nothing_behind(self, store: BlobStore) -> None:
        store.check()
        assert not list(store.objects())
        assert not list(store.uploads())


class TestMemoryStore(BlobStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> BlobStore:
        return MemoryStore()


class TestLocalFiles(BlobStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> BlobStore:
        return LocalFiles(tmp_path)

    def test_an_object_is_as_old_as_its_finishing(self, store: BlobStore, tmp_path: Path) -> None:
        sink = store.open(UPLOAD, size=0)
        sink.write([b"slow"])
        sink.close()
        os.utime(tmp_path / "uploads" / UPLOAD, (0, 0))
        store.finish(UPLOAD, size=4)
        (kept,) = store.objects()
        assert abs(datetime.now(UTC) - kept.written_at) < timedelta(minutes=1)

    def test_an_object_has_the_name_of_its_upload_which_no_second_one_takes(
        self, store: BlobStore
    ) -> None:
        first, second = put(store, b"first"), put(store, b"second")
        assert first == UPLOAD != second
        assert b"".join(store.read(first)) == b"first"
        assert b"".join(store.read(second)) == b"second"


class TestS3OnSwift(BlobStoreContract):
    """Against a real server."""

    @pytest.fixture
    def store(self, s3_server: SwiftServer, monkeypatch: pytest.MonkeyPatch) -> BlobStore:
        for name, value in s3_server.environment.items():
            monkeypatch.setenv(name, value)
        return S3Store(Bucket(s3_server.place()), MemoryClaims())


class TestS3OnMoto(BlobStoreContract):
    """Against a model of the server in this process, for machines without a real one."""

    @pytest.fixture
    def store(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[BlobStore]:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        with mock_aws():
            bucket = Bucket(Place(bucket="cubes", prefix="registry/", region=REGION))
            boto3.client("s3", region_name=REGION).create_bucket(Bucket="cubes")
            yield S3Store(bucket, MemoryClaims())


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
class TestHubStore(BlobStoreContract):
    """Against a test server that speaks the Hub's API, through the Hub's own library."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[BlobStore]:
        hub_store = pytest.importorskip("memcube_registry.storage.hub")
        with hub_server(tmp_path / "hub") as hub:
            token = hub.state.token("acme")
            hub.state.create("dataset", "acme/blobs", private=True)
            place = hub_store.Place("acme/blobs", hub.url, token)
            yield hub_store.HubStore(hub_store.Dataset(place), tmp_path / "staging")
