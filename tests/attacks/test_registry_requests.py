"""Requests that abuse HTTP itself: smuggling, floods of headers, slow senders."""

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import NO_LIMITS, Person
from support.servers import MemcubeServer, memcube_server
from support.wire import Wire

TIMEOUT_S = 1.0


def statuses(answer: bytes) -> list[int]:
    """Status of every response in `answer`."""
    return [int(part.split()[0]) for part in answer.split(b"HTTP/1.1 ")[1:]]


def request(wire: Wire, *lines: str, body: bytes = b"") -> bytes:
    head = [*lines[:1], f"Host: {wire.netloc}", "Connection: close", *lines[1:], "", ""]
    return "\r\n".join(head).encode("latin-1") + body


SMUGGLED = b"GET /v2/smuggled/probe/tags/list HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    "headers",
    [
        ["Content-Length: 5", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: chunked", "Content-Length: 5"],
        ["Content-Length: 5", "Content-Length: 6"],
        ["Content-Length: +5"],
        ["Content-Length: 5, 5"],
        ["Content-Length: -1"],
        ["Content-Length: 0x5"],
        ["Transfer-Encoding: xchunked"],
        ["Transfer-Encoding : chunked"],
        ["Transfer-Encoding: chunked, identity"],
        ["Transfer-Encoding:\x0bchunked"],
    ],
    ids=repr,
)
def test_an_ambiguous_body_never_becomes_a_second_request(
    memcube: MemcubeServer, headers: list[str]
) -> None:
    """Whatever length the server believes, at most one request is answered, and none with 2xx
    for the smuggled one."""
    wire = memcube.wire
    lines = ["POST /v2/x/y/blobs/uploads/ HTTP/1.1", f"Host: {wire.netloc}", *headers, "", ""]
    body = b"0\r\n\r\n" + SMUGGLED
    answer = wire.exchange("\r\n".join(lines).encode("latin-1") + body, timeout_s=2)
    assert all(status in {400, 401, 404, 411, 501} for status in statuses(answer))
    assert b"smuggled" not in answer
    assert wire.get("/v2/").status in {200, 401}


@pytest.mark.parametrize(
    "lines",
    [
        ["GET /v2/ HTTP/1.1", "Host: evil", "X: a\r\n b"],
        ["GET /v2/ HTTP/9.9"],
        ["GET  /v2/  HTTP/1.1"],
        ["\x00\x01\x02"],
        ["GET /v2/\x00 HTTP/1.1"],
        ["GET /v2/\x80\xff HTTP/1.1"],
        ["PRI * HTTP/2.0"],
        ["GET http://elsewhere.example/v2/ HTTP/1.1"],
        ["OPTIONS * HTTP/1.1"],
    ],
    ids=repr,
)
def test_malformed_requests_do_no_harm(memcube: MemcubeServer, lines: list[str]) -> None:
    answer = memcube.wire.exchange(request(memcube.wire, *lines), timeout_s=2)
    assert all(status < 500 or status in {501, 505} for status in statuses(answer))
    assert memcube.wire.get("/v2/").status in {200, 401}


@pytest.mark.parametrize("count", [1_000, 20_000])
def test_many_headers_are_refused(memcube: MemcubeServer, count: int) -> None:
    lines = ["GET /v2/ HTTP/1.1", *(f"X-{number}: y" for number in range(count))]
    try:
        answer = memcube.wire.exchange(request(memcube.wire, *lines), timeout_s=5)
    except (BrokenPipeError, ConnectionResetError):
        answer = b""
    assert all(status in {400, 413, 431} for status in statuses(answer))
    assert memcube.wire.get("/v2/").status in {200, 401}


@pytest.mark.parametrize("size", [1_000_000, 20_000_000])
@pytest.mark.parametrize("where", ["header", "target", "authorization"])
def test_an_enormous_head_is_refused(memcube: MemcubeServer, size: int, where: str) -> None:
    filler = "x" * size
    lines = {
        "header": ["GET /v2/ HTTP/1.1", f"X-Big: {filler}"],
        "target": [f"GET /v2/{filler} HTTP/1.1"],
        "authorization": ["GET /v2/ HTTP/1.1", f"Authorization: Bearer {filler}"],
    }[where]
    try:
        answer = memcube.wire.exchange(request(memcube.wire, *lines), timeout_s=5)
    except (BrokenPipeError, ConnectionResetError):
        answer = b""
    assert all(400 <= status < 500 for status in statuses(answer))
    assert memcube.wire.get("/v2/").status in {200, 401}


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic",
        "Basic !!!",
        "Basic " + "A" * 5000,
        "Basic OnBhc3M=",
        "Basic /////w==",
        "Digest username=x",
        "Bearer a b c",
        "Bearer \xff",
        "bearer " + "e30." * 3,
        "Bearer eyJhbGciOiJub25lIn0.e30.",
    ],
)
def test_malformed_credentials_are_401_never_500(
    memcube: MemcubeServer, authorization: str
) -> None:
    reply = memcube.wire.get("/v2/", headers={"Authorization": authorization})
    assert reply.status in {400, 401}, reply
    assert reply.status == 400 or reply.header("WWW-Authenticate")


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Person]:
    settings = NO_LIMITS | {
        "MEMCUBE_REGISTRY_HEADER_TIMEOUT_S": str(TIMEOUT_S),
        "MEMCUBE_REGISTRY_BODY_TIMEOUT_S": str(TIMEOUT_S),
    }
    with memcube_server(tmp_path_factory.mktemp("impatient"), settings) as server:
        server.create_account("slow")
        yield Person(server, "slow", server.create_token("slow", "pull", "push"))


class TestSlowClients:
    """A server whose patience is one second."""

    def seconds_until_closed(self, connection: socket.socket, limit_s: float) -> float:
        started = time.monotonic()
        connection.settimeout(limit_s)
        try:
            while connection.recv(4096):
                pass
        except ConnectionResetError:
            pass
        except TimeoutError:
            return float("inf")
        return time.monotonic() - started

    def test_a_header_that_never_ends_is_cut_off(self, impatient: Person) -> None:
        with impatient.wire.connect() as connection:
            connection.sendall(b"GET /v2/ HTTP/1.1\r\nX-Slow: ")
            assert self.seconds_until_closed(connection, 20) < 20

    def test_a_header_that_drips_is_cut_off(self, impatient: Person) -> None:
        started = time.monotonic()
        with impatient.wire.connect() as connection:
            connection.sendall(b"GET /v2/ HTTP/1.1\r\n")
            try:
                while time.monotonic() - started < 25:
                    connection.sendall(b"X: y\r\n")
                    time.sleep(0.2)
            except OSError:
                pass  # cut off
        assert time.monotonic() - started < 25

    def test_a_body_that_stops_is_cut_off(self, impatient: Person) -> None:
        location = impatient.repository("slow").upload_location()
        target = location.removeprefix(impatient.server.url)
        head = request(
            impatient.wire,
            f"PATCH {target} HTTP/1.1",
            f"Authorization: {impatient.wire.authorization}",
            "Content-Length: 1000",
            body=b"some",
        )
        with impatient.wire.connect() as connection:
            connection.sendall(head)
            assert self.seconds_until_closed(connection, 20) < 20

    def test_many_idle_connections_do_not_keep_others_out(self, impatient: Person) -> None:
        idle = [impatient.wire.connect() for _ in range(200)]
        try:
            for connection in idle:
                connection.sendall(b"GET /v2/ HTTP/1.1\r\n")
            with ThreadPoolExecutor(4) as pool:
                replies = list(pool.map(lambda _: impatient.wire.get("/v2/"), range(20)))
            assert {reply.status for reply in replies} == {200}
        finally:
            for connection in idle:
                connection.close()

    def test_a_reader_that_does_not_read_keeps_nobody_out(self, impatient: Person) -> None:
        repository = impatient.repository("slow")
        digest = repository.add_blob(bytes(8 * 1024 * 1024))
        lazy = [impatient.wire.connect() for _ in range(20)]
        try:
            for connection in lazy:
                connection.sendall(
                    request(
                        impatient.wire,
                        f"GET {repository.path(f'blobs/{digest}')} HTTP/1.1",
                        f"Authorization: {impatient.wire.authorization}",
                    )
                )
            assert impatient.wire.get("/v2/").status == 200
            assert len(repository.get_blob(digest).body) == 8 * 1024 * 1024
        finally:
            for connection in lazy:
                connection.close()
