"""Revisions and files of a cube, as the Hub's clients ask for them."""

from __future__ import annotations

from typing import Any

import pytest
from memcube_protocol import media_types, oci
from memcube_protocol.digest import Digest
from memcube_protocol.errors import ConflictError, NotFoundError, UnauthenticatedError
from memcube_registry.accounts.principal import ANONYMOUS, Principal
from memcube_registry.database import Database
from memcube_registry.hub import service, showing
from memcube_registry.hub.service import UnknownFileError, UnknownRevisionError
from memcube_registry.manifests import service as manifests
from memcube_registry.manifests.models import Manifest, commit_of
from sqlmodel import select
from support.registry_core import Core

CUBE = "ada/x"


@pytest.fixture
def core(database: Database) -> Core:
    core = Core(database)
    core.principal = core.person("ada")
    return core


def push(core: Core, files: dict[str, bytes], *tags: str, name: str = CUBE) -> Digest:
    core.push_blob(name, b"{}")
    layers: list[dict[str, Any]] = [
        {
            "mediaType": "text/plain",
            "digest": str(core.push_blob(name, content)),
            "size": len(content),
            "annotations": {media_types.TITLE: path},
        }
        for path, content in files.items()
    ]
    value = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "artifactType": media_types.CUBE,
        "config": oci.EMPTY.to_json(),
        "layers": layers,
    }
    return core.put(name, value, tags, None)


def found(core: Core, revision: str, who: Principal | None = None) -> service.Snapshot:
    with core.database.read() as session:
        return service.find_snapshot(session, who or core.principal, CUBE, revision)


def read(core: Core, revision: str, path: str, who: Principal | None = None) -> bytes:
    with core.database.read() as session:
        held = service.find_file(session, who or core.principal, CUBE, revision, path)
    return b"".join(core.store.read(held.blob.location))


def test_a_revision_is_a_tag_a_digest_or_a_commit(core: Core) -> None:
    digest = push(core, {"a.txt": b"one"}, "1.0.0", "latest")
    for revision in ("1.0.0", "latest", "main", str(digest), commit_of(digest)):
        assert found(core, revision).digest == digest
        assert read(core, revision, "a.txt") == b"one"


def test_main_is_a_tag_of_that_name_before_it_is_the_latest(core: Core) -> None:
    latest = push(core, {"a.txt": b"one"}, "latest")
    assert found(core, "main").digest == latest
    own = push(core, {"a.txt": b"two"}, "main")
    assert found(core, "main").digest == own
    with core.database.read() as session:
        refs = showing.refs(service.find_revisions(session, core.principal, CUBE))
    assert refs["branches"][0]["targetCommit"] == commit_of(own)


def test_forty_digits_are_never_a_tag(core: Core) -> None:
    push(core, {"a.txt": b"one"}, "f" * 40, "latest")
    with pytest.raises(UnknownRevisionError):
        found(core, "f" * 40)


@pytest.mark.parametrize(
    "revision",
    ["2.0.0", "0" * 40, "sha256:" + "0" * 64, "sha256:short", "refs/pr/1", "", "a b", "\u00e9"],
)
def test_what_names_nothing_is_no_revision(core: Core, revision: str) -> None:
    push(core, {"a.txt": b"one"}, "1.0.0")
    with pytest.raises(UnknownRevisionError):
        found(core, revision)


def test_a_commit_of_another_repository_is_none_here(core: Core) -> None:
    push(core, {"a.txt": b"one"}, "latest")
    other = push(core, {"a.txt": b"two"}, "latest", name="ada/y")
    for revision in (commit_of(other), str(other)):
        with pytest.raises(UnknownRevisionError):
            found(core, revision)


def test_a_file_that_is_not_there_is_told_with_the_commit(core: Core) -> None:
    digest = push(core, {"a/b.txt": b"one"}, "latest")
    for path in ("absent", "a", "A/b.txt", "a/b.txt/c", ""):
        with pytest.raises(UnknownFileError) as caught:
            read(core, "main", path)
        assert caught.value.commit == commit_of(digest)


def test_strangers_get_nothing_and_cannot_tell_why(core: Core) -> None:
    digest, bob = push(core, {"a.txt": b"one"}, "latest"), core.person("bob")
    for revision in ("latest", "absent", str(digest), commit_of(digest)):
        with pytest.raises(NotFoundError) as caught:
            read(core, revision, "a.txt", bob)
        assert type(caught.value) is NotFoundError
        with pytest.raises(UnauthenticatedError):
            read(core, revision, "a.txt", ANONYMOUS)
    core.publish(CUBE)
    assert read(core, "latest", "a.txt", ANONYMOUS) == b"one"


def test_two_manifests_never_share_a_commit(core: Core) -> None:
    first = push(core, {"a.txt": b"one"}, "latest")
    wanted = manifests.read_push(oci.write_index([]).raw, None, None, ())
    with core.database.write() as session:
        row = session.exec(select(Manifest).where(Manifest.digest == str(first))).one()
        row.commit = commit_of(wanted.digest)
        session.add(row)
    with pytest.raises(ConflictError, match="same 40 hex digits"):
        core.database.run(
            lambda session: manifests.put(session, core.principal, CUBE, wanted, core.now)
        )


def test_a_listing_shows_folders_and_pages_by_path(core: Core) -> None:
    push(core, {"a/b/c.txt": b"1", "a/d.txt": b"2", "e.txt": b"3"}, "latest")
    snapshot = found(core, "main")
    every = [e["path"] for e in showing.entries(snapshot, "", recursive=True)]
    assert every == ["a", "a/b", "a/b/c.txt", "a/d.txt", "e.txt"]
    assert [e["path"] for e in showing.entries(snapshot, "", recursive=False)] == ["a", "e.txt"]
    assert [e["path"] for e in showing.entries(snapshot, "a", recursive=False)] == [
        "a/b",
        "a/d.txt",
    ]
    assert showing.entries(snapshot, "a/d.txt", recursive=True) == []
    assert showing.entries(snapshot, "absent", recursive=True) == []


def test_a_sha512_layer_is_listed_without_a_name_in_lfs() -> None:
    content = b"x"
    layer = oci.Descriptor("text/plain", Digest.of(content, "sha512"), 1)
    assert "lfs" not in showing._file("x", layer)
    assert showing._file("x", layer)["oid"] == layer.digest.hex[:40]


def test_an_oid_is_that_of_gits_own_pointer_file() -> None:
    layer = oci.Descriptor.of("text/plain", b"hello\n")
    pointer = (
        "version https://git-lfs.github.com/spec/v1\n"
        "oid sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03\nsize 6\n"
    )
    entry = showing._file("x", layer)
    assert entry["lfs"]["pointerSize"] == len(pointer)
    assert entry["oid"] == "fa61e1ef71c9908c0926776a4aa3504b3a27f159"  # git hash-object
