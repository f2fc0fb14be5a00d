"""Cubes that want to be copied: what only the copier holds does not travel with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Person, fresh
from memcube.copying.registries import copy
from memcube.remote import Registry
from memcube_protocol import oci
from memcube_protocol.digest import Digest
from memcube_protocol.errors import MemcubeError, NotFoundError
from memcube_protocol.reference import Reference
from support.machine import client_on
from support.repository import IMAGE, Repository
from support.wire import Wire

SECRET = b"what only bob holds"


@pytest.fixture(autouse=True)
def keys_without_passphrases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMCUBE_KEY_UNENCRYPTED", "1")


@pytest.fixture
def bait(ada: Person, tmp_path: Path) -> str:
    """A public cube of ada's."""
    source, name = tmp_path / "source", f"{ada.name}/{fresh('bait')}"
    (source / "plaintext").mkdir(parents=True)
    (source / "plaintext" / "notes.jsonl").write_text('{"id":"r1","text":"come and copy me"}\n')
    with client_on(tmp_path / "ada", ada) as client:
        client.push(source, f"{name}:1.0.0", public=True)
    return name


def attach_foreign(ada: Person, name: str, digest: Digest, size: int) -> None:
    """A referrer of the cube that names content which its repository does not hold."""
    repository = ada.repository(name.partition("/")[2])
    subject = repository.get_manifest("1.0.0").body
    value = {
        "schemaVersion": 2,
        "mediaType": IMAGE,
        "artifactType": "application/vnd.x",
        "config": oci.EMPTY.to_json(),
        "layers": [{"mediaType": "application/vnd.foreign.x", "digest": str(digest), "size": size}],
        "subject": {"mediaType": IMAGE, "digest": str(Digest.of(subject)), "size": len(subject)},
    }
    raw = json.dumps(value).encode()
    repository.add_blob(b"{}")
    assert repository.put_manifest(Digest.of(raw), raw).status == 201


def test_a_referrer_does_not_take_along_what_only_the_copier_holds(
    ada: Person, bob: Person, bait: str, tmp_path: Path
) -> None:
    secret = Digest.of(SECRET)
    attach_foreign(ada, bait, secret, len(SECRET))
    mirror = bob.repository()
    with client_on(tmp_path / "bob", bob) as client:
        client.context.store.blobs.add(SECRET)
        with pytest.raises(NotFoundError):
            copy(client.context, Reference("", bait, "1.0.0"), Reference("", mirror.name))
    assert mirror.head_blob(secret).status == 404


@pytest.mark.parametrize("lie", ["says it is there", "says nothing"])
def test_a_registry_that_only_claims_to_hold_a_blob_gets_no_copy_of_it(
    bob: Person,
    bait: str,
    tmp_path: Path,
    reference_registry: str,
    monkeypatch: pytest.MonkeyPatch,
    lie: str,
) -> None:
    """The store holds the layers of the cube from elsewhere; the source cannot send them."""
    real: Callable[..., object] = Registry.open_blob
    host, mirror = reference_registry.removeprefix("http://"), f"mirror/{fresh('bait')}"
    with client_on(tmp_path / "bob", bob) as client:
        pulled = client.pull(f"{bait}:1.0.0")
        layer = pulled.files[0].digest

        def without_the_layer(self: Registry, name: str, digest: Digest, **more: int) -> object:
            if digest == layer and name == bait:
                raise NotFoundError("no such blob")
            return real(self, name, digest, **more)

        monkeypatch.setattr(Registry, "open_blob", without_the_layer)
        if lie == "says it is there":
            size = sum(map(len, client.context.store.read(layer)))
            monkeypatch.setattr(Registry, "blob_size", lambda self, name, _: size)
        with pytest.raises(MemcubeError):
            copy(client.context, Reference("", bait, "1.0.0"), Reference(host, mirror))
    there = Repository(Wire(reference_registry), mirror)
    assert there.head_blob(layer).status == 404
    assert there.get_manifest("1.0.0").status == 404


def test_a_blob_of_the_copiers_own_at_the_target_is_not_mounted_for_a_stranger(
    ada: Person, bob: Person, bait: str, tmp_path: Path, reference_registry: str
) -> None:
    """The target's registry holds it in a repository that the copier's store knows."""
    secret = Digest.of(SECRET)
    attach_foreign(ada, bait, secret, len(SECRET))
    host, mirror = reference_registry.removeprefix("http://"), f"mirror/{fresh('bait')}"
    private = Repository(Wire(reference_registry), f"bob/{fresh('private')}")
    private.add_blob(SECRET)
    with client_on(tmp_path / "bob", bob) as client:
        store = client.context.store
        store.blobs.add(SECRET)
        layer = oci.Descriptor("application/vnd.foreign.x", secret, len(SECRET))
        own = oci.write_manifest(
            artifact_type="application/vnd.x", config=oci.EMPTY, layers=[layer]
        )
        store.blobs.add(own.raw)
        store.put_ref(Reference(host, private.name, "1.0.0"), own.digest)
        with pytest.raises(NotFoundError):
            copy(client.context, Reference("", bait, "1.0.0"), Reference(host, mirror))
    assert Repository(Wire(reference_registry), mirror).head_blob(secret).status == 404


def test_a_copy_of_what_was_pulled_before_is_whole(bob: Person, bait: str, tmp_path: Path) -> None:
    mirror = bob.repository()
    with client_on(tmp_path / "bob", bob) as client:
        pulled = client.pull(f"{bait}:1.0.0")
        made = copy(client.context, Reference("", bait, "1.0.0"), Reference("", mirror.name))
    assert made.digest == pulled.cube.digest
    release_scan_and_files = 3
    assert made.attached == release_scan_and_files
    assert all(mirror.head_blob(file.digest).status == 200 for file in pulled.files)
