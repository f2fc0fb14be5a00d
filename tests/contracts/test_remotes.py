"""The contract of every place that cubes are pulled from and pushed to: our registry, another one, the Hub."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import Person, fresh
from memcube.http import HttpClient
from memcube.hub import HubRemote, Site
from memcube.packing.pack import pack_folder
from memcube.remote import Registry
from memcube.remote.interface import Remote
from memcube.settings import Settings
from memcube.store import Store
from memcube.transfer import pull_blobs, push_blobs
from memcube_protocol import media_types, oci
from memcube_protocol.cube import Cube
from memcube_protocol.digest import Digest
from memcube_protocol.errors import ConflictError, MissingContentError, NotFoundError
from memcube_protocol.oci import Descriptor, Manifest
from support.hub import HubServer
from support.hub_machine import tolerant, write_notes

pytestmark = tolerant
KIND = "application/vnd.test.note"


@dataclass
class Place:
    """Somewhere to publish: what answers there, and a name that is free."""

    remote: Remote
    name: str


class RemoteContract:
    """What every Remote must do; subclass it once per implementation."""

    @pytest.fixture
    def place(self) -> Iterator[Place]:
        raise NotImplementedError

    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return Store(tmp_path / "store")

    def packed(self, store: Store, folder: Path, version: str = "1.0.0") -> Cube:
        return pack_folder(write_notes(folder, version, f"text of {version}"), store).cube

    def publish(self, place: Place, store: Store, cube: Cube, *tags: str) -> None:
        push_blobs(place.remote, place.name, cube.manifest.blobs, store)
        place.remote.put_manifest(place.name, cube.manifest)
        place.remote.put_tags(place.name, cube.manifest, tags or ("1.0.0",))

    def attached(self, store: Store, subject: Manifest, text: bytes = b"a note") -> Manifest:
        layer = Descriptor.of("text/plain", text)
        for content in (b"{}", text):
            store.blobs.add(content)
        return oci.write_manifest(
            artifact_type=KIND, config=oci.EMPTY, layers=[layer], subject=subject.descriptor()
        )

    def test_what_is_not_there_is_not_found(self, place: Place) -> None:
        absent = Digest.of(b"absent")
        for target in ("1.0.0", "latest", str(absent)):
            assert place.remote.manifest_descriptor(place.name, target) is None
            with pytest.raises(NotFoundError):
                place.remote.manifest(place.name, target)
        with pytest.raises(NotFoundError):
            list(place.remote.tags(place.name))

    def test_a_published_cube_is_found_by_tag_and_by_digest(
        self, place: Place, store: Store, tmp_path: Path
    ) -> None:
        cube = self.packed(store, tmp_path / "notes")
        self.publish(place, store, cube)
        for target in ("1.0.0", str(cube.digest)):
            found = place.remote.manifest(place.name, target)
            assert found.raw == cube.manifest.raw
            described = place.remote.manifest_descriptor(place.name, target)
            assert described
            assert (described.digest, described.size) == (cube.digest, len(found.raw))
        assert list(place.remote.tags(place.name)) == ["1.0.0"]

    def test_its_blobs_are_read_whole_and_in_part(
        self, place: Place, store: Store, tmp_path: Path
    ) -> None:
        cube = self.packed(store, tmp_path / "notes")
        self.publish(place, store, cube)
        place.remote.manifest(place.name, "1.0.0")
        for blob in cube.manifest.blobs:
            content = place.remote.read_blob(place.name, blob)
            assert Digest.of(content) == blob.digest
            assert place.remote.blob_size(place.name, blob.digest) in (blob.size, -1)
            with place.remote.open_blob(place.name, blob.digest, start=3, stop=7) as response:
                got = response.content(blob.size)
            assert got == (content[3:7] if response.status == 206 else content)
        other = Store(tmp_path / "other")
        assert pull_blobs(place.remote, place.name, cube.manifest.blobs, other).moved_bytes > 0

    def test_a_blob_that_nobody_sent_is_not_there(
        self, place: Place, store: Store, tmp_path: Path
    ) -> None:
        self.publish(place, store, self.packed(store, tmp_path / "notes"))
        assert place.remote.blob_size(place.name, Digest.of(b"absent")) is None
        with pytest.raises(NotFoundError):
            place.remote.open_blob(place.name, Digest.of(b"absent"))

    def test_a_manifest_whose_blobs_are_missing_is_refused(
        self, place: Place, store: Store, tmp_path: Path
    ) -> None:
        self.publish(place, store, self.packed(store, tmp_path / "a"))
        later = self.packed(store, tmp_path / "b", "2.0.0")
        with pytest.raises((NotFoundError, MissingContentError)):
            place.remote.put_manifest(place.name, later.manifest)
        assert place.remote.manifest_descriptor(place.name, "2.0.0") is None

    def test_what_is_attached_is_listed_and_read(
        self, place: Place, store: Store, tmp_path: Path
    ) -> None:
        cube = self.packed(store, tmp_path / "notes")
        self.publish(place, store, cube)
        assert place.remote.referrers(place.name, cube.digest) == []
        note = self.attached(store, cube.manifest)
        push_blobs(place.remote, place.name, note.blobs, store)
        place.remote.put_manifest(place.name, note)
        (listed,) = place.remote.referrers(place.name, cube.digest)
        assert (listed.digest, listed.artifact_type) == (note.digest, KIND)
        assert place.remote.referrers(place.name, cube.digest, media_types.KEYS) == []
        found = place.remote.manifest(place.name, str(listed.digest))
        assert isinstance(found, Manifest)
        assert place.remote.read_blob(place.name, found.layers[0]) == b"a note"

    def test_what_is_attached_before_the_tag_is_there_with_it(
        self, place: Place, store: Store, tmp_path: Path
    ) -> None:
        cube = self.packed(store, tmp_path / "notes")
        note = self.attached(store, cube.manifest)
        for manifest in (cube.manifest, note):
            push_blobs(place.remote, place.name, manifest.blobs, store)
            place.remote.put_manifest(place.name, manifest)
        place.remote.put_tags(place.name, cube.manifest, ("1.0.0",))
        assert [one.digest for one in place.remote.referrers(place.name, cube.digest)] == [
            note.digest
        ]

    def test_the_same_again_is_accepted(self, place: Place, store: Store, tmp_path: Path) -> None:
        cube = self.packed(store, tmp_path / "notes")
        for _ in range(2):
            self.publish(place, store, cube)
        assert place.remote.manifest(place.name, "1.0.0").digest == cube.digest

    def test_a_further_tag_leads_to_the_same_cube(
        self, place: Place, store: Store, tmp_path: Path
    ) -> None:
        first, second = (
            self.packed(store, tmp_path / version, version) for version in ("1.0.0", "1.1.0")
        )
        self.publish(place, store, first, "1.0.0", "stable")
        assert place.remote.manifest(place.name, "stable").digest == first.digest
        self.publish(place, store, second, "1.1.0", "stable")
        assert place.remote.manifest(place.name, "stable").digest == second.digest
        assert place.remote.manifest(place.name, "1.0.0").digest == first.digest


class TestOurRegistry(RemoteContract):
    @pytest.fixture
    def place(self, ada: Person, tmp_path: Path) -> Iterator[Place]:
        environ = {
            "MEMCUBE_HOME": str(tmp_path / "home"),
            "MEMCUBE_ENDPOINT": ada.server.url,
            "MEMCUBE_TOKEN": ada.token,
        }
        settings = Settings.load(environ)
        http = HttpClient(settings)
        yield Place(Registry("", http, settings), f"{ada.name}/{fresh('cube')}")
        http.close()

    def test_a_full_version_never_moves(self, place: Place, store: Store, tmp_path: Path) -> None:
        self.publish(place, store, self.packed(store, tmp_path / "a"))
        other = self.packed(store, tmp_path / "b", "1.0.1")
        with pytest.raises(ConflictError):
            self.publish(place, store, other, "1.0.0")


class TestReferenceRegistry(RemoteContract):
    @pytest.fixture
    def place(self, reference_registry: str, tmp_path: Path) -> Iterator[Place]:
        environ = {"MEMCUBE_HOME": str(tmp_path), "MEMCUBE_ENDPOINT": reference_registry}
        settings = Settings.load(environ)
        http = HttpClient(settings)
        yield Place(Registry("", http, settings), f"ada/{fresh('cube')}")
        http.close()


class TestHub(RemoteContract):
    @pytest.fixture
    def place(self, hub: HubServer, tmp_path: Path) -> Iterator[Place]:
        token = hub.state.token("ada")
        environ = {"MEMCUBE_HOME": str(tmp_path), "HF_ENDPOINT": hub.url, "HF_TOKEN": token}
        settings = Settings.load(environ)
        http = HttpClient(settings)
        yield Place(HubRemote(Site.of(settings), http), f"ada/{fresh('cube')}")
        http.close()

    def test_a_full_version_never_moves(self, place: Place, store: Store, tmp_path: Path) -> None:
        self.publish(place, store, self.packed(store, tmp_path / "a"))
        other = self.packed(store, tmp_path / "b", "1.0.1")
        with pytest.raises(ConflictError):
            self.publish(place, store, other, "1.0.0")


class TestHubDatasets(TestHub):
    @pytest.fixture
    def place(self, hub: HubServer, tmp_path: Path) -> Iterator[Place]:
        token = hub.state.token("ada")
        environ = {"MEMCUBE_HOME": str(tmp_path), "HF_ENDPOINT": hub.url, "HF_TOKEN": token}
        settings = Settings.load(environ)
        http = HttpClient(settings)
        yield Place(HubRemote(Site.of(settings), http), f"ada/datasets/{fresh('cube')}")
        http.close()
