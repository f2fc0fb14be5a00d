"""An upload that is refused leaves nothing: not even the cube that it would have been the first of."""

from __future__ import annotations

from contextlib import closing
from datetime import timedelta

import pytest
from memcube_protocol.digest import Digest
from memcube_protocol.errors import QuotaExceededError
from memcube_registry.blobs import uploading
from memcube_registry.blobs.models import Upload
from memcube_registry.blobs.uploading import OpenUpload
from memcube_registry.catalog.models import Repository, Visibility
from memcube_registry.catalog.service import delete_cube, set_visibility
from memcube_registry.database import Database
from memcube_registry.storage.claims import MemoryClaims
from memcube_registry.storage.s3 import Bucket, Place, S3Store
from sqlmodel import select
from support.direct import NAME, DirectCore
from support.moto import moto_server
from support.registry_core import Core
from support.swift import ACCESS_KEY, REGION, SECRET_KEY

ROOM = 1000


@pytest.fixture
def ann(database: Database) -> Core:
    """Somebody with room for 1000 bytes."""
    core = Core(database)
    core.principal = core.person("ann", quota_bytes=ROOM)
    return core


def begin(core: Core) -> OpenUpload:
    return core.database.run(lambda s: uploading.begin(s, core.principal, NAME, core.now))


def cancel(core: Core, upload: OpenUpload) -> None:
    uploading.cancel(core.database, core.store, core.principal, NAME, upload.id)


def rows(core: Core) -> tuple[list[str], int]:
    """The cubes that there are, and how many uploads."""
    with core.database.read() as session:
        names = list(session.exec(select(Repository.name)))
        return names, len(session.exec(select(Upload.id)).all())


def test_a_blob_that_does_not_fit_leaves_no_cube(ann: Core) -> None:
    with pytest.raises(QuotaExceededError):
        ann.push_blob(NAME, bytes(ROOM + 1))
    assert rows(ann) == ([], 0)
    assert list(ann.store.objects()) == []


def test_an_upload_that_is_cancelled_leaves_no_cube(ann: Core) -> None:
    one, other = begin(ann), begin(ann)
    cancel(ann, one)
    assert rows(ann) == ([NAME], 1), "the other one goes on"
    cancel(ann, other)
    assert rows(ann) == ([], 0)


def test_an_upload_that_nobody_uses_ends_with_its_cube(ann: Core) -> None:
    begin(ann)
    ann.wait(days=2)
    assert ann.collect(timedelta(0)).uploads_expired == 1
    assert rows(ann) == ([], 0)


def test_a_cube_that_holds_something_stays(ann: Core) -> None:
    ann.push_blob(NAME, b"kept")
    cancel(ann, begin(ann))
    assert rows(ann) == ([NAME], 0)


def test_a_cube_that_somebody_made_public_stays(ann: Core) -> None:
    upload = begin(ann)
    ann.database.run(lambda s: set_visibility(s, ann.principal, NAME, Visibility.PUBLIC))
    cancel(ann, upload)
    assert rows(ann) == ([NAME], 0)


def test_the_versions_of_a_deleted_cube_stay_retired(ann: Core) -> None:
    ann.push_manifest(NAME, [], "1.0.0")
    ann.database.run(lambda s: delete_cube(s, ann.principal, NAME, ann.now))
    cancel(ann, begin(ann))
    assert rows(ann) == ([NAME], 0)


def test_a_mount_of_nothing_makes_no_cube(ann: Core) -> None:
    from memcube_registry.blobs import service

    ask = (ann.principal, NAME, Digest.of(b"nowhere"), None, ann.now)
    assert ann.database.run(lambda session: service.mount(session, *ask)) is None
    assert rows(ann) == ([], 0)


def test_an_announcement_that_does_not_fit_leaves_no_cube(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    with moto_server() as moto, closing(Database(sqlite_url)) as database:
        place = Place(
            bucket=moto.bucket(), endpoint_url=moto.endpoint_url, region=REGION, path_style=True
        )
        core = Core(database, S3Store(Bucket(place), MemoryClaims()))
        core.principal = core.person("ann", quota_bytes=ROOM)
        direct = DirectCore.of(core)
        try:
            with pytest.raises(QuotaExceededError):
                direct.announce(bytes(ROOM + 1))
            assert rows(core) == ([], 0)
            begun = direct.begin(bytes(ROOM))
            assert rows(core) == ([NAME], 1)
            direct.uploads.cancel(core.principal, begun.upload.id)
            assert rows(core) == ([], 0)
        finally:
            direct.prover.stop()
