import socket
from pathlib import Path
from typing import Any

import pytest
from memcube.http import FileBody, HttpClient, Request, RetryPolicy
from memcube.settings import Settings
from memcube_protocol.errors import (
    LimitExceededError,
    NetworkError,
    NotFoundError,
    RateLimitedError,
    StorageError,
    UnavailableError,
    UnsafeRedirectError,
)
from support.scripted import Answer, Received, Script, scripted

SETTINGS = Settings.load({"MEMCUBE_HOME": "/nonexistent", "MEMCUBE_KEYRING": "0"})


class Waits:
    """A retry policy that does not wait, and the waits that it was asked for."""

    def __init__(self, **options: Any) -> None:
        self.seconds: list[float] = []
        self.policy = RetryPolicy(sleep=self.seconds.append, jitter=lambda: 1.0, **options)


def client(waits: Waits | None = None) -> HttpClient:
    return HttpClient(SETTINGS, find_credentials=lambda host: None, retry=(waits or Waits()).policy)


def after(failures: int, failure: Answer, success: Answer) -> Script:
    """`failure` so many times, then `success`."""
    left = [failure] * failures
    return lambda request: left.pop() if left else success


def test_a_request_says_who_asks_and_wants_the_bytes_as_they_are() -> None:
    with scripted(lambda request: Answer(body=b"abc")) as server:
        with client().send(Request("GET", f"{server.url}/x")) as response:
            assert response.content(10) == b"abc"
        (got,) = server.received
    assert got.headers["user-agent"].startswith("memcube/")
    assert got.headers["accept-encoding"] == "identity"
    assert "authorization" not in got.headers


def test_connections_are_used_again() -> None:
    with scripted(
        lambda request: Answer(404 if request.path == "/no" else 200, body=b"x")
    ) as server:
        http = client()
        for method, path in [("GET", "/a"), ("HEAD", "/a"), ("GET", "/no"), ("GET", "/a")]:
            http.send(Request(method, server.url + path), (200, 404)).close()
        pool = http._pools._managers.popitem()[1].connection_from_url(server.url)
        assert pool.num_connections == 1


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_passing_failures_of_the_server_are_retried(status: int) -> None:
    waits = Waits()
    with scripted(after(2, Answer(status), Answer(body=b"ok"))) as server:
        with client(waits).send(Request("GET", server.url)) as response:
            assert response.content(2) == b"ok"
        assert len(server.received) == 3
    assert waits.seconds == [0.5, 1.0]


def test_the_server_says_how_long_to_wait() -> None:
    waits = Waits()
    with scripted(after(1, Answer(503, {"Retry-After": "7"}), Answer())) as server:
        client(waits).send(Request("GET", server.url)).close()
    assert waits.seconds == [7.0]


def test_a_server_that_wants_too_long_a_wait_is_not_asked_again() -> None:
    with scripted(lambda request: Answer(429, {"Retry-After": "3600"})) as server:
        with pytest.raises(RateLimitedError) as caught:
            client().send(Request("GET", server.url))
        assert len(server.received) == 1
    assert caught.value.retry_after_s == 3600


def test_a_registry_whose_storage_is_broken_is_not_asked_again() -> None:
    body = b'{"errors": [{"code": "UNAVAILABLE", "detail": {"code": "storage"}}]}'
    with scripted(lambda request: Answer(503, {"Retry-After": "5"}, body)) as server:
        with pytest.raises(StorageError):
            client().send(Request("GET", server.url))
        assert len(server.received) == 1


def test_retries_end() -> None:
    with scripted(lambda request: Answer(503)) as server:
        with pytest.raises(UnavailableError):
            client(Waits(attempts=3)).send(Request("GET", server.url))
        assert len(server.received) == 3


def test_what_must_not_happen_twice_is_not_repeated() -> None:
    with scripted(lambda request: Answer(503)) as server:
        with pytest.raises(UnavailableError):
            client().send(Request("POST", server.url))
        assert len(server.received) == 1


def test_answers_that_will_not_change_are_not_retried() -> None:
    with scripted(lambda request: Answer(404)) as server:
        with pytest.raises(NotFoundError):
            client().send(Request("GET", server.url))
        assert len(server.received) == 1


def test_where_nothing_listens_on_this_machine_nothing_is_tried_again() -> None:
    waits = Waits(attempts=3)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(NetworkError, match=f"nothing listens at {url}$"):
            client(waits).send(Request("GET", f"{url}/v2/"))
    assert waits.seconds == []


def test_a_host_that_is_not_found_is_tried_twice() -> None:
    waits = Waits()
    with pytest.raises(NetworkError, match=r"^registry\.invalid cannot be found$"):
        client(waits).send(Request("GET", "https://registry.invalid/v2/"))
    assert len(waits.seconds) == 1


def test_offline_opens_no_connection() -> None:
    settings = Settings.load({"MEMCUBE_HOME": "/nonexistent", "MEMCUBE_OFFLINE": "1"})
    with scripted(lambda request: Answer()) as server:
        with pytest.raises(NetworkError, match="offline"):
            HttpClient(settings).send(Request("GET", server.url))
        assert not server.received


def test_a_redirect_is_followed_a_few_times() -> None:
    def script(request: Received) -> Answer:
        step = int(request.path[1:])
        return Answer(307, {"Location": f"/{step - 1}"}) if step else Answer(body=b"here")

    with scripted(script) as server:
        with client().send(Request("GET", f"{server.url}/5")) as response:
            assert response.content(4) == b"here"
        with pytest.raises(NetworkError, match="more than 5"):
            client().send(Request("GET", f"{server.url}/6"))


def test_a_write_is_never_redirected() -> None:
    with scripted(lambda request: Answer(307, {"Location": "/other"})) as server:
        with pytest.raises(UnsafeRedirectError):
            client().send(Request("PUT", server.url, body=b"x"))
        assert len(server.received) == 1


def test_an_answer_longer_than_allowed_is_not_read() -> None:
    chunked = Answer(headers={"Transfer-Encoding": "chunked"}, body=b"5\r\nabcde\r\n0\r\n\r\n")
    for answer in (Answer(body=b"abcde"), chunked):
        with (
            scripted(lambda request, answer=answer: answer) as server,
            client().send(Request("GET", server.url)) as response,
            pytest.raises(LimitExceededError),
        ):
            response.content(4)


def test_a_part_of_a_file_is_a_body(tmp_path: Path) -> None:
    path, sent = tmp_path / "blob", []
    path.write_bytes(bytes(range(256)) * 40_000)
    with scripted(lambda request: Answer(201)) as server:
        body = FileBody(path, 256, 10_000_000, sent.append)
        client().send(Request("PUT", server.url, body=body), (201,)).close()
        (got,) = server.received
    assert got.body == path.read_bytes()[256:10_000_256]
    assert got.headers["content-length"] == "10000000"
    assert sum(sent) == 10_000_000
