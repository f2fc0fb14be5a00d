"""The referrers tag schema, where the registry has no referrers API: kept by several clients at once."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from conftest import fresh
from memcube.http import HttpClient, RetryPolicy
from memcube.remote import Registry, is_fallback_tag
from memcube.settings import Settings
from memcube.store import Store
from memcube.transfer import push_blobs
from memcube_protocol import media_types, oci
from memcube_protocol.digest import Digest
from memcube_protocol.errors import ConflictError
from support.quirky import Quirks, QuirkyRegistry, quirky
from support.repository import Repository
from support.scripted import Answer, Received
from support.wire import Wire

NAME = "ann/cube"


@pytest.fixture
def foreign() -> Iterator[QuirkyRegistry]:
    with quirky(Quirks(referrers=False)) as registry:
        yield registry


@pytest.fixture
def new_client() -> Iterator[Callable[[str], Registry]]:
    """Makes clients that know nothing of each other."""
    with ExitStack() as stack:

        def make(host: str) -> Registry:
            settings = Settings.load({"MEMCUBE_HOME": "/nonexistent"})
            retry = RetryPolicy(first_wait_s=0.01, jitter=lambda: random.random() / 10)
            http = HttpClient(settings, find_credentials=lambda asked: None, retry=retry)
            stack.callback(http.close)
            return Registry(host, http, settings)

        yield make


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def cube_at(registry: Registry, name: str, store: Store) -> oci.Manifest:
    config = oci.Descriptor(media_types.CONFIG, *store.blobs.add(b"{}"))
    manifest = oci.write_manifest(artifact_type=media_types.CUBE, config=config, layers=[])
    push_blobs(registry, name, [*manifest.blobs, oci.EMPTY], store)
    registry.put_manifest(name, manifest)
    return manifest


def build_of(cube: oci.Manifest, text: str) -> oci.Manifest:
    """Something that refers to `cube`, different for each `text`."""
    return oci.write_manifest(
        artifact_type=media_types.BUILD,
        config=oci.EMPTY,
        layers=[],
        subject=cube.descriptor(),
        annotations={"org.example.text": text},
    )


class Rival:
    """Another client that knows nothing of ours: overwrites the index under the fallback tag with its own."""

    def __init__(self, foreign: QuirkyRegistry, cube: oci.Manifest) -> None:
        build = build_of(cube, "rival")
        self.entry = build.descriptor()
        self._foreign = foreign
        foreign.repository(NAME).manifests[str(build.digest)] = (build.media_type, build.raw)
        self._tag = str(cube.digest).replace(":", "-")
        self._index = oci.write_index((self.entry,))

    def overwrite(self) -> None:
        repository, digest = self._foreign.repository(NAME), str(self._index.digest)
        repository.manifests[digest] = (self._index.media_type, self._index.raw)
        repository.tags[self._tag] = digest

    def after_each_write(self, times: int) -> Callable[[Received], Answer | None]:
        """Overwrites what was just written, before it is read back, so many times."""
        left, written = [times], [False]

        def before(request: Received) -> Answer | None:
            ours = self._tag in request.path
            if ours and request.method == "GET" and written[0] and left[0]:
                left[0] -= 1
                written[0] = False
                self.overwrite()
            written[0] = written[0] or (ours and request.method == "PUT")
            return None

        return before


def test_an_entry_that_was_overwritten_is_entered_again(
    foreign: QuirkyRegistry, new_client: Callable[[str], Registry], store: Store
) -> None:
    registry = new_client(foreign.host)
    cube = cube_at(registry, NAME, store)
    rival = Rival(foreign, cube)
    foreign.before = rival.after_each_write(3)
    build = build_of(cube, "ours")
    registry.put_manifest(NAME, build)
    assert set(foreign.index_of(NAME, cube.digest)) == {
        str(build.digest),
        str(rival.entry.digest),
    }


def test_an_entry_that_was_seen_and_overwritten_by_another_is_kept_too(
    foreign: QuirkyRegistry, new_client: Callable[[str], Registry], store: Store
) -> None:
    registry = new_client(foreign.host)
    cube = cube_at(registry, NAME, store)
    earlier, ours = build_of(cube, "earlier"), build_of(cube, "ours")
    new_client(foreign.host).put_manifest(NAME, earlier)
    rival = Rival(foreign, cube)
    foreign.before = rival.after_each_write(1)
    registry.put_manifest(NAME, ours)
    listed = {entry.digest for entry in registry.referrers(NAME, cube.digest)}
    assert listed == {earlier.digest, ours.digest, rival.entry.digest}


def test_an_entry_overwritten_later_is_missed_when_the_tag_moves(
    foreign: QuirkyRegistry, new_client: Callable[[str], Registry], store: Store
) -> None:
    registry = new_client(foreign.host)
    cube = cube_at(registry, NAME, store)
    build, rival = build_of(cube, "ours"), Rival(foreign, cube)
    registry.put_manifest(NAME, build)
    rival.overwrite()
    assert str(build.digest) not in foreign.index_of(NAME, cube.digest)
    registry.put_tags(NAME, cube, ["1.0.0", "latest"])
    assert len(foreign.index_of(NAME, cube.digest)) == 2


def test_an_index_that_is_always_overwritten_is_an_error_and_not_a_silent_loss(
    foreign: QuirkyRegistry, new_client: Callable[[str], Registry], store: Store
) -> None:
    registry = new_client(foreign.host)
    cube = cube_at(registry, NAME, store)
    foreign.before = Rival(foreign, cube).after_each_write(10_000)
    with pytest.raises(ConflictError, match="overwrite the list"):
        registry.put_manifest(NAME, build_of(cube, "ours"))
    writes = [one for one in foreign.main.lines() if one.startswith("PUT") and "sha256-" in one]
    assert len(writes) == 8


@pytest.mark.parametrize("where", ["quirky", "reference"])
def test_clients_that_write_at_once_lose_nothing_once_each_has_looked_again(
    where: str,
    foreign: QuirkyRegistry,
    new_client: Callable[[str], Registry],
    store: Store,
    request: pytest.FixtureRequest,
) -> None:
    url = request.getfixturevalue("reference_registry") if where == "reference" else foreign.url
    host, name = url.removeprefix("http://"), f"ann/{fresh('cube')}"
    clients = [new_client(host) for _ in range(3)]
    cube = cube_at(clients[0], name, store)
    builds = [[build_of(cube, f"{who} {number}") for number in range(3)] for who in range(3)]
    failures: list[BaseException] = []

    def write(client: Registry, own: list[oci.Manifest]) -> None:
        try:
            for build in own:
                client.put_manifest(name, build)
        except BaseException as error:
            failures.append(error)

    threads = [
        threading.Thread(target=write, args=pair) for pair in zip(clients, builds, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    for client in clients:
        client.put_manifest(name, cube, "1.0.0")
    listed = {entry.digest for entry in clients[0].referrers(name, cube.digest)}
    assert listed == {build.digest for own in builds for build in own}


def test_a_deleted_referrer_leaves_the_list(
    foreign: QuirkyRegistry, new_client: Callable[[str], Registry], store: Store
) -> None:
    registry = new_client(foreign.host)
    cube = cube_at(registry, NAME, store)
    kept, gone = build_of(cube, "kept"), build_of(cube, "gone")
    registry.put_manifest(NAME, kept)
    registry.put_manifest(NAME, gone)
    registry.delete_manifest(NAME, str(gone.digest))
    registry.put_manifest(NAME, cube, "1.0.0")
    assert [entry.digest for entry in registry.referrers(NAME, cube.digest)] == [kept.digest]


def test_an_entry_whose_manifest_is_gone_does_not_keep_others_off_the_list(
    reference_registry: str, new_client: Callable[[str], Registry], store: Store
) -> None:
    """The reference registry takes no index that names what it lacks."""
    name, host = f"ann/{fresh('cube')}", reference_registry.removeprefix("http://")
    cube = cube_at(new_client(host), name, store)
    gone, ours = build_of(cube, "gone"), build_of(cube, "ours")
    new_client(host).put_manifest(name, gone)
    deleted = Repository(Wire(reference_registry), name).delete_manifest(gone.digest)
    assert deleted.status == 202
    new_client(host).put_manifest(name, ours)
    listed = new_client(host).referrers(name, cube.digest)
    assert [entry.digest for entry in listed] == [ours.digest]


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_fallback_tags_are_known_from_versions(algorithm: str) -> None:
    digest = Digest.of(b"x", algorithm)
    assert is_fallback_tag(f"{algorithm}-{digest.hex[:64]}")
    assert not any(map(is_fallback_tag, ["1.0.0", "sha256-abc", "latest", f"sha256-{'A' * 64}"]))
