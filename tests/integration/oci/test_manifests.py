"""Manifests: exact bytes, tags, referrers and the refusals (distribution-spec, "Pushing manifests")."""

import json
import os

import pytest
from memcube_protocol.digest import Digest
from support.repository import IMAGE, INDEX, Repository
from support.samples import EMPTY_JSON, TYPE_1, Sample, one_image, to_json


def manifest(repository: Repository, **more: object) -> bytes:
    """A small manifest whose blobs are in `repository`."""
    empty = repository.add_blob(b"{}")
    descriptor = {"mediaType": EMPTY_JSON, "digest": str(empty), "size": 2}
    body = {"schemaVersion": 2, "mediaType": IMAGE, "config": descriptor, "layers": [descriptor]}
    return to_json(body | {"annotations": {"unique": os.urandom(6).hex()}} | more)


class TestBytes:
    def test_white_space_and_key_order_are_kept(self, repository: Repository) -> None:
        parsed = json.loads(manifest(repository))
        content = json.dumps(dict(reversed(parsed.items())), indent=3).encode() + b"\n \n"
        assert repository.put_manifest("spaced", content).status == 201
        assert repository.get_manifest("spaced").body == content

    def test_escapes_and_unicode_are_kept(self, repository: Repository) -> None:
        notes = {"é": "日本語 \u2028 😀"}
        for ascii_only in (True, False):
            parsed = json.loads(manifest(repository)) | {"annotations": notes}
            content = json.dumps(parsed, ensure_ascii=ascii_only).encode()
            assert repository.put_manifest("unicode", content).status == 201
            assert repository.get_manifest("unicode").body == content

    def test_without_media_type_inside_the_content_type_decides(
        self, repository: Repository
    ) -> None:
        parsed = json.loads(manifest(repository))
        del parsed["mediaType"]
        assert repository.put_manifest("bare", to_json(parsed)).status == 201
        assert repository.get_manifest("bare").header("Content-Type") == IMAGE

    def test_the_manifest_of_docker_is_taken(self, repository: Repository) -> None:
        media_type = "application/vnd.docker.distribution.manifest.v2+json"
        parsed = json.loads(manifest(repository)) | {"mediaType": media_type}
        parsed["config"]["mediaType"] = "application/vnd.docker.container.image.v1+json"
        content = to_json(parsed)
        assert repository.put_manifest("docker", content, media_type).status == 201
        reply = repository.wire.get(repository.path("manifests/docker"), headers={"Accept": "*/*"})
        assert (reply.body, reply.header("Content-Type")) == (content, media_type)


class TestRefusals:
    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'"text"', b"\xff\xfe", b"1"])
    def test_what_is_no_json_object(self, repository: Repository, content: bytes) -> None:
        repository.add_blob(b"{}")
        reply = repository.put_manifest("bad", content)
        assert reply.status == 400
        assert reply.error_codes == ["MANIFEST_INVALID"]

    def test_another_media_type_than_the_header_says(self, repository: Repository) -> None:
        assert repository.put_manifest("bad", manifest(repository), INDEX).status == 400

    def test_another_schema_version(self, repository: Repository) -> None:
        assert repository.put_manifest("bad", manifest(repository, schemaVersion=1)).status == 400

    @pytest.mark.parametrize("field", ["config", "layers", "schemaVersion"])
    def test_a_missing_field(self, repository: Repository, field: str) -> None:
        parsed = json.loads(manifest(repository))
        del parsed[field]
        assert repository.put_manifest("bad", to_json(parsed)).status == 400

    @pytest.mark.parametrize(
        "descriptor",
        [
            {},
            {"mediaType": "a/b"},
            {"mediaType": "a/b", "digest": "sha256:short", "size": 1},
            {"mediaType": "a/b", "digest": str(Digest.of(b"{}")), "size": -1},
            {"mediaType": "a/b", "digest": str(Digest.of(b"{}")), "size": "2"},
            {"mediaType": "a/b", "digest": str(Digest.of(b"{}")), "size": 2.5},
            "text",
            None,
            [],
        ],
    )
    def test_a_malformed_descriptor(self, repository: Repository, descriptor: object) -> None:
        assert repository.put_manifest("bad", manifest(repository, config=descriptor)).status == 400
        assert (
            repository.put_manifest("bad", manifest(repository, layers=[descriptor])).status == 400
        )

    @pytest.mark.parametrize(
        "tag", [".hidden", "-dash", "a" * 129, "sp%20ace", "plus+", "a%2Fb", "at@", "ümlaut"]
    )
    def test_a_tag_outside_the_grammar(self, repository: Repository, tag: str) -> None:
        encoded = tag.replace("ü", "%C3%BC")
        assert repository.put_manifest(encoded, manifest(repository)).status in {400, 404}

    def test_nothing_refused_becomes_visible(self, repository: Repository) -> None:
        repository.put_manifest("bad", manifest(repository, schemaVersion=7))
        assert repository.get_manifest("bad").status == 404
        assert repository.tags() == []

    def test_more_than_four_mebibytes(self, repository: Repository) -> None:
        content = manifest(repository, annotations={"a": "x" * (5 * 1024 * 1024)})
        reply = repository.put_manifest("huge", content)
        assert reply.status == 413
        assert repository.get_manifest("huge").status == 404


class TestTags:
    def test_of_the_grammar_work(self, repository: Repository) -> None:
        content = manifest(repository)
        tags = ["a", "A", "_", "0", "v1.0.0-rc.1_build", "x" * 128, "latest", "a" * 64]
        for tag in tags:
            assert repository.put_manifest(tag, content).status == 201
            assert repository.get_manifest(tag).body == content
        assert repository.tags() == sorted(tags)

    def test_move(self, repository: Repository) -> None:
        first, second = manifest(repository), manifest(repository)
        for content in (first, second):
            assert repository.put_manifest("moving", content).status == 201
            assert repository.get_manifest("moving").body == content
        assert repository.get_manifest(Digest.of(first)).body == first

    def test_deleted_twice_is_404(self, repository: Repository) -> None:
        repository.put_manifest("once", manifest(repository))
        assert repository.delete_manifest("once").status == 202
        assert repository.delete_manifest("once").status == 404

    def test_deleted_and_pushed_again(self, repository: Repository) -> None:
        content = manifest(repository)
        repository.put_manifest("again", content)
        repository.delete_manifest("again")
        assert repository.put_manifest("again", content).status == 201
        assert repository.tags() == ["again"]


class TestTagParameters:
    """`PUT manifests/<digest>?tag=a&tag=b` (distribution-spec, after 1.1)."""

    @pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
    def test_one_push_sets_several_tags(self, repository: Repository, algorithm: str) -> None:
        content = manifest(repository)
        digest = Digest.of(content, algorithm)
        tags = ["first", "second", "third"]
        reply = repository.put_manifest(digest, content, tags=tags)
        assert reply.status == 201
        named = ",".join(reply.headers.get_all("OCI-Tag", [])).split(",")
        assert {name.strip() for name in named} == set(tags)
        for tag in tags:
            got = repository.get_manifest(tag)
            assert (got.body, got.header("Docker-Content-Digest")) == (content, str(digest))
        assert repository.tags() == tags

    @pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
    def test_an_index_and_its_children(self, repository: Repository, algorithm: str) -> None:
        sample = Sample(algorithm)
        sample.index()
        for content in sample.blobs.values():
            repository.add_blob(content, algorithm)
        for number, (digest, content) in enumerate(sample.manifests.items()):
            media_type = sample.media_types[digest]
            reply = repository.put_manifest(digest, content, media_type, tags=[f"t-{number}"])
            assert reply.header("OCI-Tag") == f"t-{number}"
        assert repository.tags() == ["t-0", "t-1", "t-2"]

    def test_a_malformed_tag_sets_none(self, repository: Repository) -> None:
        content = manifest(repository)
        reply = repository.put_manifest(Digest.of(content), content, tags=["good", ".bad"])
        assert reply.status == 400
        assert repository.get_manifest("good").status == 404
        assert repository.get_manifest(Digest.of(content)).status == 404


class TestMissingContent:
    @pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
    def test_a_manifest_naming_absent_blobs_is_refused(
        self, repository: Repository, algorithm: str
    ) -> None:
        sample = one_image(algorithm=algorithm)
        *present, absent = sample.blobs.values()
        for content in present:
            repository.add_blob(content, algorithm)
        reply = repository.put_manifest(sample.top, sample.manifests[sample.top])
        assert reply.status in {400, 404}
        assert reply.error_codes == ["MANIFEST_BLOB_UNKNOWN"]
        assert repository.head_manifest(sample.top).status == 404
        repository.add_blob(absent, algorithm)
        assert repository.put_manifest(sample.top, sample.manifests[sample.top]).status == 201

    def test_an_index_naming_absent_manifests_is_refused(self, repository: Repository) -> None:
        sample = Sample()
        sample.index()
        repository.add_blob(b"{}")
        reply = repository.put_manifest("index", sample.manifests[sample.top], INDEX)
        assert reply.status in {400, 404}
        assert repository.head_manifest("index").status == 404


class TestReferrers:
    def test_of_an_unknown_digest_are_an_empty_index(self, repository: Repository) -> None:
        repository.add_blob(b"{}")
        reply = repository.list_referrers(Digest.of(os.urandom(9)))
        assert (reply.status, reply.header("Content-Type")) == (200, INDEX)
        document = reply.json()
        assert (document["schemaVersion"], document["mediaType"]) == (2, INDEX)
        assert document["manifests"] == []

    def test_in_an_unused_repository_are_an_empty_index(self, repository: Repository) -> None:
        reply = repository.list_referrers(Digest.of(os.urandom(9)))
        assert (reply.status, reply.json()["manifests"]) == (200, [])

    def test_pushed_before_their_subject_are_listed(self, repository: Repository) -> None:
        sample = Sample()
        subject = sample.image(tag="late")
        sample.artifact(subject=subject)
        for content in sample.blobs.values():
            repository.add_blob(content)
        late, *early = sample.manifests
        for digest in (*early, late):
            assert repository.put_manifest(digest, sample.manifests[digest]).status == 201
        assert [e["digest"] for e in repository.referrers(late)] == [str(d) for d in early]

    def test_without_artifact_type_show_the_type_of_their_config(
        self, repository: Repository
    ) -> None:
        sample = Sample()
        subject = sample.image()
        sample.image(subject=subject, config=sample.blob(os.urandom(8), TYPE_1))
        sample.push(repository)
        (entry,) = repository.referrers(subject["digest"])
        assert entry["artifactType"] == TYPE_1

    def test_filtered_by_an_absent_type_are_none(self, repository: Repository) -> None:
        sample = Sample()
        sample.artifact(subject=sample.image())
        sample.push(repository)
        subject = next(iter(sample.referrers))
        reply = repository.list_referrers(subject, artifactType="application/x-absent")
        assert (reply.status, reply.json()["manifests"]) == (200, [])
        assert reply.header("OCI-Filters-Applied") == "artifactType"

    def test_without_a_filter_no_filter_is_announced(self, repository: Repository) -> None:
        sample = Sample()
        sample.artifact(subject=sample.image())
        sample.push(repository)
        reply = repository.list_referrers(next(iter(sample.referrers)))
        assert reply.header("OCI-Filters-Applied") is None

    def test_by_a_sha512_subject_are_listed(self, repository: Repository) -> None:
        sample = Sample("sha512")
        sample.artifact(subject=sample.image())
        sample.push(repository)
        subject = next(iter(sample.referrers))
        assert [e["digest"] for e in repository.referrers(subject)] == [str(sample.top)]

    def test_many_are_all_reachable(self, repository: Repository) -> None:
        sample = Sample()
        subject = sample.image()
        for number in range(60):
            sample.artifact(
                subject=subject,
                annotations={"n": str(number)},
                layers=[sample.blob(b"{}", EMPTY_JSON)],
            )
        sample.push(repository)
        assert len(repository.referrers(subject["digest"])) == 60


@pytest.fixture(scope="module")
def tagged(new_repository) -> Repository:  # type: ignore[no-untyped-def]
    repository: Repository = new_repository()
    content = manifest(repository)
    for number in range(10):
        assert repository.put_manifest(f"tag-{number}", content).status == 201
    return repository


class TestTagList:
    def test_of_an_unused_repository_is_empty_or_404(self, repository: Repository) -> None:
        reply = repository.list_tags()
        assert reply.status in {200, 404}
        assert reply.status == 404 or reply.json()["tags"] in ([], None)

    def test_names_the_repository(self, tagged: Repository) -> None:
        reply = tagged.list_tags()
        assert (reply.status, reply.json()["name"]) == (200, tagged.name)
        assert (reply.header("Content-Type") or "").startswith("application/json")

    def test_is_sorted_and_whole(self, tagged: Repository) -> None:
        assert tagged.tags() == [f"tag-{number}" for number in range(10)]

    @pytest.mark.parametrize("count", [1, 3, 9, 10])
    def test_is_limited_by_n(self, tagged: Repository, count: int) -> None:
        assert tagged.tags(n=str(count)) == [f"tag-{number}" for number in range(count)]

    def test_is_whole_when_n_is_large(self, tagged: Repository) -> None:
        assert len(tagged.tags(n="1000")) == 10

    def test_is_empty_when_n_is_zero(self, tagged: Repository) -> None:
        assert tagged.tags(n="0") == []

    @pytest.mark.parametrize("last", [0, 4, 8, 9])
    def test_starts_after_last(self, tagged: Repository, last: int) -> None:
        assert tagged.tags(last=f"tag-{last}") == [f"tag-{n}" for n in range(last + 1, 10)]

    def test_starts_after_a_last_that_is_no_tag(self, tagged: Repository) -> None:
        assert tagged.tags(last="tag-4x") == [f"tag-{number}" for number in range(5, 10)]

    def test_combines_n_and_last(self, tagged: Repository) -> None:
        assert tagged.tags(n="2", last="tag-4") == ["tag-5", "tag-6"]

    def test_links_lead_through_all_pages(self, tagged: Repository) -> None:
        seen: list[str] = []
        target = tagged.path("tags/list?n=3")
        for _ in range(10):
            reply = tagged.wire.get(target)
            seen += reply.json()["tags"]
            link = reply.header("Link")
            if link is None:
                break
            assert link.endswith('rel="next"')
            target = link.partition(">")[0].removeprefix("<")
        assert seen == [f"tag-{number}" for number in range(10)]

    @pytest.mark.parametrize("count", ["-1", "a", "1.5"])
    def test_a_wrong_n_is_refused(self, tagged: Repository, count: str) -> None:
        assert tagged.list_tags(n=count).status == 400
