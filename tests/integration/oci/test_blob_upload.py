"""Every way to push a blob, for every digest algorithm (distribution-spec, "Pushing blobs")."""

import os
from collections.abc import Callable, Iterator

import pytest
from memcube_protocol.digest import Digest
from support.repository import Repository, location_of, with_query
from support.wire import Reply

CHUNK_BYTES = 1024
Push = Callable[[Repository, bytes, Digest], Reply]


@pytest.fixture(params=["sha256", "sha512"])
def algorithm(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def pieces(content: bytes, size: int) -> Iterator[tuple[int, bytes]]:
    for start in range(0, len(content), size):
        yield start, content[start : start + size]


def chunk_bytes(started: Reply) -> int:
    """The chunk size to use: at least what the registry asks for."""
    return max(CHUNK_BYTES, int(started.header("OCI-Chunk-Min-Length") or 0))


def in_one_post(repository: Repository, content: bytes, digest: Digest) -> Reply:
    return repository.post_blob(content, digest)


def in_post_and_put(repository: Repository, content: bytes, digest: Digest) -> Reply:
    return repository.put_blob(content, digest)


def in_one_stream(repository: Repository, content: bytes, digest: Digest) -> Reply:
    """PATCH without a range, of unknown length."""
    stream = (piece for _, piece in pieces(content, 100))
    patched = repository.patch(repository.upload_location(), stream)
    assert patched.status == 202, patched
    return repository.finish_upload(location_of(patched), digest)


def in_one_stream_of_known_length(repository: Repository, content: bytes, digest: Digest) -> Reply:
    patched = repository.patch(repository.upload_location(), content)
    assert patched.status == 202, patched
    return repository.finish_upload(location_of(patched), digest)


def in_one_chunk(repository: Repository, content: bytes, digest: Digest) -> Reply:
    patched = repository.patch(repository.upload_location(), content, start=0)
    assert patched.status == 202, patched
    return repository.finish_upload(location_of(patched), digest)


def in_three_chunks(repository: Repository, content: bytes, digest: Digest) -> Reply:
    location = repository.upload_location()
    for start, piece in pieces(content, len(content) // 3 + 1):
        patched = repository.patch(location, piece, start=start)
        assert patched.status == 202, patched
        assert patched.header("Range") == f"0-{start + len(piece) - 1}"
        location = location_of(patched)
    return repository.finish_upload(location, digest)


def in_chunks_with_the_last_in_put(repository: Repository, content: bytes, digest: Digest) -> Reply:
    *early, (last_start, last) = pieces(content, len(content) // 3 + 1)
    location = repository.upload_location()
    for start, piece in early:
        patched = repository.patch(location, piece, start=start)
        assert patched.status == 202, patched
        location = location_of(patched)
    return repository.finish_upload(location, digest, last, start=last_start)


WAYS = [
    in_one_post,
    in_post_and_put,
    in_one_stream,
    in_one_stream_of_known_length,
    in_one_chunk,
    in_three_chunks,
    in_chunks_with_the_last_in_put,
]
every_way = pytest.mark.parametrize("push", WAYS, ids=lambda way: way.__name__)


@every_way
class TestEveryWay:
    def test_answers_201_with_the_location_of_the_blob(
        self, repository: Repository, push: Push, algorithm: str
    ) -> None:
        content = os.urandom(3 * CHUNK_BYTES - 5)
        digest = Digest.of(content, algorithm)
        reply = push(repository, content, digest)
        assert reply.status == 201, reply
        assert repository.wire.get(location_of(reply)).body == content

    def test_names_the_digest_in_the_answer(
        self, repository: Repository, push: Push, algorithm: str
    ) -> None:
        content = os.urandom(3 * CHUNK_BYTES - 5)
        digest = Digest.of(content, algorithm)
        assert push(repository, content, digest).header("Docker-Content-Digest") == str(digest)

    def test_makes_the_blob_available(
        self, repository: Repository, push: Push, algorithm: str
    ) -> None:
        content = os.urandom(3 * CHUNK_BYTES - 5)
        digest = Digest.of(content, algorithm)
        assert push(repository, content, digest).status == 201
        head = repository.head_blob(digest)
        assert (head.status, head.header("Content-Length")) == (200, str(len(content)))
        assert repository.get_blob(digest).body == content

    def test_refuses_content_of_another_digest(
        self, repository: Repository, push: Push, algorithm: str
    ) -> None:
        content = os.urandom(3 * CHUNK_BYTES - 5)
        digest = Digest.of(content, algorithm)
        assert push(repository, content + b"oh no", digest).status == 400
        assert repository.head_blob(digest).status == 404

    def test_takes_a_blob_that_is_there_already(
        self, repository: Repository, push: Push, algorithm: str
    ) -> None:
        content = os.urandom(3 * CHUNK_BYTES - 5)
        digest = repository.add_blob(content, algorithm)
        assert push(repository, content, digest).status == 201
        assert repository.get_blob(digest).body == content

    def test_takes_the_empty_json(self, repository: Repository, push: Push, algorithm: str) -> None:
        digest = Digest.of(b"{}", algorithm)
        assert push(repository, b"{}", digest).status == 201
        assert repository.get_blob(digest).body == b"{}"


@pytest.mark.parametrize("push", [in_one_post, in_post_and_put], ids=lambda way: way.__name__)
def test_a_blob_of_zero_bytes_is_a_blob(repository: Repository, push: Push, algorithm: str) -> None:
    digest = Digest.of(b"", algorithm)
    assert push(repository, b"", digest).status == 201
    assert repository.head_blob(digest).header("Content-Length") == "0"
    got = repository.get_blob(digest)
    assert (got.status, got.body) == (200, b"")


class TestUploadSession:
    def test_start_answers_202_with_a_location(self, repository: Repository) -> None:
        reply = repository.start_upload()
        assert reply.status == 202
        assert location_of(reply)

    def test_start_with_length_zero_answers_202(self, repository: Repository) -> None:
        reply = repository.wire.post(
            repository.path("blobs/uploads/"), headers={"Content-Length": "0"}
        )
        assert reply.status == 202

    def test_start_says_the_smallest_chunk_as_a_number(self, repository: Repository) -> None:
        assert chunk_bytes(repository.start_upload()) >= CHUNK_BYTES

    def test_status_is_204_with_range_and_location(self, repository: Repository) -> None:
        patched = repository.patch(repository.upload_location(), os.urandom(1500), start=0)
        status = repository.wire.get(location_of(patched))
        assert (status.status, status.header("Range")) == (204, "0-1499")
        assert location_of(status)

    def test_status_of_an_untouched_session_is_204(self, repository: Repository) -> None:
        status = repository.wire.get(repository.upload_location())
        assert status.status == 204
        assert location_of(status)

    def test_cancel_answers_204_and_the_session_is_gone(self, repository: Repository) -> None:
        location = repository.upload_location()
        assert repository.wire.delete(location).status == 204
        assert repository.wire.get(location).status == 404
        assert repository.patch(location, b"late", start=0).status == 404
        assert repository.finish_upload(location, Digest.of(b"late"), b"late").status == 404

    def test_a_finished_session_is_gone(self, repository: Repository) -> None:
        location = repository.upload_location()
        assert repository.finish_upload(location, Digest.of(b"x"), b"x").status == 201
        assert repository.wire.get(location).status == 404

    def test_an_unknown_session_is_404(self, repository: Repository) -> None:
        location = repository.path("blobs/uploads/8b1a9953-c461-4a6f-8c1f-3f3f3f3f3f3f")
        for reply in (
            repository.wire.get(location),
            repository.wire.delete(location),
            repository.patch(location, b"x", start=0),
            repository.finish_upload(location, Digest.of(b"x"), b"x"),
        ):
            assert reply.status == 404

    def test_a_session_belongs_to_its_repository(
        self, repository: Repository, other_repository: Repository
    ) -> None:
        other_repository.add_blob(b"{}")
        location = repository.upload_location().replace(repository.name, other_repository.name)
        assert repository.wire.get(location).status == 404

    def test_after_a_wrong_digest_nothing_is_stored(self, repository: Repository) -> None:
        content, promised = os.urandom(500), Digest.of(os.urandom(500))
        assert repository.put_blob(content, promised).status == 400
        assert repository.head_blob(promised).status == 404
        assert repository.head_blob(Digest.of(content)).status == 404


class TestOutOfOrder:
    @pytest.mark.parametrize("start", [1, 512, 2048])
    def test_a_first_chunk_that_skips_bytes_is_416(
        self, repository: Repository, start: int
    ) -> None:
        reply = repository.patch(repository.upload_location(), os.urandom(64), start=start)
        assert reply.status == 416

    def test_a_chunk_that_repeats_bytes_is_416(self, repository: Repository) -> None:
        content = os.urandom(CHUNK_BYTES)
        patched = repository.patch(repository.upload_location(), content, start=0)
        assert repository.patch(location_of(patched), content, start=0).status == 416

    def test_a_last_chunk_in_put_out_of_order_is_416(self, repository: Repository) -> None:
        content = os.urandom(3 * CHUNK_BYTES)
        patched = repository.patch(repository.upload_location(), content[:CHUNK_BYTES], start=0)
        reply = repository.finish_upload(
            location_of(patched),
            Digest.of(content),
            content[2 * CHUNK_BYTES :],
            start=2 * CHUNK_BYTES,
        )
        assert reply.status == 416

    @pytest.mark.parametrize("last_in_put", [False, True])
    def test_every_wrong_chunk_can_be_recovered_from(
        self, repository: Repository, algorithm: str, last_in_put: bool
    ) -> None:
        """Before each right chunk a wrong one is sent; GET says where to go on."""
        content = os.urandom(3 * CHUNK_BYTES - 5)
        digest = Digest.of(content, algorithm)
        location = repository.upload_location()
        for start, piece in pieces(content, CHUNK_BYTES):
            wrong = start + CHUNK_BYTES if start + CHUNK_BYTES < len(content) else 0
            bad = repository.patch(location, content[wrong : wrong + CHUNK_BYTES], start=wrong)
            assert bad.status == 416, bad
            status = repository.wire.get(bad.header("Location") or location)
            assert status.status == 204
            assert start == 0 or status.header("Range") == f"0-{start - 1}"
            location = location_of(status)
            if last_in_put and start + len(piece) == len(content):
                break
            location = location_of(repository.patch(location, piece, start=start))
        rest = (piece, start) if last_in_put else (b"", None)
        assert repository.finish_upload(location, digest, rest[0], start=rest[1]).status == 201
        assert repository.get_blob(digest).body == content

    @pytest.mark.parametrize("content_range", ["5-1", "a-b", "0-", "-5", "bytes 0-3/4", "0-9999"])
    def test_a_range_that_is_malformed_or_not_the_body_is_refused(
        self, repository: Repository, content_range: str
    ) -> None:
        reply = repository.wire.patch(
            repository.upload_location(), body=b"four", headers={"Content-Range": content_range}
        )
        assert reply.status in {400, 416}


class TestMount:
    def test_from_a_repository_that_has_the_blob_answers_201(
        self, repository: Repository, other_repository: Repository, algorithm: str
    ) -> None:
        content = os.urandom(512)
        digest = other_repository.add_blob(content, algorithm)
        reply = repository.mount(digest, other_repository.name)
        assert reply.status == 201, reply
        assert repository.wire.get(location_of(reply)).body == content
        assert repository.head_blob(digest).status == 200

    def test_without_a_source_answers_201(
        self, repository: Repository, other_repository: Repository, algorithm: str
    ) -> None:
        content = os.urandom(512)
        digest = other_repository.add_blob(content, algorithm)
        reply = repository.mount(digest, None)
        assert reply.status == 201, reply
        assert repository.get_blob(digest).body == content

    def test_of_an_absent_blob_starts_an_upload(
        self, repository: Repository, other_repository: Repository, algorithm: str
    ) -> None:
        content = os.urandom(512)
        digest = Digest.of(content, algorithm)
        reply = repository.mount(digest, other_repository.name)
        assert reply.status == 202, reply
        assert repository.finish_upload(location_of(reply), digest, content).status == 201

    def test_from_an_absent_repository_starts_an_upload(
        self, repository: Repository, algorithm: str
    ) -> None:
        reply = repository.mount(Digest.of(b"some", algorithm), f"{repository.name}/nowhere")
        assert reply.status == 202
        assert location_of(reply)

    def test_survives_deletion_in_the_source(
        self, repository: Repository, other_repository: Repository
    ) -> None:
        content = os.urandom(512)
        digest = other_repository.add_blob(content)
        assert repository.mount(digest, other_repository.name).status == 201
        assert other_repository.delete_blob(digest).status == 202
        assert repository.get_blob(digest).body == content

    def test_does_not_happen_by_pushing_elsewhere(
        self, repository: Repository, other_repository: Repository
    ) -> None:
        digest = other_repository.add_blob(os.urandom(512))
        repository.add_blob(b"{}")
        assert repository.head_blob(digest).status == 404


def test_query_parameters_of_a_location_are_kept(repository: Repository) -> None:
    location = with_query(repository.upload_location(), digest=str(Digest.of(b"abc")))
    assert repository.wire.put(location, body=b"abc").status == 201
