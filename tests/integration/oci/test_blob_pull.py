"""Reading blobs, whole and in ranges, and removing them (distribution-spec, "Pulling blobs")."""

import os

import pytest
from memcube_protocol.digest import Digest
from support.repository import Repository
from support.wire import Wire

SIZE = 2048


@pytest.fixture(scope="module", params=["sha256", "sha512"])
def pushed(
    request: pytest.FixtureRequest,
    new_repository,  # type: ignore[no-untyped-def]
) -> tuple[Repository, Digest, bytes]:
    """A repository with one blob of 2048 bytes."""
    repository, content = new_repository(), os.urandom(SIZE)
    return repository, repository.add_blob(content, request.param), content


Pushed = tuple[Repository, Digest, bytes]


def test_get_returns_the_exact_bytes(pushed: Pushed) -> None:
    repository, digest, content = pushed
    reply = repository.get_blob(digest)
    assert (reply.status, reply.body) == (200, content)
    assert reply.header("Content-Length") == str(SIZE)
    assert reply.header("Docker-Content-Digest") == str(digest)


def test_head_describes_what_get_returns(pushed: Pushed) -> None:
    repository, digest, _ = pushed
    reply = repository.head_blob(digest)
    assert (reply.status, reply.body) == (200, b"")
    assert reply.header("Content-Length") == str(SIZE)
    assert reply.header("Docker-Content-Digest") == str(digest)


@pytest.mark.parametrize(
    ("range_header", "first", "last"),
    [
        ("bytes=500-1499", 500, 1499),
        ("bytes=0-0", 0, 0),
        ("bytes=500-", 500, SIZE - 1),
        ("bytes=-500", SIZE - 500, SIZE - 1),
        ("bytes=2000-5000", 2000, SIZE - 1),
        ("bytes=2047-2047", 2047, 2047),
        ("bytes=0-", 0, SIZE - 1),
        ("bytes=-5000", 0, SIZE - 1),
    ],
)
def test_a_range_is_206(pushed: Pushed, range_header: str, first: int, last: int) -> None:
    repository, digest, content = pushed
    reply = repository.get_blob(digest, range_header)
    assert (reply.status, reply.body) == (206, content[first : last + 1])
    assert reply.header("Content-Length") == str(last - first + 1)
    assert reply.header("Content-Range") == f"bytes {first}-{last}/{SIZE}"


@pytest.mark.parametrize(
    "range_header", ["bytes=500-0", "bytes=5000-10000", "bytes=2048-", "bytes=-0"]
)
def test_a_range_outside_the_blob_is_416(pushed: Pushed, range_header: str) -> None:
    repository, digest, _ = pushed
    assert repository.get_blob(digest, range_header).status == 416


@pytest.mark.parametrize("range_header", ["lines=1-2", "bytes=", "bytes=a-b", "bytes 1-2"])
def test_a_range_in_other_words_is_never_wrong_bytes(pushed: Pushed, range_header: str) -> None:
    repository, digest, content = pushed
    reply = repository.get_blob(digest, range_header)
    assert reply.status in {200, 400, 416}
    assert reply.status != 200 or reply.body == content


def test_several_ranges_give_the_whole_or_a_refusal(pushed: Pushed) -> None:
    repository, digest, content = pushed
    reply = repository.get_blob(digest, "bytes=0-1,5-6")
    assert reply.status in {200, 206, 416}
    assert reply.status != 200 or reply.body == content


def test_ranges_are_announced(pushed: Pushed) -> None:
    repository, digest, _ = pushed
    assert repository.head_blob(digest).header("Accept-Ranges") == "bytes"


def test_an_entity_tag_that_matches_saves_the_body(pushed: Pushed, wire: Wire) -> None:
    repository, digest, content = pushed
    tag = repository.head_blob(digest).header("ETag")
    assert tag
    reply = wire.get(repository.path(f"blobs/{digest}"), headers={"If-None-Match": tag})
    assert reply.status == 304 or reply.body == content


class TestDelete:
    def test_answers_202_and_the_blob_is_gone_at_once(
        self, repository: Repository, algorithm: str
    ) -> None:
        digest = repository.add_blob(os.urandom(512), algorithm)
        assert repository.delete_blob(digest).status == 202
        assert repository.head_blob(digest).status == 404
        assert repository.get_blob(digest).status == 404

    def test_of_an_absent_blob_is_404(self, repository: Repository, algorithm: str) -> None:
        repository.add_blob(b"{}")
        assert repository.delete_blob(Digest.of(os.urandom(9), algorithm)).status == 404

    def test_twice_is_404(self, repository: Repository, algorithm: str) -> None:
        digest = repository.add_blob(os.urandom(512), algorithm)
        assert repository.delete_blob(digest).status == 202
        assert repository.delete_blob(digest).status == 404

    def test_then_push_again_brings_it_back(self, repository: Repository, algorithm: str) -> None:
        content = os.urandom(512)
        digest = repository.add_blob(content, algorithm)
        assert repository.delete_blob(digest).status == 202
        repository.add_blob(content, algorithm)
        assert repository.get_blob(digest).body == content

    @pytest.fixture(params=["sha256", "sha512"])
    def algorithm(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)
