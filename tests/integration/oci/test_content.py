"""Every kind of content, pushed once, then listed, read, referred to and deleted.

Each class of the public suite's data tests is one parameter (see `support.samples`).
"""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from support.repository import ACCEPT, INDEX, Repository, location_of
from support.samples import SAMPLES, Sample


@dataclass(frozen=True)
class Pushed:
    sample: Sample
    repository: Repository


@pytest.fixture(scope="module", params=SAMPLES, ids=lambda name: name.replace(" ", "-"))
def pushed(request: pytest.FixtureRequest, new_repository: Callable[[], Repository]) -> Pushed:
    pushed = Pushed(SAMPLES[request.param](), new_repository())
    pushed.sample.push(pushed.repository)
    return pushed


@pytest.fixture(params=SAMPLES, ids=lambda name: name.replace(" ", "-"))
def sample(request: pytest.FixtureRequest) -> Sample:
    return SAMPLES[request.param]()


def push_blobs(sample: Sample, repository: Repository) -> None:
    for content in sample.blobs.values():
        repository.add_blob(content, sample.algorithm)


class TestPush:
    def test_by_digest_answers_201_with_the_location(
        self, sample: Sample, repository: Repository
    ) -> None:
        push_blobs(sample, repository)
        for digest, content in sample.manifests.items():
            reply = repository.put_manifest(digest, content, sample.media_types[digest])
            assert reply.status == 201, reply
            assert reply.header("Docker-Content-Digest") == str(digest)
            assert repository.wire.get(location_of(reply), headers=ACCEPT).body == content

    def test_by_tag_answers_201_with_the_location(
        self, sample: Sample, repository: Repository
    ) -> None:
        push_blobs(sample, repository)
        for digest, content in sample.manifests.items():
            assert (
                repository.put_manifest(digest, content, sample.media_types[digest]).status == 201
            )
        for tag, digest in sample.tags.items():
            content = sample.manifests[digest]
            reply = repository.put_manifest(tag, content, sample.media_types[digest])
            assert reply.status == 201, reply
            assert reply.header("Docker-Content-Digest") == str(digest)
            assert repository.wire.get(location_of(reply), headers=ACCEPT).body == content

    def test_by_tag_alone_makes_the_digest_known(
        self, sample: Sample, repository: Repository
    ) -> None:
        push_blobs(sample, repository)
        for number, (digest, content) in enumerate(sample.manifests.items()):
            media_type = sample.media_types[digest]
            by_tag = digest.algorithm == "sha256"
            reference = f"only-{number}" if by_tag else digest
            assert repository.put_manifest(reference, content, media_type).status == 201
            assert repository.get_manifest(digest).body == content

    def test_twice_has_the_same_effect(self, sample: Sample, repository: Repository) -> None:
        sample.push(repository)
        sample.push(repository)
        assert repository.get_manifest(sample.top).body == sample.manifests[sample.top]
        assert sorted(repository.tags()) == sorted(sample.tags)

    def test_names_the_subject(self, sample: Sample, repository: Repository) -> None:
        push_blobs(sample, repository)
        subjects = {
            entry["digest"]: subject
            for subject, entries in sample.referrers.items()
            for entry in entries
        }
        for digest, content in sample.manifests.items():
            reply = repository.put_manifest(digest, content, sample.media_types[digest])
            subject = subjects.get(str(digest))
            assert reply.header("OCI-Subject") == (str(subject) if subject else None)

    def test_refuses_bytes_of_another_digest(self, sample: Sample, repository: Repository) -> None:
        push_blobs(sample, repository)
        *children, (top, content) = sample.manifests.items()
        for digest, child in children:
            repository.put_manifest(digest, child, sample.media_types[digest])
        reply = repository.put_manifest(top, content + b"  ", sample.media_types[top])
        assert reply.status in {400, 413}
        assert repository.head_manifest(top).status == 404


class TestPull:
    def test_head_by_tag(self, pushed: Pushed) -> None:
        for tag, digest in pushed.sample.tags.items():
            assert_describes(pushed, pushed.repository.head_manifest(tag), digest)

    def test_head_by_digest(self, pushed: Pushed) -> None:
        for digest in pushed.sample.manifests:
            reply = pushed.repository.head_manifest(digest)
            assert reply.body == b""
            assert_describes(pushed, reply, digest)

    def test_get_by_tag(self, pushed: Pushed) -> None:
        for tag, digest in pushed.sample.tags.items():
            reply = pushed.repository.get_manifest(tag)
            assert reply.body == pushed.sample.manifests[digest]
            assert_describes(pushed, reply, digest)

    def test_get_by_digest(self, pushed: Pushed) -> None:
        for digest, content in pushed.sample.manifests.items():
            reply = pushed.repository.get_manifest(digest)
            assert reply.body == content
            assert_describes(pushed, reply, digest)

    def test_get_without_accept(self, pushed: Pushed) -> None:
        for digest, content in pushed.sample.manifests.items():
            reply = pushed.repository.wire.get(pushed.repository.path(f"manifests/{digest}"))
            assert (reply.status, reply.body) == (200, content)

    def test_head_of_blobs(self, pushed: Pushed) -> None:
        for digest, content in pushed.sample.blobs.items():
            reply = pushed.repository.head_blob(digest)
            assert (reply.status, reply.header("Content-Length")) == (200, str(len(content)))

    def test_get_of_blobs(self, pushed: Pushed) -> None:
        for digest, content in pushed.sample.blobs.items():
            reply = pushed.repository.get_blob(digest)
            assert (reply.status, reply.body) == (200, content)


def assert_describes(pushed: Pushed, reply, digest) -> None:  # type: ignore[no-untyped-def]
    assert reply.status == 200, reply
    assert reply.header("Content-Type") == pushed.sample.media_types[digest]
    assert reply.header("Content-Length") == str(len(pushed.sample.manifests[digest]))
    assert reply.header("Docker-Content-Digest") == str(digest)


class TestDiscovery:
    def test_all_tags_are_listed(self, pushed: Pushed) -> None:
        assert pushed.repository.tags() == sorted(pushed.sample.tags)

    def test_every_referrer_is_listed(self, pushed: Pushed) -> None:
        for subject, expected in pushed.sample.referrers.items():
            listed = {entry["digest"]: entry for entry in pushed.repository.referrers(subject)}
            assert set(listed) == {entry["digest"] for entry in expected}
            for entry in expected:
                assert listed[entry["digest"]].items() >= entry.items()

    def test_referrers_filtered_by_type(self, pushed: Pushed) -> None:
        for subject, expected in pushed.sample.referrers.items():
            for artifact_type in {entry.get("artifactType", "") for entry in expected} - {""}:
                reply = pushed.repository.list_referrers(subject, artifactType=artifact_type)
                assert reply.status == 200
                assert "artifactType" in (reply.header("OCI-Filters-Applied") or "")
                listed = {entry["digest"] for entry in reply.json()["manifests"]}
                assert listed == {
                    entry["digest"]
                    for entry in expected
                    if entry.get("artifactType") == artifact_type
                }

    def test_manifests_without_referrers_list_none(self, pushed: Pushed) -> None:
        for digest in set(pushed.sample.manifests) - set(pushed.sample.referrers):
            reply = pushed.repository.list_referrers(digest)
            assert (reply.status, reply.header("Content-Type")) == (200, INDEX)
            assert reply.json()["manifests"] == []


class TestDelete:
    def test_of_tags_then_manifests_then_blobs(
        self, sample: Sample, repository: Repository
    ) -> None:
        sample.push(repository)
        for tag in sample.tags:
            assert repository.delete_manifest(tag).status == 202
            assert repository.head_manifest(tag).status == 404
        for digest in reversed(sample.manifests):
            assert repository.delete_manifest(digest).status == 202
            assert repository.head_manifest(digest).status == 404
        for digest in sample.blobs:
            assert repository.delete_blob(digest).status == 202
            assert repository.head_blob(digest).status == 404
        assert repository.tags() == []

    def test_of_a_manifest_removes_its_tags(self, sample: Sample, repository: Repository) -> None:
        sample.push(repository)
        for digest in reversed(sample.manifests):
            assert repository.delete_manifest(digest).status == 202
        for tag in sample.tags:
            assert repository.head_manifest(tag).status == 404
        assert repository.tags() == []

    def test_of_a_tag_keeps_the_manifest(self, sample: Sample, repository: Repository) -> None:
        sample.push(repository)
        for tag, digest in sample.tags.items():
            assert repository.delete_manifest(tag).status == 202
            assert repository.get_manifest(digest).body == sample.manifests[digest]

    def test_of_a_referrer_unlists_it(self, sample: Sample, repository: Repository) -> None:
        sample.push(repository)
        for subject, entries in sample.referrers.items():
            for gone, entry in enumerate(entries, 1):
                assert repository.delete_manifest(entry["digest"]).status == 202
                left = {each["digest"] for each in repository.referrers(subject)}
                assert left == {each["digest"] for each in entries[gone:]}
