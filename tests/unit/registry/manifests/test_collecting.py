"""Garbage collection takes what nothing needs, and never what a push relies on."""

from __future__ import annotations

import random
import threading
from datetime import timedelta

import pytest
from memcube_protocol.digest import Digest
from memcube_protocol.errors import MemcubeError, NotFoundError
from memcube_registry.blobs import service as blobs
from memcube_registry.blobs import uploading
from memcube_registry.blobs.uploading import NewBlob
from memcube_registry.database import Database, utc_now
from memcube_registry.manifests import service as manifests
from support.registry_core import Core

NAME = "ada/notes"


@pytest.fixture
def core(database: Database) -> Core:
    core = Core(database)
    core.principal = core.person("ada")
    return core


def test_what_is_tagged_stays(core: Core) -> None:
    blob = core.push_blob(NAME, b"layer")
    manifest = core.push_manifest(NAME, [b"layer"], "latest")
    core.collect_all()
    assert core.has_manifest(NAME, manifest)
    assert core.has_blob(NAME, blob)


def test_what_is_untagged_goes_after_the_grace_period_with_its_bytes(core: Core) -> None:
    core.push_blob(NAME, b"layer")
    manifest = core.push_manifest(NAME, [b"layer"], "latest")
    core.untag(NAME, "latest")
    core.wait(hours=23)
    core.collect()
    assert core.has_manifest(NAME, manifest)
    core.collect_all()
    assert not core.has_manifest(NAME, manifest)
    assert not list(core.store.objects())
    assert core.used_bytes("ada") == 0


def test_children_of_a_live_index_stay_and_go_with_it(core: Core) -> None:
    core.push_blob(NAME, b"layer")
    child = core.push_manifest(NAME, [b"layer"])
    inner = core.push_index(NAME, [child])
    core.push_index(NAME, [inner], "all")
    core.collect_all()
    assert core.has_manifest(NAME, child)
    assert core.has_manifest(NAME, inner)
    core.untag(NAME, "all")
    core.collect_all()
    assert not core.has_manifest(NAME, child)
    assert not list(core.store.objects())


def test_referrers_live_as_long_as_their_subject(core: Core) -> None:
    core.push_blob(NAME, b"layer")
    cube = core.push_manifest(NAME, [b"layer"], "latest")
    build = core.push_manifest(NAME, [b"layer"], subject=cube)
    signature = core.push_manifest(NAME, [], subject=build)
    core.collect_all()
    assert core.has_manifest(NAME, signature)
    core.untag(NAME, "latest")
    core.collect_all()
    assert not any(core.has_manifest(NAME, each) for each in (cube, build, signature))


def test_a_referrer_may_come_before_its_subject_but_not_wait_for_ever(core: Core) -> None:
    absent = Digest.of(b"not pushed yet")
    referrer = core.push_manifest(NAME, [], subject=absent)
    core.wait(hours=12)
    core.collect()
    assert core.has_manifest(NAME, referrer)
    core.collect_all()
    assert not core.has_manifest(NAME, referrer)


def test_nothing_goes_at_the_run_that_condemns_it(core: Core) -> None:
    blob = core.push_blob(NAME, b"alone")
    core.wait(days=30)
    first = core.collect()
    assert first.links_condemned == 1
    assert core.has_blob(NAME, blob)
    core.wait(hours=1)
    assert core.collect().links_removed == 1
    assert not core.has_blob(NAME, blob)


def test_a_head_saves_a_condemned_blob(core: Core) -> None:
    blob = core.push_blob(NAME, b"alone")
    core.wait(days=30)
    core.collect()
    core.look(NAME, blob)
    core.wait(hours=23)
    core.collect()
    core.collect()
    assert core.has_blob(NAME, blob)


def test_a_head_just_before_it_would_be_condemned_saves_it_too(core: Core) -> None:
    blob = core.push_blob(NAME, b"alone")
    core.wait(hours=23, minutes=59)
    core.look(NAME, blob)
    core.wait(hours=23)
    assert core.collect().links_condemned == 0
    assert core.has_blob(NAME, blob)


def test_a_mount_saves_a_condemned_blob(core: Core) -> None:
    blob = core.push_blob(NAME, b"alone")
    core.push_blob("ada/other", b"something")
    core.wait(days=30)
    core.collect()
    core.database.run(lambda s: blobs.mount(s, core.principal, "ada/other", blob, NAME, core.now))
    core.wait(hours=1)
    core.collect()
    assert core.has_blob("ada/other", blob)
    assert not core.has_blob(NAME, blob)


def test_uploading_condemned_content_again_saves_it(core: Core) -> None:
    blob = core.push_blob(NAME, b"alone")
    core.wait(days=30)
    core.collect()
    core.push_blob(NAME, b"alone")
    core.wait(hours=1)
    core.collect()
    assert core.has_blob(NAME, blob)
    assert len(list(core.store.objects())) == 1


def test_a_head_on_a_condemned_manifest_saves_it(core: Core) -> None:
    manifest = core.push_manifest(NAME, [])
    core.wait(days=30)
    assert core.collect().manifests_condemned == 1
    manifests.look(core.database, core.principal, NAME, manifest, core.now)
    core.wait(hours=1)
    core.collect()
    assert core.has_manifest(NAME, manifest)


def test_a_tag_saves_a_condemned_manifest(core: Core) -> None:
    manifest = core.push_manifest(NAME, [])
    core.wait(days=30)
    core.collect()
    core.push_manifest(NAME, [], "kept")
    core.collect_all()
    assert core.has_manifest(NAME, manifest)


def test_blobs_of_a_removed_manifest_keep_a_whole_grace_period(core: Core) -> None:
    blob = core.push_blob(NAME, b"layer")
    manifest = core.push_manifest(NAME, [b"layer"], "latest")
    core.wait(days=30)
    core.database.run(lambda s: manifests.delete(s, core.principal, NAME, manifest, core.now))
    core.wait(hours=23)
    core.collect()
    core.collect()
    assert core.has_blob(NAME, blob)


def test_a_blob_stays_while_another_repository_links_it(core: Core) -> None:
    blob = core.push_blob(NAME, b"shared")
    core.push_blob("ada/other", b"shared")
    before = core.used_bytes("ada")
    core.push_manifest("ada/other", [b"shared"], "latest")
    with_manifest = core.used_bytes("ada")
    core.collect_all()
    assert not core.has_blob(NAME, blob)
    assert core.has_blob("ada/other", blob)
    assert before == len(b"shared")
    assert core.used_bytes("ada") == with_manifest


def test_forgotten_uploads_and_orphans_are_swept(core: Core) -> None:
    core.now = utc_now()
    upload = core.database.run(lambda s: uploading.begin(s, core.principal, NAME, core.now))
    sink = core.store.open(upload.id, size=0)
    sink.write([b"half"])
    sink.close()
    orphan = "0" * 32
    core.store.open(orphan, size=0).close()
    core.store.finish(orphan, size=0)
    core.wait(hours=1)
    assert core.collect().uploads_expired == 0
    core.wait(days=3)
    done = core.collect()
    assert done.uploads_expired == 1
    assert done.orphans_removed == 1
    assert not list(core.store.uploads())
    assert not list(core.store.objects())


def test_bytes_without_a_row_are_left_alone_while_they_are_young(core: Core) -> None:
    core.now = utc_now()
    core.store.open("0" * 32, size=0).close()
    core.store.finish("0" * 32, size=0)
    assert core.collect(timedelta(0)).orphans_removed == 0


def test_bytes_between_their_finish_and_their_row_stay_however_far_the_clock_jumps(
    core: Core,
) -> None:
    core.now = utc_now()
    upload = core.database.run(lambda s: uploading.begin(s, core.principal, NAME, core.now))
    sink = core.store.open(upload.id, size=0)
    sink.write([b"whole"])
    sink.close()
    digest = Digest.of(b"whole")
    blob = NewBlob(digest, 5, core.store.finish(upload.id, size=5))
    core.wait(hours=23)
    assert core.collect(timedelta(0)).orphans_removed == 0
    uploading.complete(core.database, core.store, core.principal, upload, blob, core.now)
    assert core.has_blob(NAME, digest)
    assert b"".join(core.store.read(blob.location)) == b"whole"


def test_a_racing_push_never_loses_a_blob_it_was_told_of(core: Core) -> None:
    """Pushers that skip what a HEAD finds, beside a collector whose clock runs fast."""
    layers = [b"layer %d" % number for number in range(4)]
    finished = threading.Event()
    failures: list[str] = []

    def push_and_delete(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(20):
            chosen = chance.sample(layers, 2)
            for layer in chosen:
                try:
                    core.look(NAME, Digest.of(layer))
                except NotFoundError:
                    core.push_blob(NAME, layer)
            try:
                core.push_manifest(NAME, chosen, f"tag{seed}")
                core.untag(NAME, f"tag{seed}")
            except MemcubeError as error:
                failures.append(str(error))

    def collect() -> None:
        while not finished.is_set():
            core.wait(minutes=30)
            core.collect()

    collector = threading.Thread(target=collect)
    pushers = [threading.Thread(target=push_and_delete, args=(seed,)) for seed in range(3)]
    for thread in (collector, *pushers):
        thread.start()
    for pusher in pushers:
        pusher.join()
    finished.set()
    collector.join()
    assert failures == []
    core.collect_all()
    assert not list(core.store.objects())
