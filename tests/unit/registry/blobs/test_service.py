"""Blobs per repository: mounts, deletion, quotas and what each account is counted."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    ConflictError,
    LimitExceededError,
    NotFoundError,
    QuotaExceededError,
)
from memcube_registry.accounts.principal import Principal
from memcube_registry.blobs import service, uploading
from memcube_registry.blobs.models import BlobLink, Upload
from memcube_registry.database import Database
from memcube_registry.delivery.service import Form
from sqlmodel import select
from support.registry_core import Core
from support.statements import counted

NAME = "ada/notes"


@pytest.fixture
def core(database: Database) -> Core:
    core = Core(database)
    core.principal = core.person("ada")
    return core


def mount(core: Core, who: Principal, target: str, digest: Digest, source: str | None) -> bool:
    found = core.database.run(lambda s: service.mount(s, who, target, digest, source, core.now))
    return found is not None


def test_content_is_stored_once_however_often_it_is_pushed(core: Core) -> None:
    bob = core.person("bob")
    core.push_blob(NAME, b"same")
    core.push_blob("ada/other", b"same")
    core.push_blob("bob/notes", b"same", bob)
    assert len(list(core.store.objects())) == 1
    assert core.used_bytes("ada") == 4
    assert core.used_bytes("bob") == 4


def test_ones_own_blob_is_found_for_a_mount_without_a_source(core: Core) -> None:
    digest = core.push_blob(NAME, b"mine")
    assert mount(core, core.principal, "ada/other", digest, None)
    assert core.has_blob("ada/other", digest)
    assert core.used_bytes("ada") == 4


def test_the_private_blob_of_another_is_never_found(core: Core) -> None:
    bob = core.person("bob")
    digest = core.push_blob(NAME, b"private")
    assert not mount(core, bob, "bob/notes", digest, NAME)
    assert not mount(core, bob, "bob/notes", digest, None)
    assert not core.has_blob("bob/notes", digest, bob)


def test_the_public_blob_of_another_is_found(core: Core) -> None:
    bob = core.person("bob")
    digest = core.push_blob(NAME, b"public")
    core.publish(NAME)
    assert mount(core, bob, "bob/notes", digest, None)
    assert core.used_bytes("bob") == 6


@pytest.mark.parametrize("form", [Form.SEALED, Form.MARKED])
def test_sealed_and_marked_blobs_are_neither_served_nor_mounted(core: Core, form: Form) -> None:
    digest = core.push_blob(NAME, b"precious")
    core.publish(NAME)
    with core.database.write() as session:
        row = session.exec(select(BlobLink)).one()
        row.form = form
        session.add(row)
    assert not mount(core, core.principal, "ada/other", digest, NAME)
    assert not mount(core, core.principal, "ada/other", digest, None)
    assert not core.has_blob(NAME, digest)


def test_a_deleted_blob_is_gone_at_once_and_no_longer_counted(core: Core) -> None:
    digest = core.push_blob(NAME, b"gone")
    core.database.run(lambda s: service.delete(s, core.principal, NAME, digest))
    assert not core.has_blob(NAME, digest)
    assert core.used_bytes("ada") == 0
    with pytest.raises(NotFoundError):
        core.database.run(lambda s: service.delete(s, core.principal, NAME, digest))


def test_a_blob_that_a_manifest_names_is_not_deleted(core: Core) -> None:
    digest = core.push_blob(NAME, b"needed")
    core.push_manifest(NAME, [b"needed"], "latest")
    with pytest.raises(ConflictError):
        core.database.run(lambda s: service.delete(s, core.principal, NAME, digest))
    assert core.has_blob(NAME, digest)


def test_a_quota_is_refused_before_a_byte_is_sent(core: Core) -> None:
    eve = core.person("eve", quota_bytes=10)
    upload = core.database.run(lambda s: uploading.begin(s, eve, "eve/x", core.now))
    core.database.run(lambda s: uploading.announce(s, upload, 10, core.now))
    with pytest.raises(QuotaExceededError):
        core.database.run(lambda s: uploading.announce(s, upload, 11, core.now))


def test_uploads_that_are_open_together_share_the_quota(core: Core) -> None:
    eve = core.person("eve", quota_bytes=10)
    one, two = (
        core.database.run(lambda s: uploading.begin(s, eve, "eve/x", core.now)) for _ in range(2)
    )
    core.database.run(lambda s: uploading.announce(s, one, 6, core.now))
    with pytest.raises(QuotaExceededError):
        core.database.run(lambda s: uploading.announce(s, two, 6, core.now))


def test_what_exceeds_the_quota_at_the_end_leaves_nothing(core: Core) -> None:
    eve = core.person("eve", quota_bytes=3)
    with pytest.raises(QuotaExceededError):
        core.push_blob("eve/x", b"four", eve)
    assert not list(core.store.objects())
    assert core.used_bytes("eve") == 0


def test_mounting_costs_quota_too(core: Core) -> None:
    eve = core.person("eve", quota_bytes=3)
    digest = core.push_blob(NAME, b"four")
    core.publish(NAME)
    with pytest.raises(QuotaExceededError):
        mount(core, eve, "eve/x", digest, NAME)


def test_an_upload_belongs_to_its_account_and_repository(core: Core) -> None:
    upload = core.database.run(lambda s: uploading.begin(s, core.principal, NAME, core.now))
    core.push_blob("ada/other", b"x")
    with pytest.raises(NotFoundError):
        uploading.resume(core.database, core.store, core.principal, "ada/other", upload.id)


def test_a_blob_that_nobody_looked_at_for_long_is_renewed_by_a_head(core: Core) -> None:
    digest = core.push_blob(NAME, b"old")
    core.wait(hours=5)
    core.look(NAME, digest)
    with core.database.read() as session:
        assert session.exec(select(BlobLink)).one().used_at == core.now


def test_a_head_of_a_blob_in_use_writes_nothing(core: Core) -> None:
    digest = core.push_blob(NAME, b"layer")
    core.push_manifest(NAME, [b"layer"], "latest")
    core.wait(hours=5)
    core.look(NAME, digest)
    with core.database.read() as session:
        used = session.exec(select(BlobLink.used_at)).all()
    assert max(used) == core.now - timedelta(hours=5)


def test_parallel_pushes_of_one_account_are_counted_exactly(core: Core) -> None:
    core.push_blob(NAME, b"first")
    contents = [b"blob %d" % number for number in range(12)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda content: core.push_blob(NAME, content), contents + contents))
    assert core.used_bytes("ada") == len(b"first") + sum(map(len, contents))
    assert len(list(core.store.objects())) == 1 + len(contents)
    with core.database.read() as session:
        assert session.exec(select(Upload)).all() == []


def test_a_mount_takes_no_longer_where_strangers_hold_the_blob(core: Core) -> None:
    held, absent = core.push_blob(NAME, b"private"), Digest.of(b"nobody's")
    for number in range(4):
        core.push_blob(f"ada/{number}", b"private")
    eve = core.person("eve")
    counts = []
    for digest in (held, absent):
        with counted(core.database) as asked:
            assert not mount(core, eve, "eve/notes", digest, None)
        counts.append(len(asked))
    assert counts[0] == counts[1]
    core.publish("ada/3")
    assert mount(core, eve, "eve/notes", held, None)


def test_what_is_announced_together_never_becomes_too_large_to_be_summed(core: Core) -> None:
    for _ in range(10):
        with core.database.write() as session:
            upload = uploading.begin(session, core.principal, NAME, core.now)
            with pytest.raises(LimitExceededError):
                uploading.announce(session, upload, 10**18 - 1, core.now)
    core.push_blob(NAME, b"small")
