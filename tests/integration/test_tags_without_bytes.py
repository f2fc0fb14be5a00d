"""Tags for a manifest that the registry holds, without its bytes (docs/spec/cube.md, "Order of publication")."""

import json
from pathlib import Path

import pytest
from conftest import Person
from memcube_protocol import oci
from support.machine import client_on
from support.repository import Repository
from support.samples import Sample, one_image
from support.servers import docker_registry
from support.wire import Wire

HEADER = "Memcube-Tags-Without-Body"


@pytest.fixture
def held(ada: Person) -> tuple[Repository, Sample]:
    """A repository with one manifest, known by its digest alone."""
    repository, sample = ada.repository(), one_image("v1")
    sample.push(repository)
    repository.delete_manifest("v1")
    return repository, sample


def test_a_push_by_digest_says_that_its_tags_need_no_bytes(held: tuple[Repository, Sample]) -> None:
    repository, sample = held
    reply = repository.put_manifest(sample.top, sample.manifests[sample.top])
    assert reply.header(HEADER) == "true"


def test_tags_are_set_without_the_bytes(held: tuple[Repository, Sample]) -> None:
    repository, sample = held
    reply = repository.put_manifest(sample.top, b"", tags=["a", "b"])
    assert (reply.status, reply.headers.get_all("OCI-Tag")) == (201, ["a", "b"])
    assert repository.get_manifest("b").body == sample.manifests[sample.top]
    assert repository.tags() == ["a", "b"]


def test_nothing_is_tagged_where_the_repository_does_not_hold_it(
    ada: Person, held: tuple[Repository, Sample]
) -> None:
    elsewhere, (_, sample) = ada.repository(), held
    elsewhere.add_blob(b"{}")
    assert elsewhere.put_manifest(sample.top, b"", tags=["a"]).status == 404
    assert elsewhere.tags() == []


def test_a_stranger_tags_nothing_of_others(bob: Person, held: tuple[Repository, Sample]) -> None:
    repository, sample = held
    theirs = Repository(bob.wire, repository.name)
    assert theirs.put_manifest(sample.top, b"", tags=["a"]).status in (403, 404)
    assert repository.tags() == []


def test_an_empty_body_without_tags_is_no_manifest(held: tuple[Repository, Sample]) -> None:
    repository, sample = held
    assert repository.put_manifest(sample.top, b"").status == 400
    assert repository.put_manifest("tag", b"").status == 400


def test_the_client_sends_a_manifest_once(ada: Person, tmp_path: Path) -> None:
    sample = one_image("v1")
    name = ada.repository().name
    sample.push(Repository(ada.wire, name))
    manifest = oci.parse(sample.manifests[sample.top])
    with client_on(tmp_path, ada) as client:
        registry = client.context.registry("")
        registry.put_manifest(name, manifest)
        registry.put_tags(name, manifest, ["x", "y"])
    assert Repository(ada.wire, name).get_manifest("y").body == manifest.raw
    entries = [json.loads(line) for line in ada.server.log_text().splitlines() if name in line]
    sent = [entry["received_bytes"] for entry in entries if entry["method"] == "PUT"]
    assert sent[-2:] == [len(manifest.raw), 0]


def test_another_registry_is_sent_the_bytes_again(ada: Person, tmp_path: Path) -> None:
    sample = one_image("v1")
    with docker_registry(tmp_path) as (url, _), client_on(tmp_path / "home", ada) as client:
        there = client.context.registry(url.removeprefix("http://"))

        repository = Repository(Wire(url), "bench/cube")
        sample.push(repository)
        manifest = oci.parse(sample.manifests[sample.top])
        there.put_manifest("bench/cube", manifest)
        there.put_tags("bench/cube", manifest, ["x", "y"])
        assert repository.get_manifest("y").body == manifest.raw
