"""The base of the API, names of repositories, and the form of errors (distribution-spec, "API")."""

import json
import os

import pytest
from memcube_protocol.digest import Digest
from support.repository import Repository
from support.wire import Wire

ABSENT = Digest.of(b"nobody ever pushed these bytes to a registry")


def test_the_base_path_answers_200(wire: Wire) -> None:
    reply = wire.get("/v2/")
    assert reply.status == 200, reply
    assert reply.header("Docker-Distribution-API-Version") in {None, "registry/2.0"}


def test_an_absent_blob_is_404_with_an_error_document(repository: Repository) -> None:
    reply = repository.get_blob(ABSENT)
    assert reply.status == 404
    assert set(reply.error_codes) <= {"BLOB_UNKNOWN", "NAME_UNKNOWN"}


def test_an_absent_tag_is_404_with_an_error_document(repository: Repository) -> None:
    reply = repository.get_manifest("no-such-tag")
    assert reply.status == 404
    assert set(reply.error_codes) <= {"MANIFEST_UNKNOWN", "NAME_UNKNOWN"}


def test_an_absent_manifest_digest_is_404(repository: Repository) -> None:
    assert repository.get_manifest(ABSENT).status == 404
    assert repository.head_manifest(ABSENT).status == 404


def test_head_of_absent_content_has_no_body(repository: Repository) -> None:
    for reply in (repository.head_blob(ABSENT), repository.head_manifest("absent")):
        assert reply.status == 404
        assert reply.body == b""


def test_error_documents_say_what_is_wrong(repository: Repository) -> None:
    reply = repository.get_manifest("no-such-tag")
    (error,) = json.loads(reply.body)["errors"]
    assert reply.header("Content-Type") is not None
    assert reply.header("Content-Type").startswith("application/json")  # type: ignore[union-attr]
    assert error["code"].isupper()
    assert error["message"]


@pytest.mark.parametrize(
    "digest",
    [
        "sha256:baddigeststring",
        "sha256:" + "0" * 63,
        "sha256:" + "0" * 65,
        "sha256:" + "G" * 64,
        "sha256:" + "A" * 64,
        "sha512:" + "0" * 64,
        "sha999:" + "0" * 64,
        "md5:d41d8cd98f00b204e9800998ecf8427e",
        "sha256:",
        ":",
    ],
)
class TestMalformedDigest:
    def test_get_of_a_blob_is_refused(self, repository: Repository, digest: str) -> None:
        assert repository.get_blob(digest).status in {400, 404}

    def test_head_of_a_blob_is_refused(self, repository: Repository, digest: str) -> None:
        assert repository.head_blob(digest).status in {400, 404}

    def test_get_of_a_manifest_is_refused(self, repository: Repository, digest: str) -> None:
        assert repository.get_manifest(digest).status in {400, 404}

    def test_put_of_a_manifest_is_refused(self, repository: Repository, digest: str) -> None:
        repository.add_blob(b"{}")
        assert repository.put_manifest(digest, b"{}").status in {400, 404}

    def test_put_of_a_blob_is_refused(self, repository: Repository, digest: str) -> None:
        assert repository.put_blob(b"content", digest).status == 400

    def test_post_of_a_blob_is_refused(self, repository: Repository, digest: str) -> None:
        assert repository.post_blob(b"content", digest).status == 400

    def test_mount_is_refused_or_ignored(self, repository: Repository, digest: str) -> None:
        assert repository.mount(digest, "some/where").status in {202, 400}

    def test_delete_of_a_blob_is_refused(self, repository: Repository, digest: str) -> None:
        assert repository.delete_blob(digest).status in {400, 404}

    def test_list_of_referrers_is_refused(self, repository: Repository, digest: str) -> None:
        assert repository.list_referrers(digest).status in {400, 404}


def test_an_upload_without_digest_cannot_be_finished(repository: Repository) -> None:
    location = repository.upload_location()
    assert repository.wire.put(location, body=os.urandom(64)).status == 400


@pytest.mark.parametrize(
    "suffix",
    ["a", "a/b/c", "a.b_c__d-e---f", "0", "x" * 100, "blobs", "manifests/uploads", "tags/list"],
)
def test_names_of_the_grammar_are_usable(repository: Repository, suffix: str) -> None:
    nested = Repository(repository.wire, f"{repository.name}/{suffix}")
    digest = nested.add_blob(suffix.encode())
    assert nested.get_blob(digest).body == suffix.encode()


@pytest.mark.parametrize(
    "suffix",
    ["A", "a..b", "a___b", ".a", "a.", "_a", "-a", "a-", "a b", "a%20b", "é", "a@b", "a:b"],
)
def test_names_outside_the_grammar_are_refused(repository: Repository, suffix: str) -> None:
    bad = Repository(repository.wire, f"{repository.name}/{suffix}".encode().decode("latin-1"))
    target = bad.path("blobs/uploads/").encode("ascii", "replace").decode().replace(" ", "%20")
    assert repository.wire.post(target).status in {400, 404}
