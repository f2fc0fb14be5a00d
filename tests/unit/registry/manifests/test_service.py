"""Manifests and tags: whole or not at all, versions that never move, compare and swap."""

from __future__ import annotations

import json
from typing import Any

import pytest
from memcube_protocol import media_types, oci
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    ConflictError,
    DigestMismatchError,
    InvalidManifestError,
    MissingContentError,
    NotFoundError,
)
from memcube_registry.database import Database
from memcube_registry.manifests import referrers, service, tags
from memcube_registry.manifests.tags import Expectation
from support.registry_core import Core

NAME = "ada/notes"


@pytest.fixture
def core(database: Database) -> Core:
    core = Core(database)
    core.principal = core.person("ada")
    core.push_blob(NAME, b"a layer")
    return core


def target(core: Core, tag: str) -> str:
    with core.database.read() as session:
        return service.get(session.connection(), core.principal, NAME, tag).digest


def push(core: Core, tag: str, expected: Expectation, layers: int) -> Digest:
    layer = {"mediaType": "text/plain", "digest": str(Digest.of(b"a layer")), "size": 7}
    core.push_blob(NAME, b"{}")
    raw = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": media_types.OCI_MANIFEST,
            "config": oci.EMPTY.to_json(),
            "layers": [layer] * layers,
        }
    ).encode()
    ready = service.read_push(raw, None, None, [tag], expected)
    core.database.run(lambda s: service.put(s, core.principal, NAME, ready, core.now))
    return ready.digest


def test_the_bytes_come_back_exactly_as_they_came(core: Core) -> None:
    core.push_blob(NAME, b"{}")
    raw = (
        b'{ "unknown": [1, 2],\n"schemaVersion":2, "mediaType": "%s", "layers": [], "config": %s }  '
        % (media_types.OCI_MANIFEST.encode(), json.dumps(oci.EMPTY.to_json()).encode())
    )
    ready = service.read_push(raw, None, None, ["odd"])
    core.database.run(lambda s: service.put(s, core.principal, NAME, ready, core.now))
    with core.database.read() as session:
        assert service.get(session.connection(), core.principal, NAME, "odd").content == raw
        assert (
            service.get(session.connection(), core.principal, NAME, Digest.of(raw)).content == raw
        )


def test_another_digest_than_announced_is_refused() -> None:
    with pytest.raises(DigestMismatchError):
        service.read_push(b"{}", None, Digest.of(b"other"), [])


def test_a_manifest_over_an_absent_blob_is_refused_and_leaves_no_tag(core: Core) -> None:
    with pytest.raises(MissingContentError, match="lacks 1 blobs"):
        core.push_manifest(NAME, [b"never pushed"], "latest")
    with pytest.raises(NotFoundError):
        target(core, "latest")


def test_a_blob_of_another_repository_does_not_count(core: Core) -> None:
    core.push_blob("ada/other", b"elsewhere")
    with pytest.raises(MissingContentError):
        core.push_manifest(NAME, [b"elsewhere"], "latest")


def test_an_index_over_an_absent_manifest_is_refused(core: Core) -> None:
    with pytest.raises(MissingContentError, match="lacks 1 manifests"):
        core.push_index(NAME, [Digest.of(b"never pushed")], "all")


def test_a_layer_that_lies_elsewhere_need_not_be_pushed(core: Core) -> None:
    core.push_blob(NAME, b"{}")
    value: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "config": oci.EMPTY.to_json(),
        "layers": [
            {
                "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar",
                "digest": str(Digest.of(b"elsewhere")),
                "size": 1,
            }
        ],
    }
    digest = core.put(NAME, value, ("foreign",), None)
    assert target(core, "foreign") == str(digest)


def test_a_wrong_size_is_refused(core: Core) -> None:
    core.push_blob(NAME, b"{}")
    value = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "config": {**oci.EMPTY.to_json(), "size": 3},
        "layers": [],
    }
    with pytest.raises(InvalidManifestError, match="3 bytes"):
        core.put(NAME, value, ("wrong",), None)


def test_a_version_never_moves_and_takes_the_same_again(core: Core) -> None:
    first = push(core, "1.0.0", tags.ANYTHING, 0)
    assert push(core, "1.0.0", tags.ANYTHING, 0) == first
    with pytest.raises(ConflictError, match="never changes"):
        push(core, "1.0.0", tags.ANYTHING, 1)
    assert target(core, "1.0.0") == str(first)


def test_a_version_that_was_deleted_comes_back_as_the_same_only(core: Core) -> None:
    first = push(core, "1.0.0", tags.ANYTHING, 0)
    core.untag(NAME, "1.0.0")
    with pytest.raises(NotFoundError):
        target(core, "1.0.0")
    with pytest.raises(ConflictError):
        push(core, "1.0.0", tags.ANYTHING, 1)
    assert push(core, "1.0.0", tags.ANYTHING, 0) == first
    core.untag(NAME, "1.0.0")


def test_deleting_the_manifest_does_not_free_its_version_either(core: Core) -> None:
    first = push(core, "1.0.0", tags.ANYTHING, 0)
    core.database.run(lambda s: service.delete(s, core.principal, NAME, first, core.now))
    with pytest.raises(ConflictError):
        push(core, "1.0.0", tags.ANYTHING, 1)


@pytest.mark.parametrize("tag", ["latest", "1", "1.4", "v1.0.0"])
def test_other_tags_move(core: Core, tag: str) -> None:
    push(core, tag, tags.ANYTHING, 0)
    second = push(core, tag, tags.ANYTHING, 1)
    assert target(core, tag) == str(second)


def test_a_tag_moves_only_from_where_it_is_expected(core: Core) -> None:
    first = push(core, "latest", Expectation(absent=True), 0)
    second = push(core, "latest", Expectation(first), 1)
    with pytest.raises(ConflictError, match="another push was first"):
        push(core, "latest", Expectation(first), 2)
    with pytest.raises(ConflictError):
        push(core, "latest", Expectation(absent=True), 2)
    with pytest.raises(ConflictError):
        push(core, "absent", Expectation(first), 2)
    assert target(core, "latest") == str(second)


def test_a_manifest_that_an_index_needs_is_not_deleted(core: Core) -> None:
    child = core.push_manifest(NAME, [b"a layer"])
    core.push_index(NAME, [child], "all")
    with pytest.raises(ConflictError, match="index"):
        core.database.run(lambda s: service.delete(s, core.principal, NAME, child, core.now))


def test_tags_come_in_pages_in_byte_order(core: Core) -> None:
    names = ["B", "a", "_x", "Z9", "b.1", "b-1", "0"]
    for name in names:
        core.push_manifest(NAME, [], name)
    found, after = [], ""
    while True:
        with core.database.read() as session:
            page = tags.page(session, core.principal, NAME, after=after, count=3)
        found += page.names
        if not page.has_more:
            break
        after = page.names[-1]
    assert found == sorted(names)


def test_referrers_are_filtered_and_paged(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(referrers, "PAGE", 2)
    subject = core.push_manifest(NAME, [b"a layer"], "latest")
    contents = [b"1", b"22", b"333"]
    for content in contents:
        core.push_blob(NAME, content)
    pushed = [str(core.push_manifest(NAME, [c], subject=subject)) for c in contents]
    with core.database.read() as session:
        first = referrers.page(session, core.principal, NAME, subject)
        rest = referrers.page(session, core.principal, NAME, subject, after=first.next_after or 0)
        none = referrers.page(session, core.principal, NAME, subject, artifact_type="other/x")
    assert [each["digest"] for each in first.descriptors + rest.descriptors] == pushed
    assert rest.next_after is None
    assert {each["artifactType"] for each in first.descriptors} == {media_types.CUBE}
    assert none.descriptors == ()
