"""The S3 driver while the server, or the network before it, does harm."""

import os
import random
from collections.abc import Iterator
from dataclasses import replace

import pytest
from memcube_protocol.errors import MemcubeError, NotFoundError, UnavailableError
from memcube_registry.storage.claims import MemoryClaims
from memcube_registry.storage.s3 import Bucket, S3Store
from support.faults import Fault, FaultyProxy, faulty_proxy
from support.swift import SwiftServer

UPLOAD = "0123456789abcdef0123456789abcdef"
PART_BYTES = 5 << 20
CALLS = {
    "put": lambda seen: seen.method == "PUT" and "partNumber" not in seen.path,
    "part": lambda seen: seen.method == "PUT" and "partNumber" in seen.path,
    "begin": lambda seen: seen.method == "POST" and seen.path.endswith("?uploads"),
    "complete": lambda seen: seen.method == "POST" and "uploadId" in seen.path,
    "get": lambda seen: seen.method == "GET",
}
PASSING = (Fault.ERROR, Fault.SLOW_DOWN, Fault.RESET, Fault.LOST_ANSWER, Fault.STALL)
CONTENT = os.urandom(PART_BYTES + 300_000)


@pytest.fixture
def proxy(s3: SwiftServer) -> Iterator[FaultyProxy]:
    with faulty_proxy(s3.ports["proxy"]) as proxy:
        yield proxy


@pytest.fixture
def blobs(s3: SwiftServer, proxy: FaultyProxy) -> S3Store:
    """A store that reaches the server through the proxy, and waits 5 s at most for a sign of life."""
    place = replace(s3.place(read_timeout_s=5.0), endpoint_url=proxy.url)
    return S3Store(Bucket(place), MemoryClaims())


def put(blobs: S3Store, content: bytes, *, at: int = 0) -> None:
    sink = blobs.open(UPLOAD, size=at)
    try:
        sink.write([content[at:]])
    finally:
        sink.close()


def read(blobs: S3Store, location: str) -> bytes:
    return b"".join(blobs.read(location))


@pytest.mark.parametrize("fault", PASSING)
@pytest.mark.parametrize("call", CALLS)
def test_one_fault_anywhere_is_not_noticed(
    blobs: S3Store, proxy: FaultyProxy, call: str, fault: Fault
) -> None:
    proxy.order(fault, when=CALLS[call])
    put(blobs, CONTENT)
    assert read(blobs, blobs.finish(UPLOAD, size=len(CONTENT))) == CONTENT
    assert proxy.faults() == [fault]


def test_a_body_that_ends_early_is_read_on_where_it_ended(
    blobs: S3Store, proxy: FaultyProxy
) -> None:
    put(blobs, CONTENT)
    location = blobs.finish(UPLOAD, size=len(CONTENT))
    proxy.order(Fault.TRUNCATED, times=3, when=CALLS["get"])
    assert read(blobs, location) == CONTENT
    assert proxy.faults() == [Fault.TRUNCATED] * 3
    ranges = [seen.headers.get("range") for seen in proxy.seen if seen.method == "GET"]
    assert len(ranges) == len(set(ranges)), "every request asked for what was still missing"


def test_a_body_that_breaks_off_for_good_never_looks_whole(
    blobs: S3Store, proxy: FaultyProxy
) -> None:
    put(blobs, CONTENT)
    location = blobs.finish(UPLOAD, size=len(CONTENT))
    proxy.order(Fault.TRUNCATED, when=CALLS["get"])
    pieces = blobs.read(location)
    proxy.is_down = True
    came: list[bytes] = []
    with pytest.raises(UnavailableError):
        came.extend(pieces)
    assert pieces.size == len(CONTENT)
    assert 0 < sum(map(len, came)) < len(CONTENT)


def test_a_server_that_is_down_is_said_to_be_and_back_when_it_is_back(
    blobs: S3Store, proxy: FaultyProxy
) -> None:
    put(blobs, CONTENT)
    proxy.is_down = True
    for act in (
        blobs.check,
        lambda: blobs.finish(UPLOAD, size=len(CONTENT)),
        lambda: list(blobs.objects()),
        lambda: list(blobs.uploads()),
        lambda: blobs.read(UPLOAD),
    ):
        with pytest.raises(UnavailableError) as caught:
            act()
        assert caught.value.hint
    assert blobs.size(UPLOAD) == len(CONTENT), "that is known without the server"
    proxy.is_down = False
    blobs.check()
    assert read(blobs, blobs.finish(UPLOAD, size=len(CONTENT))) == CONTENT


def test_an_upload_that_met_an_outage_goes_on_from_its_last_part(
    blobs: S3Store, proxy: FaultyProxy
) -> None:
    content = os.urandom(4 * PART_BYTES)
    sink = blobs.open(UPLOAD, size=0)
    sink.write([content[: 2 * PART_BYTES + 5]])
    proxy.is_down = True
    with pytest.raises(UnavailableError):
        sink.write([bytes(3 * PART_BYTES)])
    with pytest.raises(MemcubeError):
        sink.write([b"more"])
    sink.close()
    proxy.is_down = False
    kept = blobs.size(UPLOAD)
    assert 0 < kept <= 2 * PART_BYTES
    put(blobs, content, at=kept)
    assert read(blobs, blobs.finish(UPLOAD, size=len(content))) == content


def test_what_could_not_be_kept_at_the_end_is_said_and_can_be_sent_again(
    blobs: S3Store, proxy: FaultyProxy
) -> None:
    proxy.is_down = True
    with pytest.raises(UnavailableError):
        put(blobs, b"all of it")
    proxy.is_down = False
    assert blobs.size(UPLOAD) == 0
    put(blobs, b"all of it")
    assert read(blobs, blobs.finish(UPLOAD, size=9)) == b"all of it"


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_shower_of_faults_loses_and_changes_nothing(
    blobs: S3Store, proxy: FaultyProxy, seed: int
) -> None:
    """Writers that do as a client does: ask how far the upload is, and go on from there."""
    chance = random.Random(seed)
    proxy.shower(seed, 0.15, [fault for fault in Fault if fault is not Fault.STALL])
    finished: dict[str, bytes] = {}
    for _ in range(6):
        content = chance.randbytes(chance.choice([0, 7, PART_BYTES, 2 * PART_BYTES + 99]))
        finished[_push(blobs, content)] = content
    proxy.clear()
    assert {name: read(blobs, name) for name in finished} == finished
    assert proxy.faults()


def _push(blobs: S3Store, content: bytes) -> str:
    for _ in range(40):
        try:
            if (size := blobs.size(UPLOAD)) < len(content):
                put(blobs, content, at=size)
            return blobs.finish(UPLOAD, size=len(content))
        except MemcubeError:
            continue
    raise AssertionError("the upload never ended")


def test_an_object_that_is_said_to_be_absent_is_there_at_the_next_question(
    blobs: S3Store, proxy: FaultyProxy
) -> None:
    put(blobs, b"content")
    location = blobs.finish(UPLOAD, size=7)
    proxy.order(Fault.STALE, when=lambda seen: location in seen.path)
    with pytest.raises(NotFoundError):
        blobs.read(location)
    assert read(blobs, location) == b"content"
