"""A blob whose bytes the store has lost: nobody is told that it is there, and the next push heals it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from memcube_protocol.digest import Digest
from memcube_protocol.errors import MissingContentError, NotFoundError
from memcube_registry.blobs import service, uploading
from memcube_registry.blobs.direct import Found, OpenDirect
from memcube_registry.blobs.models import Blob
from memcube_registry.checking.content import Sample
from memcube_registry.checking.findings import Report, Rule
from memcube_registry.checking.service import Thoroughness, check
from memcube_registry.database import Database
from memcube_registry.manifests.collecting import ORPHAN_AGE
from memcube_registry.storage import BlobStore, LocalFiles, size_at
from memcube_registry.storage.claims import MemoryClaims
from memcube_registry.storage.s3 import Bucket, Place, S3Store
from sqlalchemy import event
from sqlmodel import select
from support.direct import NAME, DirectCore
from support.moto import MotoServer, moto_server
from support.registry_core import Core
from support.swift import ACCESS_KEY, REGION, SECRET_KEY

CONTENT = b"what ann remembers"
DIGEST = Digest.of(CONTENT)


@pytest.fixture(scope="module")
def moto() -> Iterator[MotoServer]:
    with moto_server() as server:
        yield server


@pytest.fixture(params=["local", "s3"])
def store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> BlobStore:
    if request.param == "local":
        return LocalFiles(tmp_path / "blobs")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    moto: MotoServer = request.getfixturevalue("moto")
    place = Place(
        bucket=moto.bucket(), endpoint_url=moto.endpoint_url, region=REGION, path_style=True
    )
    return S3Store(Bucket(place), MemoryClaims())


@pytest.fixture
def ann(sqlite_url: str, store: BlobStore) -> Iterator[Core]:
    """Somebody whose cube has one version of one file."""
    with closing(Database(sqlite_url)) as database:
        core = Core(database, store)
        core.principal = core.person("ann")
        core.push_blob(NAME, CONTENT)
        core.push_manifest(NAME, [CONTENT], "latest")
        yield core


def row(core: Core) -> Blob:
    with core.database.read() as session:
        return session.exec(select(Blob).where(Blob.digest == str(DIGEST))).one()


def repair(core: Core, sample: int | None = None) -> Report:
    how = Thoroughness(Sample(sample, 0), marks=True)
    return check(core.database, core.store, how, core.now)


def lose(core: Core) -> str:
    """Let the store lose the bytes; where they lay."""
    location = row(core).location
    core.store.delete(location)
    return location


def content(core: Core) -> bytes:
    with core.database.read() as session:
        found = service.find(session.connection(), core.principal, NAME, DIGEST)
    return b"".join(core.store.read(found.location))


def mounts(core: Core, source: str | None) -> bool:
    ask = (core.principal, "ann/other", DIGEST, source, core.now)
    return core.database.run(lambda session: service.mount(session, *ask)) is not None


def test_a_check_that_only_reads_marks_nothing(ann: Core) -> None:
    lose(ann)
    check(ann.database, ann.store, Thoroughness(Sample(None, 0)), ann.now)
    assert row(ann).lost_at is None


def test_what_is_marked_as_lost_is_claimed_by_nobody(ann: Core) -> None:
    lose(ann)
    report = repair(ann)
    assert report.counts == {Rule.BLOB_MISSING: 1}
    assert report.checked["marked_as_lost"] == 1
    with pytest.raises(NotFoundError, match="are lost"):
        ann.look(NAME, DIGEST)
    assert not mounts(ann, NAME)
    assert not mounts(ann, None)
    with pytest.raises(MissingContentError, match=str(DIGEST)):
        ann.push_manifest(NAME, [CONTENT], "again")


def test_pushing_it_again_heals_it(ann: Core) -> None:
    lost = lose(ann)
    repair(ann)
    used = ann.used_bytes("ann")
    ann.push_blob(NAME, CONTENT)
    assert content(ann) == CONTENT
    assert (row(ann).lost_at, ann.used_bytes("ann")) == (None, used)
    assert row(ann).location != lost
    assert repair(ann).findings == ()
    assert mounts(ann, NAME)


def test_a_push_that_brings_the_bytes_heals_what_no_check_has_found(ann: Core) -> None:
    lose(ann)
    ann.push_blob(NAME, CONTENT)
    assert content(ann) == CONTENT
    assert repair(ann).findings == ()


def test_a_push_leaves_bytes_that_are_there_where_they_are(ann: Core) -> None:
    before = row(ann).location
    ann.push_blob(NAME, CONTENT)
    assert row(ann).location == before
    assert len(list(ann.store.objects())) == 2, "the layer and the config"


def test_a_new_blob_becomes_visible_in_one_transaction_and_a_known_one_in_two(ann: Core) -> None:
    begun: list[object] = []
    event.listen(ann.database.engine, "begin", begun.append)
    ann.push_blob(NAME, b"new")
    assert len(begun) == 2, "one began the upload"
    ann.push_blob(NAME, b"new")
    assert len(begun) == 5


def test_what_is_collected_while_the_known_bytes_are_looked_for_is_not_the_new_ones(
    ann: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose(ann)

    def collects(store: BlobStore, location: str, expected_bytes: int) -> int:
        ann.wait(hours=2)
        ann.collect(ORPHAN_AGE)
        return size_at(store, location, expected_bytes)

    monkeypatch.setattr(uploading, "size_at", collects)
    ann.push_blob(NAME, CONTENT)
    assert content(ann) == CONTENT
    assert repair(ann).findings == ()


def test_bytes_that_come_back_need_no_push(ann: Core) -> None:
    lost = lose(ann)
    repair(ann)
    sink = ann.store.open(lost, size=0)
    sink.write([CONTENT])
    sink.close()
    back = ann.store.finish(lost, size=len(CONTENT))
    with ann.database.write() as session:
        found = session.exec(select(Blob).where(Blob.digest == str(DIGEST))).one()
        found.location = (
            back  # a bucket names objects as it likes; an operator restores them in place
        )
        session.add(found)
    report = repair(ann, sample=0)
    assert (report.findings, report.checked["found_again"]) == ((), 1)
    assert row(ann).lost_at is None
    ann.look(NAME, DIGEST)


def test_a_stranger_who_pushes_the_same_bytes_heals_them_and_sees_no_more_than_before(
    ann: Core,
) -> None:
    bob = ann.person("bob")
    lose(ann)
    repair(ann)
    ann.push_blob("bob/notes", CONTENT, bob)
    assert content(ann) == CONTENT
    assert not ann.has_blob(NAME, DIGEST, bob)


@pytest.mark.parametrize("store", ["local"], indirect=True)
@pytest.mark.parametrize(
    ("damage", "rule"), [(CONTENT[:-1], Rule.BLOB_SIZE), (bytes(len(CONTENT)), Rule.BLOB_DIGEST)]
)
def test_damaged_bytes_make_way_for_those_that_are_pushed(
    ann: Core, damage: bytes, rule: Rule
) -> None:
    assert isinstance(ann.store, LocalFiles)
    damaged = ann.store._object(row(ann).location)
    damaged.chmod(0o600)
    damaged.write_bytes(damage)
    assert repair(ann).counts == {rule: 1}
    ann.push_blob(NAME, CONTENT)
    ann.collect()
    assert content(ann) == CONTENT
    assert not damaged.exists()


@pytest.mark.parametrize("store", ["s3"], indirect=True)
def test_a_direct_push_is_asked_for_the_bytes_and_heals_them(ann: Core) -> None:
    direct = DirectCore.of(ann)
    try:
        assert direct.announce(CONTENT) is Found.PRESENT
        lose(ann)
        repair(ann)
        asked = direct.announce(CONTENT)
        assert isinstance(asked, OpenDirect)
        assert direct.put(asked, CONTENT) == [200]
        direct.complete(asked)
        assert content(ann) == CONTENT
        assert direct.announce(CONTENT) is Found.PRESENT
    finally:
        direct.prover.stop()
