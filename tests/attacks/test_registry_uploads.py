"""Uploads that lie, stop half-way or race: nothing is half-visible."""

import contextlib
import os
import socket
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
from conftest import Person, on_both_databases
from memcube_protocol.digest import Digest
from support.repository import IMAGE, Repository, location_of, with_query
from support.samples import Sample, one_image

pytestmark = on_both_databases

MIB = 1024 * 1024


@pytest.fixture
def repository(ada: Person) -> Repository:
    return ada.repository()


def raw_request(
    repository: Repository, method: str, target: str, body: bytes, headers: dict[str, str]
) -> bytes:
    """A request of which `body` is all that follows the header, whatever length it announces."""
    parts = urlsplit(target)
    lines = [
        f"{method} {parts.path}{'?' + parts.query if parts.query else ''} HTTP/1.1",
        f"Host: {repository.wire.netloc}",
        f"Authorization: {repository.wire.authorization}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def hang_up_in_the_middle(
    repository: Repository, method: str, target: str, body: bytes, promised: int
) -> None:
    request = raw_request(repository, method, target, body, {"Content-Length": str(promised)})
    with repository.wire.connect() as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(5)
        try:
            while connection.recv(4096):
                pass
        except OSError:
            pass


@pytest.mark.parametrize("sent_bytes", [0, 1, 1000, 300_000])
def test_a_truncated_put_stores_nothing(repository: Repository, sent_bytes: int) -> None:
    content = os.urandom(400_000)
    digest = Digest.of(content)
    target = with_query(repository.upload_location(), digest=str(digest))
    hang_up_in_the_middle(repository, "PUT", target, content[:sent_bytes], len(content))
    assert repository.head_blob(digest).status == 404
    assert repository.head_blob(Digest.of(content[:sent_bytes])).status == 404


@pytest.mark.parametrize("sent_bytes", [0, 1, 300_000])
def test_a_truncated_post_stores_nothing(repository: Repository, sent_bytes: int) -> None:
    content = os.urandom(400_000)
    digest = Digest.of(content)
    target = with_query(repository.path("blobs/uploads/"), digest=str(digest))
    hang_up_in_the_middle(repository, "POST", target, content[:sent_bytes], len(content))
    assert repository.head_blob(digest).status == 404


def test_a_truncated_manifest_stores_nothing(repository: Repository) -> None:
    sample = one_image()
    for content in sample.blobs.values():
        repository.add_blob(content)
    content = sample.manifests[sample.top]
    hang_up_in_the_middle(
        repository, "PUT", repository.path("manifests/v1"), content[:-5], len(content)
    )
    assert repository.get_manifest("v1").status == 404
    assert repository.get_manifest(sample.top).status == 404


def test_a_truncated_chunk_can_be_continued_from_where_the_server_says(
    repository: Repository,
) -> None:
    content = os.urandom(400_000)
    location = repository.upload_location()
    hang_up_in_the_middle(repository, "PATCH", location, content[:300_000], len(content))
    status = repository.wire.get(location)
    assert status.status == 204
    done = int((status.header("Range") or "0--1").split("-", 1)[1]) + 1
    assert done <= 300_000
    patched = repository.patch(location_of(status), content[done:], start=done)
    assert patched.status == 202, patched
    digest = Digest.of(content)
    assert repository.finish_upload(location_of(patched), digest).status == 201
    assert repository.get_blob(digest).body == content


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_content_of_another_digest_or_length_is_refused_and_gone(
    repository: Repository, algorithm: str
) -> None:
    content = os.urandom(100_000)
    digest = Digest.of(content, algorithm)
    for wrong in (content[:-1], content + b"x", content[::-1], b""):
        assert repository.put_blob(wrong, digest).status == 400
        assert repository.post_blob(wrong, digest).status == 400
        assert repository.head_blob(digest).status == 404
        assert repository.head_blob(Digest.of(wrong, algorithm)).status == 404


def test_the_right_bits_under_another_algorithm_are_refused(repository: Repository) -> None:
    content = os.urandom(1000)
    forged = f"sha256:{Digest.of(content, 'sha512').hex[:64]}"
    assert repository.put_blob(content, forged).status == 400


def test_a_body_shorter_than_its_range_is_refused(repository: Repository) -> None:
    location = repository.upload_location()
    reply = repository.wire.patch(location, body=b"short", headers={"Content-Range": "0-99"})
    assert reply.status in {400, 416}
    assert repository.finish_upload(location, Digest.of(b"short")).status in {400, 404, 416}


def test_two_clients_cannot_mix_their_chunks(repository: Repository) -> None:
    """Many write the same range at once: at most one is taken, the content is one of theirs."""
    location = repository.upload_location()
    contents = [bytes([number]) * 200_000 for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda c: repository.patch(location, c, start=0), contents))
    statuses = Counter(reply.status for reply in replies)
    assert set(statuses) <= {202, 409, 416}
    assert statuses[202] == 1
    winner = contents[[reply.status for reply in replies].index(202)]
    last = repository.wire.get(location)
    assert last.header("Range") == f"0-{len(winner) - 1}"
    assert repository.finish_upload(location_of(last), Digest.of(winner)).status == 201


def test_the_same_blob_from_many_at_once_is_one_blob(repository: Repository) -> None:
    content = os.urandom(500_000)
    digest = Digest.of(content)
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: repository.put_blob(content, digest), range(8)))
    assert {reply.status for reply in replies} == {201}
    assert repository.get_blob(digest).body == content


def test_two_pushes_of_one_tag_at_once_leave_one_whole_winner(repository: Repository) -> None:
    samples = [one_image("moving") for _ in range(6)]
    for sample in samples:
        for content in sample.blobs.values():
            repository.add_blob(content)
    barrier = threading.Barrier(len(samples))

    def push(sample: Sample) -> int:
        barrier.wait()
        return repository.put_manifest("moving", sample.manifests[sample.top]).status

    with ThreadPoolExecutor(len(samples)) as pool:
        statuses = list(pool.map(push, samples))
    assert set(statuses) == {201}
    winner = repository.get_manifest("moving")
    assert winner.body in [sample.manifests[sample.top] for sample in samples]
    assert winner.header("Docker-Content-Digest") == str(Digest.of(winner.body))
    assert repository.tags() == ["moving"]
    for sample in samples:
        assert repository.get_manifest(sample.top).status == 200


def test_a_version_tag_is_taken_by_one_of_two_at_once(repository: Repository) -> None:
    samples = [one_image() for _ in range(6)]
    for sample in samples:
        for content in sample.blobs.values():
            repository.add_blob(content)
    barrier = threading.Barrier(len(samples))

    def push(sample: Sample) -> int:
        barrier.wait()
        return repository.put_manifest("1.0.0", sample.manifests[sample.top]).status

    with ThreadPoolExecutor(len(samples)) as pool:
        statuses = list(pool.map(push, samples))
    assert Counter(statuses) == {201: 1, 409: 5}
    winner = samples[statuses.index(201)]
    assert repository.get_manifest("1.0.0").body == winner.manifests[winner.top]


def test_a_version_tag_never_moves_but_may_be_pushed_again(repository: Repository) -> None:
    first, second = one_image("1.2.3"), one_image("1.2.3")
    first.push(repository)
    for content in second.blobs.values():
        repository.add_blob(content)
    moved = repository.put_manifest("1.2.3", second.manifests[second.top])
    assert moved.status == 409
    again = repository.put_manifest("1.2.3", first.manifests[first.top])
    assert again.status == 201
    assert repository.get_manifest("1.2.3").body == first.manifests[first.top]


@pytest.mark.parametrize("version", ["1.2.3", "0.0.1-rc.1", "10.20.30_build.5"])
def test_tag_parameters_cannot_move_a_version_either(repository: Repository, version: str) -> None:
    first, second = one_image(version), one_image()
    first.push(repository)
    for content in second.blobs.values():
        repository.add_blob(content)
    reply = repository.put_manifest(
        second.top, second.manifests[second.top], IMAGE, tags=["free", version]
    )
    assert reply.status == 409
    assert repository.get_manifest("free").status == 404
    assert repository.get_manifest(version).body == first.manifests[first.top]


def test_pushing_while_deleting_never_shows_a_manifest_without_blobs(
    repository: Repository,
) -> None:
    """A manifest that is visible has its blobs, whoever deletes what at the same time."""
    for _ in range(5):
        sample = one_image()
        for content in sample.blobs.values():
            repository.add_blob(content)
        victim = next(iter(sample.blobs))
        with ThreadPoolExecutor(2) as pool:
            put = pool.submit(repository.put_manifest, "race", sample.manifests[sample.top])
            gone = pool.submit(repository.delete_blob, victim)
        if repository.get_manifest(sample.top).status == 200:
            assert repository.head_blob(victim).status == 200, (put.result(), gone.result())


def test_a_blob_that_a_manifest_names_is_not_deleted_from_under_it(
    repository: Repository,
) -> None:
    sample = one_image()
    sample.push(repository)
    for digest in sample.blobs:
        assert repository.delete_blob(digest).status in {202, 405, 409}
        visible = repository.get_manifest("v1").status == 200
        assert not visible or repository.head_blob(digest).status == 200


def test_a_huge_promised_length_reserves_nothing(repository: Repository) -> None:
    target = with_query(repository.upload_location(), digest=str(Digest.of(b"x")))
    request = raw_request(repository, "PUT", target, b"x", {"Content-Length": str(1 << 62)})
    answer = b""
    with repository.wire.connect(timeout_s=3) as connection:
        connection.sendall(request)
        with contextlib.suppress(TimeoutError):
            answer = connection.recv(4096)
    assert not answer or answer.split()[1] in {b"400", b"411", b"413", b"507"}
    assert repository.wire.get("/v2/").status == 200
