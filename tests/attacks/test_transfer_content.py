"""Registries that send something else than promised: other bytes, too few, too many, too slowly."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from memcube.http import HttpClient, RetryPolicy, pools
from memcube.http import client as http_client
from memcube.remote import Registry
from memcube.settings import Settings
from memcube.store import Store
from memcube.transfer import pull_blobs, read_range
from memcube_protocol import limits, media_types, oci
from memcube_protocol.content import Blocks, Expected
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    DigestMismatchError,
    InvalidJsonError,
    InvalidManifestError,
    LimitExceededError,
    MemcubeError,
    NetworkError,
    SizeMismatchError,
)
from memcube_protocol.oci import Descriptor
from support.scripted import Answer, Received, Script, Scripted, scripted

CONTENT = bytes(range(256)) * 4096
BLOB = Descriptor.of(media_types.RECORDS, CONTENT)
NAME = "ann/notes"
Kinds = type[MemcubeError] | tuple[type[MemcubeError], ...]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def registry(server: Scripted) -> Registry:
    settings = Settings.load({"MEMCUBE_HOME": "/nonexistent"})
    retry = RetryPolicy(attempts=3, sleep=lambda seconds: None)
    http = HttpClient(settings, find_credentials=lambda host: None, retry=retry)
    return Registry(server.host, http, settings)


def refused(store: Store, script: Script, error: Kinds, blob: Descriptor = BLOB) -> Scripted:
    """Pull `blob` from a server that answers by `script`; nothing may become visible."""
    with scripted(script) as server:
        with pytest.raises(error) as caught:
            pull_blobs(registry(server), NAME, [blob], store)
        assert caught.value.hint
    assert not store.has(blob.digest)
    assert not list(store.blobs)
    return server


def test_other_bytes_are_refused_and_nothing_of_them_is_kept(store: Store) -> None:
    refused(store, lambda request: Answer(body=b"X" + CONTENT[1:]), DigestMismatchError)
    assert not list(store.blobs.partial.iterdir())


@pytest.mark.parametrize("body", [CONTENT[:-1], CONTENT + b"x", b""])
def test_an_announced_length_other_than_the_descriptors_is_refused(
    store: Store, body: bytes
) -> None:
    refused(store, lambda request: Answer(body=body), SizeMismatchError)


def test_more_bytes_than_promised_are_not_taken(store: Store) -> None:
    body = b"%x\r\n" % (len(CONTENT) + 1) + CONTENT + b"x\r\n0\r\n\r\n"
    chunked = Answer(headers={"Transfer-Encoding": "chunked"}, body=body)
    refused(store, lambda request: chunked, SizeMismatchError)


def test_a_body_that_breaks_off_is_gone_on_with(store: Store) -> None:
    def script(request: Received) -> Answer:
        start = int(request.headers.get("range", "bytes=0-")[6:].partition("-")[0])
        headers = {"Content-Range": f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"}
        return Answer(206 if start else 200, headers, CONTENT[start:], break_after=300_000)

    with scripted(script) as server:
        report = pull_blobs(registry(server), NAME, [BLOB], store)
        asked = [request.headers.get("range") for request in server.received]
    assert asked[0] is None
    assert asked[-1] == "bytes=900000-"
    assert report.moved_bytes == len(CONTENT)
    assert store.has(BLOB.digest, BLOB.size)


def test_a_body_that_always_breaks_off_at_once_ends_in_an_error(store: Store) -> None:
    server = refused(store, lambda request: Answer(body=CONTENT, break_after=0), NetworkError)
    assert len(server.received) == 3


def test_a_server_that_ignores_ranges_is_taken_from_the_start(store: Store) -> None:
    with store.blobs.ingest(Expected(BLOB.digest, BLOB.size)) as ingest:
        ingest.write(CONTENT[:1000])
    with scripted(lambda request: Answer(body=CONTENT)) as server:
        pull_blobs(registry(server), NAME, [BLOB], store)
    assert store.has(BLOB.digest, BLOB.size)


def test_another_range_than_asked_for_is_refused(store: Store) -> None:
    with store.blobs.ingest(Expected(BLOB.digest, BLOB.size)) as ingest:
        ingest.write(CONTENT[:1000])
    headers = {"Content-Range": f"bytes 0-{len(CONTENT) - 1001}/{len(CONTENT)}"}
    refused(store, lambda request: Answer(206, headers, CONTENT[:-1000]), NetworkError)


def test_a_damaged_leftover_is_fetched_anew_once(store: Store) -> None:
    with store.blobs.ingest(Expected(BLOB.digest, BLOB.size)) as ingest:
        ingest.write(b"X" * 1000)

    def script(request: Received) -> Answer:
        start = int(request.headers.get("range", "bytes=0-")[6:].partition("-")[0])
        headers = {"Content-Range": f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"}
        return Answer(206 if start else 200, headers, CONTENT[start:])

    with scripted(script) as server:
        pull_blobs(registry(server), NAME, [BLOB], store)
        assert len(server.received) == 2
    assert store.has(BLOB.digest, BLOB.size)


def test_a_server_that_trickles_is_given_up(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "_PATIENCE_S", 0.2)
    server = refused(store, lambda request: Answer(body=CONTENT, trickle_s=0.01), NetworkError)
    assert len(server.received) == 3


def test_a_server_that_stalls_again_and_again_is_given_up(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "READ_S", 0.1)
    stop = threading.Event()
    answer = Answer(body=CONTENT, break_after=10, wait=stop)
    refused(store, lambda request: answer, (NetworkError, SizeMismatchError))
    stop.set()


def test_a_server_that_never_answers_is_given_up(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "READ_S", 0.2)
    stop = threading.Event()

    def script(request: Received) -> Answer:
        stop.wait(10)
        return Answer()

    with scripted(script) as server:
        with pytest.raises(NetworkError):
            pull_blobs(registry(server), NAME, [BLOB], store)
        stop.set()


def test_an_encoded_body_is_judged_by_its_own_bytes(store: Store) -> None:
    import gzip

    body = gzip.compress(b"\0" * len(CONTENT))
    answer = Answer(headers={"Content-Encoding": "gzip"}, body=body)
    refused(store, lambda request: answer, SizeMismatchError)


def manifest_answer(raw: bytes, **headers: str) -> Script:
    content = {"Content-Type": media_types.OCI_MANIFEST}
    content |= {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda request: Answer(headers=content, body=raw)


GOOD = oci.write_manifest(artifact_type=media_types.CUBE, config=oci.EMPTY, layers=[BLOB])


@pytest.mark.parametrize(
    ("script", "target", "error"),
    [
        (manifest_answer(GOOD.raw), str(Digest.of(b"other")), DigestMismatchError),
        (manifest_answer(GOOD.raw), str(Digest.of(b"other", "sha512")), DigestMismatchError),
        (
            manifest_answer(GOOD.raw, Docker_Content_Digest=str(Digest.of(b"other"))),
            "1.0.0",
            DigestMismatchError,
        ),
        (manifest_answer(b"{"), "1.0.0", InvalidJsonError),
        (manifest_answer(b'{"a":' * 5000), "1.0.0", InvalidJsonError),
        (manifest_answer(GOOD.raw.replace(b"{", b'{"layers":[],', 1)), "1.0.0", InvalidJsonError),
        (manifest_answer(b'{"schemaVersion": 1}'), "1.0.0", InvalidManifestError),
        (manifest_answer(b" " * (limits.MANIFEST_BYTES + 1)), "1.0.0", LimitExceededError),
        (
            lambda request: Answer(headers={"Content-Type": media_types.OCI_INDEX}, body=GOOD.raw),
            "1.0.0",
            InvalidManifestError,
        ),
    ],
)
def test_manifests_that_are_not_what_was_asked_for_are_refused(
    script: Script, target: str, error: type[MemcubeError]
) -> None:
    with scripted(script) as server, pytest.raises(error):
        registry(server).manifest(NAME, target)


def test_a_tag_list_without_end_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memcube.remote.PAGES", 3)
    link = {"Link": '</v2/ann/notes/tags/list?last=a>; rel="next"'}
    with scripted(lambda request: Answer(200, link, b'{"tags": ["a"]}')) as server:
        with pytest.raises(NetworkError, match="pages"):
            list(registry(server).tags(NAME))
        assert len(server.received) == 3


def test_a_registry_does_not_fill_the_memory_with_tags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memcube.remote.LIST_BYTES", 1000)
    link = {"Link": '</v2/ann/notes/tags/list?last=a>; rel="next"'}
    with scripted(
        lambda request: Answer(200, link, b'{"tags": ["' + b"a" * 400 + b'"]}')
    ) as server:
        with pytest.raises(LimitExceededError, match="tag list"):
            list(registry(server).tags(NAME))
        assert len(server.received) == 3


def test_a_registry_does_not_fill_the_memory_with_referrers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("memcube.remote.referrers.LIST_BYTES", 1000)
    digest = Digest.of(b"subject")
    index = oci.write_index([oci.EMPTY], {"load": "x" * 200}).raw
    assert 334 < len(index) < 500
    link = {"Link": f'</v2/ann/notes/referrers/{digest}?last=a>; rel="next"'}
    with scripted(lambda request: Answer(200, link, index)) as server:
        with pytest.raises(LimitExceededError, match="referrers"):
            registry(server).referrers(NAME, digest)
        assert len(server.received) == 3


@pytest.mark.parametrize("body", [b'{"tags": 3}', b"[]", b"x"])
def test_a_senseless_tag_list_is_an_error(body: bytes) -> None:
    with scripted(lambda request: Answer(200, {}, body)) as server, pytest.raises(MemcubeError):
        list(registry(server).tags(NAME))


def ranged(damage: Callable[[bytes], bytes]) -> Script:
    def script(request: Received) -> Answer:
        first, last = (int(n) for n in request.headers["range"][6:].split("-"))
        headers = {"Content-Range": f"bytes {first}-{last}/{len(CONTENT)}"}
        return Answer(206, headers, damage(CONTENT[first : last + 1]))

    return script


def test_a_range_is_verified_by_its_blocks() -> None:
    blocks = Blocks.of(CONTENT, 1000)
    with scripted(ranged(lambda content: content)) as server:
        got = read_range(registry(server), NAME, BLOB, blocks, 1500, 70_321)
    assert got == CONTENT[1500:70_321]
    with (
        scripted(ranged(lambda content: content[:-1] + b"X")) as server,
        pytest.raises(DigestMismatchError),
    ):
        read_range(registry(server), NAME, BLOB, blocks, 1500, 70_321)
    with scripted(ranged(lambda content: content[:-1])) as server, pytest.raises(SizeMismatchError):
        read_range(registry(server), NAME, BLOB, blocks, 1500, 70_321)


def test_a_registry_that_stores_other_bytes_than_were_pushed_is_caught() -> None:
    other = {"Docker-Content-Digest": str(Digest.of(b"other"))}
    with scripted(lambda request: Answer(201, other)) as server, pytest.raises(DigestMismatchError):
        registry(server).put_manifest(NAME, GOOD)
