"""Garbage collection of a bucket: what killed writers left goes, what somebody still needs stays."""

import os
from datetime import timedelta

import pytest
from memcube_protocol.digest import Digest
from memcube_registry.blobs import uploading
from memcube_registry.blobs.uploading import NewBlob
from memcube_registry.database import Database, utc_now
from memcube_registry.storage import claims as memory_claims
from memcube_registry.storage.claim_table import DatabaseClaims
from memcube_registry.storage.s3 import Bucket, S3Store
from memcube_registry.storage.s3.bucket import new_location
from memcube_registry.storage.s3.pulse import Pulse
from support.registry_core import Core
from support.swift import SwiftServer

NAME = "ada/notes"
PART_BYTES = 5 << 20


@pytest.fixture
def bucket(s3: SwiftServer) -> Bucket:
    return Bucket(s3.place())


@pytest.fixture
def core(bucket: Bucket, database: Database) -> Core:
    """A registry on the bucket whose clock is the bucket's: objects cannot be made older."""
    core = Core(database, S3Store(bucket, DatabaseClaims(database)), now=utc_now())
    core.principal = core.person("ada")
    return core


def begin(core: Core, content: bytes) -> str:
    """An upload of `content` that is not finished."""
    upload = core.database.run(lambda s: uploading.begin(s, core.principal, NAME, core.now))
    sink = core.store.open(upload.id, size=0)
    sink.write([content])
    sink.close()
    return upload.id


def use(core: Core, upload: str) -> None:
    core.database.run(lambda s: uploading.record(s, upload, 1, core.now))


def names(bucket: Bucket) -> set[str]:
    return {each.name for page in bucket.objects() for each in page}


def test_leftovers_go_and_blobs_and_living_uploads_stay(core: Core, bucket: Bucket) -> None:
    content = os.urandom(PART_BYTES + 9)
    core.push_manifest(NAME, [], "v1")
    small = names(bucket)
    large = core.push_blob(NAME, content)
    abandoned, living = begin(core, content), begin(core, os.urandom(PART_BYTES + 5))
    stray, orphan = bucket.begin(new_location()), new_location()
    bucket.put_part(stray, 1, content)
    bucket.put(orphan, b"the tail of a writer that was killed")
    core.wait(days=3)
    use(core, living)
    core.look(NAME, large)
    for _ in range(3):
        core.collect()
        core.wait(minutes=11)
    assert orphan not in names(bucket)
    assert core.store.size(abandoned) == 0
    assert [each.name for each in core.store.uploads()] == [living]
    assert len(list(bucket.multiparts())) == 1, "of all uploads in parts, the living one's is left"
    location = core.store.finish(living, size=PART_BYTES + 5)
    assert sum(map(len, core.store.read(location))) == PART_BYTES + 5
    assert core.has_blob(NAME, large)
    (kept,) = names(bucket) - {location} - small
    assert b"".join(core.store.read(kept)) == content


def test_what_is_being_pushed_is_not_swept_however_soon_collections_follow(
    core: Core, bucket: Bucket
) -> None:
    upload = begin(core, os.urandom(PART_BYTES + 5))
    sink = core.store.open(upload, size=PART_BYTES + 5)
    sink.write([os.urandom(PART_BYTES)])
    for _ in range(3):
        core.collect()
    sink.close()
    core.collect()
    assert core.store.size(upload) == 2 * PART_BYTES + 5
    core.store.finish(upload, size=2 * PART_BYTES + 5)


def test_the_claim_of_an_upload_whose_object_is_gone_goes(core: Core, database: Database) -> None:
    upload = begin(core, b"memory")
    location = core.store.finish(upload, size=6)
    core.database.run(lambda s: uploading.end(s, upload))
    core.store.delete(location)  # and killed before the store could let go of the upload
    claims = DatabaseClaims(database)
    core.collect()
    assert [each.upload for each in claims.all()] == [upload], "too young: it may be of a push"
    core.wait(days=3)
    core.collect()
    assert not list(claims.all())


def test_what_a_killed_writer_sent_goes_with_its_upload(core: Core, bucket: Bucket) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory_claims, "LEASE", timedelta(seconds=-1))
        patch.setattr(Pulse, "add", lambda self, owner: None)
        upload = core.database.run(lambda s: uploading.begin(s, core.principal, NAME, core.now))
        core.store.open(upload.id, size=0).write([os.urandom(3 * PART_BYTES)])
    assert list(bucket.multiparts())
    core.wait(days=3)
    for _ in range(2):
        core.collect()
    assert not list(bucket.multiparts())
    assert not list(core.store.uploads())
    assert not names(bucket)


@pytest.mark.parametrize("size", [5, PART_BYTES + 5])
def test_bytes_between_their_finish_and_their_row_stay_however_far_the_clock_jumps(
    core: Core, size: int
) -> None:
    content = os.urandom(size)
    upload = core.database.run(lambda s: uploading.begin(s, core.principal, NAME, core.now))
    sink = core.store.open(upload.id, size=0)
    sink.write([content])
    sink.close()
    blob = NewBlob(Digest.of(content), size, core.store.finish(upload.id, size=size))
    core.wait(hours=23)
    assert core.collect(timedelta(0)).orphans_removed == 0
    uploading.complete(core.database, core.store, core.principal, upload, blob, core.now)
    core.wait(hours=23)
    core.collect()
    assert b"".join(core.store.read(blob.location)) == content
    assert [each.upload for each in core.store.objects()] == [None], "its upload was forgotten"
