"""The client on registries with the habits of foreign ones: uploads, reads, lists, logins."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from memcube.accounts.credentials import Credentials
from memcube.http import HttpClient, RetryPolicy
from memcube.remote import Registry
from memcube.settings import Settings
from memcube.store import Store
from memcube.transfer import Outcome, pull_blobs, push_blobs, push_manifest_if_changed
from memcube.transfer.progress import Moved, Silent
from memcube.transfer.upload import Sender
from memcube.transfer.workers import Stop
from memcube_protocol import limits, media_types, oci
from memcube_protocol.errors import NetworkError, UnauthenticatedError
from memcube_protocol.oci import Descriptor
from memcube_protocol.reference import Reference
from support.quirky import PASSWORD, USER, Quirks, QuirkyRegistry, quirky

CHUNK_BYTES = 400_000
NAME, OTHER = "ann/cube", "ann/other"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "publisher")


@contextmanager
def client_of(foreign: QuirkyRegistry, login: Credentials | None = None) -> Iterator[Registry]:
    settings = Settings.load({"MEMCUBE_HOME": "/nonexistent"})
    retry = RetryPolicy(first_wait_s=0.01)
    http = HttpClient(settings, find_credentials=lambda host: login, retry=retry)
    yield Registry(foreign.host, http, settings)
    http.close()


def blob_of(store: Store, size_bytes: int = 1_000_001) -> Descriptor:
    return Descriptor(media_types.RECORDS, *store.blobs.add(os.urandom(size_bytes)))


def cube(store: Store, *layers: Descriptor) -> oci.Manifest:
    config = Descriptor(media_types.CONFIG, *store.blobs.add(b"{}"))
    return oci.write_manifest(artifact_type=media_types.CUBE, config=config, layers=layers)


def send_in_chunks(registry: Registry, store: Store, blob: Descriptor) -> Moved:
    sender = Sender(registry, NAME, store, Silent(), dict, chunk_bytes=CHUNK_BYTES)
    return sender(blob, Stop())


HABITS = {
    "none": Quirks(),
    "201 to PATCH": Quirks(patch_status=201),
    "200 to PUT": Quirks(put_status=200),
    "204 to PUT": Quirks(put_status=204),
    "no address after a chunk": Quirks(patch_location=False),
    "no Range in the answer": Quirks(patch_range=False),
    "relative addresses": Quirks(location="relative"),
    "addresses on another host": Quirks(location="elsewhere"),
    "a new address after each chunk": Quirks(moving_location=True),
    "a new relative address": Quirks(moving_location=True, location="relative"),
    "a new address on another host": Quirks(moving_location=True, location="elsewhere"),
    "chunks of 600 kB at least": Quirks(min_chunk_bytes=600_000),
    "a chunk kept in part": Quirks(keeps_of_chunk=0.5),
    "a chunk kept but not acknowledged": Quirks(loses_first_answer=True),
    "that, and no Range": Quirks(loses_first_answer=True, patch_range=False),
    "that, and no status": Quirks(loses_first_answer=True, upload_status=False),
    "one chunk only, then 416": Quirks(patches=1),
    "one chunk only, then 405": Quirks(patches=1, patch_refusal=405),
    "one chunk only, then 400": Quirks(patches=1, patch_refusal=400),
    "one chunk only, then 404": Quirks(patches=1, patch_refusal=404),
    "no chunk at all": Quirks(patches=0, patch_refusal=405),
    "one refused login at the upload": Quirks(location="elsewhere", location_refusals=1),
    "an address elsewhere that ran out": Quirks(
        location="elsewhere", location_refusals=1, location_refusal=403
    ),
    "no HEAD of blobs": Quirks(blob_head=False),
    "no mounts": Quirks(mount=False),
    "429 with seconds": Quirks(busy=3),
    "429 with a date": Quirks(busy=3, retry_after="date"),
}


@pytest.mark.parametrize("habit", HABITS)
def test_a_large_blob_arrives_whatever_the_habits_of_uploads(habit: str, store: Store) -> None:
    blob = blob_of(store)
    with quirky(HABITS[habit]) as foreign, client_of(foreign) as registry:
        moved = send_in_chunks(registry, store, blob)
        held = foreign.repository(NAME).blobs[str(blob.digest)]
    assert held == b"".join(store.read(blob.digest))
    assert moved.outcome is Outcome.SENT
    assert moved.moved_bytes <= 3 * blob.size


def test_a_chunk_kept_in_part_is_continued_where_it_ends(store: Store) -> None:
    blob = blob_of(store)
    with quirky(Quirks(keeps_of_chunk=0.5)) as foreign, client_of(foreign) as registry:
        moved = send_in_chunks(registry, store, blob)
    assert moved.moved_bytes == blob.size + CHUNK_BYTES // 2


def test_chunks_are_as_long_as_the_registry_wants_them(store: Store) -> None:
    least = 600_000
    with quirky(Quirks(min_chunk_bytes=least)) as foreign, client_of(foreign) as registry:
        send_in_chunks(registry, store, blob_of(store, 2_000_000))
        sizes = [len(one.body) for one in foreign.main.received if one.method == "PATCH"]
    assert sizes == [least] * 3


def test_an_upload_elsewhere_that_wants_a_login_gets_none(store: Store) -> None:
    """The other host's server fails the test where it sees credentials."""
    habits = Quirks(location="elsewhere", location_refusals=9, login="basic")
    login = Credentials(USER, PASSWORD)
    with quirky(habits) as foreign, client_of(foreign, login) as registry:
        with pytest.raises(UnauthenticatedError, match="credentials go to the registry alone"):
            send_in_chunks(registry, store, blob_of(store))
        assert foreign.storage.received
        assert not any("authorization" in one.headers for one in foreign.storage.received)


def test_a_registry_that_cannot_mount_is_not_sent_what_it_has(store: Store) -> None:
    blob = blob_of(store, 5 * limits.MIB)
    with quirky(Quirks(mount=False)) as foreign, client_of(foreign) as registry:
        assert push_blobs(registry, NAME, [blob], store).count(Outcome.SENT) == 1
        again = push_blobs(registry, NAME, [blob], store)
        assert again.count(Outcome.PRESENT) == 1
        assert again.moved_bytes == 0
        assert not foreign.sessions, "the session that took the place of a mount is given up"


READS = {
    "none": Quirks(),
    "no HEAD of manifests": Quirks(manifest_head=405),
    "no digest": Quirks(digest_header=False),
    "no digest and a charset": Quirks(digest_header=False, type_parameters="; charset=utf-8"),
    "a charset": Quirks(type_parameters=";charset=utf-8"),
    "blobs behind a redirect": Quirks(blob_redirect=True),
    "429 with seconds": Quirks(busy=2),
    "429 with a date": Quirks(busy=2, retry_after="date"),
    "no referrers API": Quirks(referrers=False),
    "200 for what was put and deleted": Quirks(
        put_status=200, manifest_status=200, delete_status=200
    ),
    "202 for manifests, 204 for the rest": Quirks(
        put_status=204, manifest_status=202, delete_status=204
    ),
}


@pytest.mark.parametrize("habit", READS)
def test_what_was_pushed_is_pulled_and_not_pushed_again(
    habit: str, store: Store, tmp_path: Path
) -> None:
    manifest = cube(store, blob_of(store), blob_of(store, 10))
    with quirky(READS[habit]) as foreign, client_of(foreign) as registry:
        push_blobs(registry, NAME, manifest.blobs, store, parallel=1)
        assert push_manifest_if_changed(registry, NAME, manifest, "1.0.0")
        assert not push_manifest_if_changed(registry, NAME, manifest, "1.0.0")
        descriptor = registry.manifest_descriptor(NAME, "1.0.0")
        assert descriptor == manifest.descriptor()
        assert registry.manifest_descriptor(NAME, "2.0.0") is None
        other = Store(tmp_path / "consumer")
        found = registry.manifest(NAME, "1.0.0")
        assert isinstance(found, oci.Manifest)
        pulled = pull_blobs(registry, NAME, found.blobs, other, parallel=1)
        registry.delete_manifest(NAME, "1.0.0")
        assert registry.manifest_descriptor(NAME, "1.0.0") is None
    assert found.raw == manifest.raw
    assert pulled.count(Outcome.FETCHED) == 3


def test_no_credentials_follow_a_blob_to_another_host(store: Store, tmp_path: Path) -> None:
    """And the range goes along: what has arrived is not fetched again."""
    blob = blob_of(store)
    habits = Quirks(blob_redirect=True, login="token")
    with quirky(habits) as foreign, client_of(foreign, Credentials(USER, PASSWORD)) as registry:
        push_blobs(registry, NAME, [blob], store)
        with registry.open_blob(NAME, blob.digest, start=1_000_000) as response:
            assert response.content(10) == b"".join(store.read(blob.digest))[1_000_000:]
        pull_blobs(registry, NAME, [blob], Store(tmp_path / "consumer"))
        assert len(foreign.storage.received) == 2
        assert foreign.storage.received[0].headers["range"] == "bytes=1000000-"


@pytest.mark.parametrize("link", ["relative", "absolute"])
def test_lists_are_read_to_their_last_page(link: str, store: Store) -> None:
    manifest, versions = cube(store), [f"1.0.{number}" for number in range(7)]
    with quirky(Quirks(tags_page=3, link=link)) as foreign, client_of(foreign) as registry:  # type: ignore[arg-type]
        for name in ("ann/a", "ann/b", "bob/c", "bob/d"):
            push_blobs(registry, name, manifest.blobs, store)
        registry.put_tags("ann/a", manifest, versions)
        assert list(registry.tags("ann/a")) == versions
        assert list(registry.catalog()) == ["ann/a", "ann/b", "bob/c", "bob/d"]


def test_a_list_that_goes_on_elsewhere_is_refused(store: Store) -> None:
    manifest = cube(store)
    with quirky(Quirks(tags_page=1, link="elsewhere")) as foreign, client_of(foreign) as registry:
        push_blobs(registry, NAME, manifest.blobs, store)
        registry.put_tags(NAME, manifest, ["1.0.0", "1.0.1"])
        with pytest.raises(NetworkError, match="another host"):
            list(registry.tags(NAME))
        assert not foreign.storage.received


LOGINS = {
    "basic only": Quirks(login="basic"),
    "a token server elsewhere": Quirks(login="token"),
    "tokens that end on the way": Quirks(login="token", token_uses=2),
    "tokens that are good once": Quirks(login="token", token_uses=1),
    "a token server that refuses the source of a mount": Quirks(
        login="token", refuses_scope=f"{OTHER}:"
    ),
    "the same, without mounts": Quirks(login="token", mount=False, refuses_scope=f"{OTHER}:"),
}


@pytest.mark.parametrize("habit", LOGINS)
def test_every_kind_of_login_carries_a_whole_transfer(
    habit: str, store: Store, tmp_path: Path
) -> None:
    manifest = cube(store, blob_of(store))
    login = Credentials(USER, PASSWORD)
    with quirky(LOGINS[habit]) as foreign, client_of(foreign, login) as registry:
        # The store takes it from an earlier push that the blob may be mounted from another repository.
        store.blobs.add(manifest.raw)
        store.put_ref(Reference(registry.host, OTHER, "1.0.0"), manifest.digest)
        send_in_chunks(registry, store, manifest.layers[0])
        push_blobs(registry, NAME, manifest.blobs, store, parallel=1)
        registry.put_manifest(NAME, manifest, "1.0.0")
        assert list(registry.tags(NAME)) == ["1.0.0"]
        pull_blobs(registry, NAME, manifest.blobs, Store(tmp_path / "consumer"), parallel=1)


def test_one_token_serves_a_mount_between_two_repositories(store: Store) -> None:
    manifest = cube(store, blob_of(store))
    login = Credentials(USER, PASSWORD)
    with quirky(Quirks(login="token")) as foreign, client_of(foreign, login) as registry:
        push_blobs(registry, OTHER, manifest.blobs, store)
        store.blobs.add(manifest.raw)
        store.put_ref(Reference(registry.host, OTHER, "1.0.0"), manifest.digest)
        before = len(foreign.realm.received)
        report = push_blobs(registry, NAME, manifest.blobs, store, parallel=1)
        assert report.count(Outcome.MOUNTED) == 2
        asked = foreign.realm.received[before:]
    assert len(asked) == 1
    assert f"scope=repository%3A{NAME.replace('/', '%2F')}%3Apull%2Cpush" in asked[0].path
    assert f"scope=repository%3A{OTHER.replace('/', '%2F')}%3Apull" in asked[0].path


def test_who_is_not_logged_in_reads_with_an_anonymous_token(store: Store, tmp_path: Path) -> None:
    manifest = cube(store, blob_of(store))
    with quirky(Quirks(login="anonymous")) as foreign, client_of(foreign) as registry:
        repository = foreign.repository(NAME)
        for blob in manifest.blobs:
            repository.blobs[str(blob.digest)] = b"".join(store.read(blob.digest))
        repository.manifests[str(manifest.digest)] = (manifest.media_type, manifest.raw)
        repository.tags["1.0.0"] = str(manifest.digest)
        assert registry.manifest(NAME, "1.0.0").raw == manifest.raw
        report = pull_blobs(registry, NAME, manifest.blobs, Store(tmp_path / "consumer"))
    assert report.count(Outcome.FETCHED) == 2
