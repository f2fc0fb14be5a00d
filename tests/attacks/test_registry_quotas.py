"""Ways around a quota, and work that a stranger makes the registry do for nothing."""

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import Person, fresh, on_both_databases
from memcube_protocol.digest import Digest
from support.repository import IMAGE, Repository

pytestmark = on_both_databases

EMPTY = b"{}"


@pytest.fixture
def poor(ada: Person) -> Person:
    """Somebody with room for 100 kB."""
    server, name = ada.server, fresh("poor")
    server.admin("account", "create", name, "--quota", "100000")
    return Person(server, name, server.create_token(name, "pull", "push", "delete", "admin"))


def manifest_of(size: int, config: Digest) -> bytes:
    """A manifest that carries `size` bytes of its own."""
    value = {
        "schemaVersion": 2,
        "mediaType": IMAGE,
        "config": {"mediaType": "application/vnd.x", "digest": str(config), "size": len(EMPTY)},
        "layers": [],
        "annotations": {"load": os.urandom(size // 2).hex()},
    }
    return json.dumps(value).encode()


def used(person: Person) -> int:
    found: int = person.wire.get("/api/v1/me").json()["usedBytes"]
    return found


def test_content_in_manifests_counts_as_content(poor: Person) -> None:
    repository = poor.repository()
    config = repository.add_blob(EMPTY)
    first = manifest_of(60_000, config)
    assert repository.put_manifest("one", first).status == 201
    assert repository.put_manifest("again", first).status == 201
    assert used(poor) == len(first) + len(EMPTY)
    refused = repository.put_manifest("two", manifest_of(60_000, config))
    assert (refused.status, refused.error_codes) == (413, ["DENIED"])
    assert repository.delete_manifest(Digest.of(first)).status == 202
    assert used(poor) == len(EMPTY)
    assert repository.put_manifest("two", manifest_of(60_000, config)).status == 201


def test_uploads_are_not_begun_without_end(poor: Person) -> None:
    repository = poor.repository()
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda _: repository.start_upload().status, range(1020)))
    assert 1000 <= statuses.count(202) < 1010, "a few that begin at once may slip through"
    assert repository.start_upload().status == 413
    assert poor.wire.delete(f"/api/v1/cubes/{repository.name}").status == 204
    assert repository.start_upload().status == 202


def test_a_deleted_cube_gives_its_manifests_room_back(poor: Person) -> None:
    repository = poor.repository()
    repository.put_manifest("one", manifest_of(60_000, repository.add_blob(EMPTY)))
    assert poor.wire.delete(f"/api/v1/cubes/{repository.name}").status == 204
    assert used(poor) == 0


@pytest.mark.parametrize("size", [10, 3_000_000])
def test_a_strangers_manifest_is_not_even_parsed(
    ada: Person, new_person: Callable[[], Person], size: int
) -> None:
    stranger = new_person().wire
    repository = ada.repository()
    repository.add_blob(EMPTY)
    for wire, status in ((stranger, 403), (stranger.anonymous(), 401)):
        seen: Repository = repository.seen_by(wire)
        assert seen.put_manifest("latest", b"[" * size).status == status


def test_an_upload_that_a_quota_refuses_leaves_no_cube(poor: Person) -> None:
    repository, content = poor.repository(), os.urandom(100_001)
    refused = repository.post_blob(content, Digest.of(content))
    assert (refused.status, refused.error_codes) == (413, ["DENIED"])
    assert poor.wire.get(f"/api/v1/cubes?prefix={poor.name}/").json()["cubes"] == []
    assert repository.list_tags().status == 404
    assert used(poor) == 0
