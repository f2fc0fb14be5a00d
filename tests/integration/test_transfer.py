"""Blobs and manifests between the local store and real registries: ours and the reference one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import Person, fresh
from memcube.accounts.credentials import Credentials
from memcube.http import HttpClient, RetryPolicy
from memcube.remote import Registry
from memcube.settings import Settings
from memcube.store import Store
from memcube.transfer import (
    Outcome,
    is_published,
    pull_blobs,
    push_blobs,
    push_manifest_if_changed,
    read_range,
)
from memcube.transfer.progress import Silent
from memcube.transfer.upload import Sender
from memcube.transfer.workers import Stop
from memcube_protocol import limits, media_types, oci
from memcube_protocol.content import Blocks
from memcube_protocol.digest import Digest
from memcube_protocol.errors import MemcubeError, NotFoundError, UnauthenticatedError
from memcube_protocol.oci import Descriptor
from memcube_protocol.reference import Reference
from support.proxy import Counter, counting_proxy

BIG_BYTES = 24 * limits.MIB


@dataclass
class Place:
    """A registry, as somebody who may write to the namespace `owner`."""

    registry: Registry
    owner: str

    def name(self) -> str:
        return f"{self.owner}/{fresh('cube')}"


def registry_at(host: str, credentials: Credentials | None) -> Registry:
    settings = Settings.load({"MEMCUBE_HOME": "/nonexistent"})
    http = HttpClient(
        settings, find_credentials=lambda asked: credentials, retry=RetryPolicy(first_wait_s=0.05)
    )
    return Registry(host, http, settings)


@pytest.fixture(params=["ours", "ours by name and password", "reference"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    if request.param == "reference":
        url = request.getfixturevalue("reference_registry")
        found = Place(registry_at(url.removeprefix("http://"), None), "ann")
    else:
        ada: Person = request.getfixturevalue("ada")
        name = ada.name if "name" in request.param else ""
        host = ada.server.url.removeprefix("http://")
        found = Place(registry_at(host, Credentials(name, ada.token)), ada.name)
    yield found
    found.registry.http.close()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "publisher")


def cube(store: Store, *contents: bytes) -> oci.Manifest:
    layers = [Descriptor(media_types.RECORDS, *store.blobs.add(content)) for content in contents]
    config = Descriptor(media_types.CONFIG, *store.blobs.add(b"{}"))
    manifest = oci.write_manifest(artifact_type=media_types.CUBE, config=config, layers=layers)
    store.blobs.add(manifest.raw)
    return manifest


def publish(place: Place, name: str, manifest: oci.Manifest, store: Store) -> None:
    push_blobs(place.registry, name, manifest.blobs, store)
    push_manifest_if_changed(place.registry, name, manifest)
    push_manifest_if_changed(place.registry, name, manifest, "1.0.0")


def test_what_was_pushed_is_pulled(place: Place, store: Store, tmp_path: Path) -> None:
    manifest, name = cube(store, os.urandom(3_000_000), b"small", b""), place.name()
    publish(place, name, manifest, store)
    other = Store(tmp_path / "consumer")
    found = place.registry.manifest(name, "1.0.0")
    assert found.raw == manifest.raw
    assert isinstance(found, oci.Manifest)
    report = pull_blobs(place.registry, name, found.blobs, other)
    assert report.count(Outcome.FETCHED) == 4
    assert all(other.has(blob.digest, blob.size) for blob in manifest.blobs)
    again = pull_blobs(place.registry, name, found.blobs, other)
    assert again.count(Outcome.PRESENT) == 4
    assert again.moved_bytes == 0
    assert list(place.registry.tags(name)) == ["1.0.0"]


def test_an_unchanged_cube_costs_one_request_and_a_changed_one_only_its_change(
    place: Place, store: Store
) -> None:
    first, name = cube(store, b"a" * 100_000, b"b"), place.name()
    publish(place, name, first, store)
    assert is_published(place.registry, name, first, "1.0.0")
    assert not push_manifest_if_changed(place.registry, name, first, "1.0.0")
    second = cube(store, b"a" * 100_000, b"c")
    report = push_blobs(place.registry, name, second.blobs, store)
    assert (report.count(Outcome.PRESENT), report.count(Outcome.SENT)) == (2, 1)
    assert report.moved_bytes == 1


def test_blobs_are_mounted_from_another_repository(place: Place, store: Store) -> None:
    manifest, first, second = cube(store, os.urandom(100_000)), place.name(), place.name()
    publish(place, first, manifest, store)
    store.put_ref(Reference(place.registry.host, first, "1.0.0"), manifest.digest)
    report = push_blobs(place.registry, second, manifest.blobs, store)
    assert report.count(Outcome.MOUNTED) == 2
    assert report.moved_bytes == 0
    assert push_manifest_if_changed(place.registry, second, manifest)


def test_a_large_blob_goes_in_chunks(place: Place, store: Store, tmp_path: Path) -> None:
    content, name = os.urandom(1_000_001), place.name()
    manifest = cube(store, content)
    sender = Sender(place.registry, name, store, Silent(), dict, chunk_bytes=300_000)
    assert sender(manifest.layers[0], Stop()).moved_bytes == len(content)
    other = Store(tmp_path / "consumer")
    pull_blobs(place.registry, name, manifest.layers, other)
    assert other.has(manifest.layers[0].digest)
    got = read_range(
        place.registry, name, manifest.layers[0], Blocks.of(content, 65_536), 100_000, 400_000
    )
    assert got == content[100_000:400_000]


class Cut(Silent):
    """Ends a transfer, as a kill would, once so many bytes have passed."""

    def __init__(self, after_bytes: int) -> None:
        self.left_bytes = after_bytes

    def advance(self, blob: Descriptor, size_bytes: int) -> None:
        self.left_bytes -= size_bytes
        if self.left_bytes <= 0:
            raise KeyboardInterrupt


def test_a_push_that_was_cut_goes_on_with_its_session(place: Place, store: Store) -> None:
    content, name = os.urandom(9_000_000), place.name()
    manifest = cube(store, content)
    cut = Sender(place.registry, name, store, Cut(5_000_000), dict, chunk_bytes=2_000_000)
    with pytest.raises(KeyboardInterrupt):
        cut(manifest.layers[0], Stop())
    assert list((store.root / "uploads").iterdir())
    sender = Sender(place.registry, name, store, Silent(), dict, chunk_bytes=2_000_000)
    moved = sender(manifest.layers[0], Stop())
    assert moved.outcome is Outcome.SENT
    # The reference registry gives a session up when a chunk of it breaks off, and may take one more
    # chunk of it before it says so.
    assert moved.moved_bytes <= (11_000_000 if place.owner == "ann" else 7_000_000)
    assert not list((store.root / "uploads").iterdir())


def test_a_push_whose_session_is_gone_begins_anew(place: Place, store: Store) -> None:
    content, name = os.urandom(5_000_000), place.name()
    manifest = cube(store, content)
    with store.uploads.note(place.registry.host, name, manifest.layers[0].digest) as note:
        upload = place.registry.uploads.start(name)
        assert upload
        place.registry.uploads.cancel(name, upload)
        note.remember(upload.url)
    report = push_blobs(place.registry, name, manifest.layers, store)
    assert report.moved_bytes == len(content)


def test_referrers_are_found_through_the_api_or_the_fallback_tag(
    place: Place, store: Store
) -> None:
    manifest, name = cube(store, b"x"), place.name()
    publish(place, name, manifest, store)
    assert place.registry.referrers(name, manifest.digest) == []
    builds = []
    for text in (b"one", b"two"):
        layer = Descriptor(media_types.RECORDS, *store.blobs.add(text))
        build = oci.write_manifest(
            artifact_type=media_types.BUILD,
            config=oci.EMPTY,
            layers=[layer],
            subject=manifest.descriptor(),
        )
        store.blobs.add(b"{}")
        push_blobs(place.registry, name, build.blobs, store)
        builds.append(place.registry.put_manifest(name, build))
        assert place.registry.put_manifest(name, build) == build.digest
    found = place.registry.referrers(name, manifest.digest, media_types.BUILD)
    assert {entry.digest for entry in found} == set(builds)
    assert place.registry.referrers(name, manifest.digest, "application/x.other") == []


def test_what_is_deleted_is_gone(place: Place, store: Store) -> None:
    manifest, name = cube(store, b"x"), place.name()
    publish(place, name, manifest, store)
    place.registry.delete_manifest(name, str(manifest.digest))
    assert place.registry.manifest_descriptor(name, str(manifest.digest)) is None
    with pytest.raises(NotFoundError):
        place.registry.manifest(name, str(manifest.digest))


def test_what_the_registry_lacks_is_not_found(place: Place, store: Store) -> None:
    absent, name = Descriptor.of(media_types.RECORDS, b"absent"), place.name()
    publish(place, name, cube(store, b"x"), store)
    with pytest.raises(NotFoundError):
        pull_blobs(place.registry, name, [absent], store)
    with pytest.raises(NotFoundError, match="local store"):
        push_blobs(place.registry, name, [absent], store)


def test_sha512_is_pushed_and_pulled(ada: Person, store: Store, tmp_path: Path) -> None:
    host = ada.server.url.removeprefix("http://")
    registry, name = registry_at(host, Credentials("", ada.token)), f"{ada.name}/{fresh('cube')}"
    blob = Descriptor(media_types.RECORDS, *store.blobs.add(b"long digest", "sha512"))
    push_blobs(registry, name, [blob], store)
    other = Store(tmp_path / "consumer")
    pull_blobs(registry, name, [blob], other)
    assert other.has(blob.digest)


@pytest.mark.parametrize(
    "credentials", [Credentials("", "mct_" + "x" * 43), Credentials("x", "wr0ng-one")]
)
def test_wrong_credentials_are_refused(ada: Person, credentials: Credentials) -> None:
    registry = registry_at(ada.server.url.removeprefix("http://"), credentials)
    with pytest.raises(UnauthenticatedError) as caught:
        registry.uploads.start(f"{ada.name}/cube")
    assert credentials.secret not in f"{caught.value} {caught.value.hint}"


MOVE = """
import sys
from pathlib import Path
from memcube.accounts.credentials import Credentials
from memcube.http import HttpClient
from memcube.remote import Registry
from memcube.settings import Settings
from memcube.store import Store
from memcube.transfer import pull_blobs, push_blobs
from memcube_protocol import oci
act, host, name, folder, user, secret, manifest = sys.argv[1:]
settings = Settings.load({"MEMCUBE_HOME": "/nonexistent"})
found = Credentials(user, secret) if secret else None
registry = Registry(host, HttpClient(settings, find_credentials=lambda host: found), settings)
move = {"push": push_blobs, "pull": pull_blobs}[act]
blobs = oci.parse_manifest(Path(manifest).read_bytes()).blobs
print(move(registry, name, blobs, Store(Path(folder))).moved_bytes)
"""


@dataclass
class Mover:
    """Pushes or pulls in a process of its own, through a proxy that counts."""

    name: str
    credentials: Credentials | None
    manifest: Path
    proxy: Counter

    def start(self, act: str, folder: Path) -> subprocess.Popen[str]:
        user, secret = (
            (self.credentials.username, self.credentials.secret) if self.credentials else ("", "")
        )
        host = f"127.0.0.1:{self.proxy.port}"
        arguments = [act, host, self.name, str(folder), user, secret, str(self.manifest)]
        return subprocess.Popen(
            [sys.executable, "-c", MOVE, *arguments], stdout=subprocess.PIPE, text=True
        )

    def kill_after(self, process: subprocess.Popen[str], moved: Callable[[], int]) -> None:
        """Kill the process once a third of the big blob has passed."""
        deadline = time.monotonic() + 30
        while moved() < BIG_BYTES // 3 and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        assert process.poll() is None, "it was done before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.communicate()

    def finish(self, process: subprocess.Popen[str]) -> int:
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        return int(out)


@pytest.fixture
def mover(ada: Person, store: Store, tmp_path: Path) -> Iterator[Mover]:
    manifest = cube(store, os.urandom(BIG_BYTES))
    path = tmp_path / "manifest.json"
    path.write_bytes(manifest.raw)
    with counting_proxy(ada.server.port, bytes_per_s=40 * limits.MIB) as proxy:
        credentials = Credentials("", ada.token)
        yield Mover(f"{ada.name}/{fresh('cube')}", credentials, path, proxy)


def test_a_killed_push_goes_on_where_it_stopped(mover: Mover, store: Store) -> None:
    process = mover.start("push", store.root)
    mover.kill_after(process, lambda: mover.proxy.sent_bytes)
    assert mover.finish(mover.start("push", store.root)) < BIG_BYTES * 0.9
    assert not list((store.root / "uploads").iterdir())


def test_a_killed_pull_goes_on_where_it_stopped(mover: Mover, store: Store, tmp_path: Path) -> None:
    mover.finish(mover.start("push", store.root))
    mover.proxy.reset()
    process = mover.start("pull", tmp_path / "consumer")
    mover.kill_after(process, lambda: mover.proxy.received_bytes)
    assert mover.finish(mover.start("pull", tmp_path / "consumer")) < BIG_BYTES * 0.9
    consumer = Store(tmp_path / "consumer", strict=True)
    manifest = oci.parse_manifest(mover.manifest.read_bytes())
    assert all(consumer.has(blob.digest, blob.size) for blob in manifest.blobs)
    assert consumer.damaged() == []


def test_two_processes_pull_the_same_cube_into_one_store(
    mover: Mover, store: Store, tmp_path: Path
) -> None:
    mover.finish(mover.start("push", store.root))
    both = [mover.start("pull", tmp_path / "consumer") for _ in range(2)]
    moved = sorted(mover.finish(process) for process in both)
    assert moved[0] + moved[1] <= BIG_BYTES + 2
    assert Store(tmp_path / "consumer", strict=True).damaged() == []


def test_a_stopped_server_is_a_network_error(tmp_path: Path, store: Store) -> None:
    manifest = cube(store, b"x")
    registry = registry_at("127.0.0.1:1", None)
    with pytest.raises(MemcubeError) as caught:
        push_blobs(registry, "ann/notes", manifest.blobs, store)
    assert caught.value.code == "network"
    assert Digest.of(b"x") == manifest.layers[0].digest
