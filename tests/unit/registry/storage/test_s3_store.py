"""The S3 driver beyond the contract: parts, replicas, crashes, leftovers. On a real server."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from memcube_protocol.errors import (
    ConflictError,
    LimitExceededError,
    NotFoundError,
    RangeMismatchError,
    SizeMismatchError,
    StorageError,
)
from memcube_registry.database import Database
from memcube_registry.storage import claims as memory_claims
from memcube_registry.storage.claim_table import DatabaseClaims
from memcube_registry.storage.claims import Claims, MemoryClaims
from memcube_registry.storage.s3 import Bucket, S3Store, writing
from memcube_registry.storage.s3.bucket import Part, new_location
from memcube_registry.storage.s3.pulse import Pulse
from support.swift import SwiftServer

UPLOAD = "0123456789abcdef0123456789abcdef"
PART_BYTES = 5 << 20
"""As conftest.py sets it: the least that S3 takes."""


@pytest.fixture
def bucket(s3: SwiftServer) -> Bucket:
    return Bucket(s3.place(prefix="registry/"))


@pytest.fixture
def claims() -> Claims:
    return MemoryClaims()


@pytest.fixture
def blobs(bucket: Bucket, claims: Claims) -> S3Store:
    return S3Store(bucket, claims)


@contextmanager
def silence() -> Iterator[None]:
    """Who opens an upload meanwhile is not heard of any more, like a process that was killed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory_claims, "LEASE", timedelta(seconds=-1))
        patch.setattr(Pulse, "add", lambda self, owner: None)
        yield


def write(blobs: S3Store, content: bytes, *, at: int = 0, batch_bytes: int = 3 << 20) -> None:
    sink = blobs.open(UPLOAD, size=at)
    for start in range(0, len(content), batch_bytes):
        sink.write([content[start : start + batch_bytes]])
    sink.close()


def read(blobs: S3Store, location: str) -> bytes:
    return b"".join(blobs.read(location))


def is_clean(blobs: S3Store, bucket: Bucket, *kept: str) -> bool:
    """Whether nothing but `kept` lies in the bucket or is known of."""
    held = {each.name for page in bucket.objects() for each in page}
    return held == set(kept) and not list(blobs.uploads())


@pytest.mark.parametrize("extra", [-1, 0, 1, 12345])
def test_a_stream_of_several_parts_reads_back_and_leaves_nothing(
    blobs: S3Store, bucket: Bucket, extra: int
) -> None:
    content = os.urandom(3 * PART_BYTES + extra)
    write(blobs, content)
    assert blobs.size(UPLOAD) == len(content)
    location = blobs.finish(UPLOAD, size=len(content))
    assert read(blobs, location) == content
    assert is_clean(blobs, bucket, location)


def test_chunks_of_any_size_become_parts_of_one_size(blobs: S3Store, bucket: Bucket) -> None:
    content, at = os.urandom(2 * PART_BYTES + 700_000), 0
    for size in (1, 99_999, 4 << 20, 0, 6 << 20, 300_000):
        write(blobs, content[at : at + size], at=at)
        at += size
    write(blobs, content[at:], at=at)
    location = blobs.finish(UPLOAD, size=len(content))
    assert read(blobs, location) == content
    assert is_clean(blobs, bucket, location)


def test_what_fits_no_part_is_one_object_from_the_beginning(blobs: S3Store, bucket: Bucket) -> None:
    write(blobs, b"small")
    ((held,),) = (list(page) for page in bucket.objects())
    assert not list(bucket.multiparts())
    assert not list(blobs.objects()), "an upload is no object yet"
    assert blobs.finish(UPLOAD, size=5) == held.name
    assert [each.name for each in blobs.objects()] == [held.name]


def test_another_replica_continues_and_finishes_an_upload(
    bucket: Bucket, database: Database
) -> None:
    here, there = (S3Store(bucket, DatabaseClaims(database)) for _ in range(2))
    content = os.urandom(2 * PART_BYTES + 5)
    write(here, content[: PART_BYTES + 3])
    assert there.size(UPLOAD) == PART_BYTES + 3
    write(there, content[PART_BYTES + 3 :], at=PART_BYTES + 3)
    assert read(here, here.finish(UPLOAD, size=len(content))) == content
    assert there.size(UPLOAD) == 0


def test_two_replicas_do_not_write_to_one_upload(bucket: Bucket, database: Database) -> None:
    here, there = (S3Store(bucket, DatabaseClaims(database)) for _ in range(2))
    sink = here.open(UPLOAD, size=0)
    sink.write([b"mine"])
    for refused in (
        lambda: there.open(UPLOAD, size=0),
        lambda: there.finish(UPLOAD, size=0),
    ):
        with pytest.raises(ConflictError):
            refused()
    sink.close()
    there.open(UPLOAD, size=4).close()


def test_of_two_writers_at_once_one_is_refused(bucket: Bucket, database: Database) -> None:
    stores = [S3Store(bucket, DatabaseClaims(database)) for _ in range(8)]
    opened, start = [], threading.Barrier(len(stores))

    def race(blobs: S3Store) -> None:
        start.wait()
        with suppress(ConflictError):
            opened.append(blobs.open(UPLOAD, size=0))

    threads = [threading.Thread(target=race, args=(blobs,)) for blobs in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 1
    opened[0].close()


def test_a_writer_that_slept_too_long_changes_nothing_any_more(
    bucket: Bucket, claims: Claims
) -> None:
    sleeper, other = S3Store(bucket, claims), S3Store(bucket, claims)
    with silence():
        sink = sleeper.open(UPLOAD, size=0)
        sink.write([os.urandom(PART_BYTES + 1)])
    content = os.urandom(2 * PART_BYTES)
    following = other.open(UPLOAD, size=0)
    following.write([content[: PART_BYTES + 9]])
    with pytest.raises(ConflictError):
        sink.close()
    following.write([content[PART_BYTES + 9 :]])
    following.close()
    assert read(other, other.finish(UPLOAD, size=len(content))) == content


def test_a_killed_writer_loses_what_came_after_its_last_checkpoint(
    bucket: Bucket, claims: Claims
) -> None:
    content = os.urandom(3 * PART_BYTES)
    with silence():
        killed = S3Store(bucket, claims).open(UPLOAD, size=0)
        killed.write([content[: 2 * PART_BYTES + 77]])
    after = S3Store(bucket, claims)
    kept = after.size(UPLOAD)
    assert kept == PART_BYTES, "of the second part nobody had heard that it arrived"
    write(after, content[kept:], at=kept)
    assert read(after, after.finish(UPLOAD, size=len(content))) == content


def test_undo_after_checkpoints_returns_to_what_was_there(blobs: S3Store, bucket: Bucket) -> None:
    before = os.urandom(PART_BYTES + 50)
    write(blobs, before)
    sink = blobs.open(UPLOAD, size=len(before))
    for _ in range(3):
        sink.write([os.urandom(PART_BYTES)])
    sink.undo()
    sink.write([b" and no more"])
    sink.close()
    location = blobs.finish(UPLOAD, size=len(before) + 12)
    assert read(blobs, location) == before + b" and no more"
    assert is_clean(blobs, bucket, location)


def test_undo_of_a_whole_upload_leaves_no_parts(blobs: S3Store, bucket: Bucket) -> None:
    sink = blobs.open(UPLOAD, size=0)
    sink.write([os.urandom(2 * PART_BYTES)])
    sink.undo()
    sink.close()
    assert blobs.size(UPLOAD) == 0
    assert not list(bucket.multiparts())
    blobs.abort(UPLOAD)
    assert is_clean(blobs, bucket)


def test_a_wrong_size_leaves_the_upload_as_it_was(blobs: S3Store) -> None:
    content = os.urandom(PART_BYTES + 5)
    write(blobs, content)
    with pytest.raises(SizeMismatchError):
        blobs.finish(UPLOAD, size=len(content) + 1)
    with pytest.raises(RangeMismatchError):
        blobs.open(UPLOAD, size=len(content) - 1)
    assert read(blobs, blobs.finish(UPLOAD, size=len(content))) == content


def test_an_aborted_upload_leaves_neither_parts_nor_a_tail(blobs: S3Store, bucket: Bucket) -> None:
    write(blobs, os.urandom(2 * PART_BYTES + 5))
    assert len(list(bucket.multiparts())) == 1
    blobs.abort(UPLOAD)
    assert not list(bucket.multiparts())
    assert is_clean(blobs, bucket)


def test_a_writer_whose_upload_was_aborted_hears_of_it(blobs: S3Store) -> None:
    sink = blobs.open(UPLOAD, size=0)
    sink.write([os.urandom(PART_BYTES + 1)])
    blobs.abort(UPLOAD)
    with pytest.raises((ConflictError, StorageError)):
        sink.close()
    assert blobs.size(UPLOAD) == 0


def test_a_completion_whose_answer_was_lost_can_be_asked_again(bucket: Bucket) -> None:
    multipart = bucket.begin(new_location())
    parts = [bucket.put_part(multipart, 1, b"all of it")]
    bucket.complete(multipart, parts)
    bucket.complete(multipart, parts)
    assert bucket.size(multipart.location) == 9
    bucket.delete(multipart.location)
    with pytest.raises(StorageError):
        bucket.complete(multipart, parts)


def test_parts_that_were_changed_meanwhile_are_not_completed(bucket: Bucket) -> None:
    multipart = bucket.begin(new_location())
    bucket.put_part(multipart, 1, b"one")
    with pytest.raises(StorageError):
        bucket.complete(multipart, [Part('"d41d8cd98f00b204e9800998ecf8427e"', 3)])
    bucket.abort(multipart)
    bucket.abort(multipart)


def test_leftovers_of_killed_writers_are_found_and_removed(blobs: S3Store, bucket: Bucket) -> None:
    """A part that no claim knows of, and a tail that was never noted."""
    stray = bucket.begin(new_location())
    bucket.put_part(stray, 1, os.urandom(PART_BYTES))
    tail = new_location()
    bucket.put(tail, b"tail")
    assert [each.name for each in blobs.uploads()] == [stray.location]
    assert [each.name for each in blobs.objects()] == [tail]
    blobs.abort(stray.location)
    blobs.delete(tail)
    assert not list(bucket.multiparts())
    assert is_clean(blobs, bucket)


@pytest.mark.parametrize("size", [0, 5, PART_BYTES + 5])
def test_an_object_is_known_by_its_upload_until_that_is_forgotten(
    blobs: S3Store, size: int
) -> None:
    """S3 dates a multipart object from its beginning, and clocks jump: age alone makes no orphan."""
    content = os.urandom(size)
    write(blobs, content)
    first = blobs.finish(UPLOAD, size=size)
    assert [(each.name, each.upload) for each in blobs.objects()] == [(first, UPLOAD)]
    assert not list(blobs.uploads()), "it is over"
    write(blobs, b"once more")
    second = blobs.finish(UPLOAD, size=9)
    assert {(each.name, each.upload) for each in blobs.objects()} == {
        (first, UPLOAD),
        (second, UPLOAD),
    }
    blobs.abort(UPLOAD)
    assert {(each.name, each.upload) for each in blobs.objects()} == {(first, None), (second, None)}
    assert read(blobs, first) == content


def test_what_a_writer_puts_is_hidden_before_the_claim_tells_of_it(
    blobs: S3Store, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    real = MemoryClaims.keep

    def look(claims: MemoryClaims, *arguments: str, **options: bool) -> None:
        seen.append([*(each.name for each in blobs.objects())])
        seen.append([*(each.name for each in blobs.uploads())])
        real(claims, *arguments, **options)

    monkeypatch.setattr(MemoryClaims, "keep", look)
    write(blobs, os.urandom(PART_BYTES - 1))
    write(blobs, os.urandom(PART_BYTES), at=PART_BYTES - 1)
    assert list(bucket.multiparts())
    assert seen.count([]) == seen.count([UPLOAD]) == len(seen) // 2 > 1


def test_more_parts_than_s3_takes_are_refused(
    blobs: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "PARTS", 1)
    sink = blobs.open(UPLOAD, size=0)
    with pytest.raises(LimitExceededError):
        sink.write([bytes(2 * PART_BYTES)])
    sink.close()
    assert blobs.size(UPLOAD) == PART_BYTES


def test_a_url_gives_the_object_to_anybody_for_a_while(bucket: Bucket, claims: Claims) -> None:
    blobs = S3Store(bucket, claims, url_expiry_s=60)
    content = os.urandom(1000)
    write(blobs, content)
    location = blobs.finish(UPLOAD, size=1000)
    url = blobs.url(location, media_type="application/octet-stream")
    assert url
    with urlopen(Request(url, headers={"Range": "bytes=10-19"})) as answer:
        assert answer.status == 206
        assert answer.headers["Content-Type"] == "application/octet-stream"
        assert answer.read() == content[10:20]
    with pytest.raises(HTTPError, match="403"):
        urlopen(url.replace(location, new_location()))
    with pytest.raises(HTTPError, match="403"):
        urlopen(url.replace("application%2Foctet-stream", "text%2Fhtml"))


def test_urls_name_the_server_as_clients_reach_it(s3: SwiftServer, claims: Claims) -> None:
    place = s3.place(public_endpoint_url="https://objects.example.org")
    blobs = S3Store(Bucket(place), claims, url_expiry_s=60)
    url = blobs.url(new_location(), media_type="application/octet-stream")
    assert url
    assert url.startswith(f"https://objects.example.org/{place.bucket}/blobs/")
    assert "X-Amz-Expires=60" in url


def test_a_store_that_streams_gives_no_urls(blobs: S3Store) -> None:
    assert blobs.url(new_location(), media_type="application/octet-stream") is None


@pytest.mark.parametrize(
    "name", ["", "../x", "A" * 32, "0" * 31, "0" * 33, "check", "0" * 31 + "/"]
)
def test_names_that_the_registry_did_not_make_are_refused(blobs: S3Store, name: str) -> None:
    acts = (blobs.read, blobs.size, blobs.abort, blobs.delete)
    for act in acts:
        with pytest.raises(StorageError):
            act(name)


def test_what_others_put_into_the_bucket_is_left_alone(
    s3: SwiftServer, blobs: S3Store, bucket: Bucket
) -> None:
    blobs.check()
    place = s3.place(prefix="registry/")
    client = s3.client()
    for key in ("registry/blobs/notes.txt", "registry/other", f"{new_location()}"):
        client.put_object(Bucket=place.bucket, Key=key, Body=b"theirs")
    assert not list(S3Store(Bucket(place), MemoryClaims()).objects())


def test_a_bucket_that_is_not_there_is_named_as_the_cause(s3: SwiftServer) -> None:
    place = s3.place()
    s3.client().delete_bucket(Bucket=place.bucket)
    blobs = S3Store(Bucket(place), MemoryClaims())
    with pytest.raises(StorageError, match="NoSuchBucket") as caught:
        blobs.check()
    assert "s3_bucket" in (caught.value.hint or "")


def test_wrong_credentials_are_named_as_the_cause(
    s3: SwiftServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    blobs = S3Store(Bucket(s3.place()), MemoryClaims())
    with pytest.raises(StorageError, match="SignatureDoesNotMatch"):
        blobs.check()


def test_an_absent_object_is_told_from_a_store_that_fails(blobs: S3Store) -> None:
    with pytest.raises(NotFoundError):
        blobs.read(new_location())
    with pytest.raises(NotFoundError):
        blobs.read(new_location(), start=5, stop=5)
