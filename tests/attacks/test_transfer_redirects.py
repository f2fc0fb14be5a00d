"""Registries that lead the client astray: into this machine, to other schemes, to other hosts."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from memcube.accounts.credentials import Credentials
from memcube.http import HttpClient, Request, RetryPolicy, pools
from memcube.remote import Registry
from memcube.settings import Settings
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    MemcubeError,
    NetworkError,
    UnauthenticatedError,
    UnsafeRedirectError,
)
from support.scripted import Answer, Received, Scripted, scripted

SECRET = "s3cret-of-ann"
DIGEST = Digest.of(b"x")


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets every name under `.test` connect to this machine, as a hostile name server would."""
    real = socket.getaddrinfo

    def resolve(host: Any, *rest: Any, **more: Any) -> Any:
        return real("127.0.0.1" if str(host).endswith(".test") else host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


@pytest.fixture
def bystander() -> Iterator[Scripted]:
    """A service of this machine that nobody should reach."""
    with scripted(lambda request: Answer(body=b"x")) as server:
        yield server


def client(*insecure: str, asked: list[str] | None = None) -> HttpClient:
    settings = Settings.load(
        {"MEMCUBE_HOME": "/nonexistent", "MEMCUBE_INSECURE": ",".join(insecure)}
        if insecure
        else {"MEMCUBE_HOME": "/nonexistent"}
    )

    def find(host: str) -> Credentials:
        if asked is not None:
            asked.append(host)
        return Credentials("ann", SECRET)

    public = {"127.0.0.1": ["127.0.0.1"]}
    return HttpClient(
        settings,
        find_credentials=find,
        retry=RetryPolicy(attempts=2, sleep=lambda seconds: None),
        resolver=lambda host, port: public.get(host, ["93.184.215.14"]),
    )


def to(location: str) -> Any:
    return lambda request: Answer(307, {"Location": location})


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "127.1.2.3"])
def test_a_remote_registry_cannot_lead_into_this_machine(
    names: None, bystander: Scripted, host: str
) -> None:
    with scripted(to(f"http://{host}:{bystander.port}/admin")) as server:
        remote = f"registry.test:{server.port}"
        with pytest.raises(UnsafeRedirectError) as caught:
            client(remote).send(Request("GET", f"http://{remote}/v2/"))
    assert not bystander.received
    assert caught.value.hint


def test_a_name_that_turns_inward_after_the_check_is_caught_at_the_connection(
    names: None, bystander: Scripted
) -> None:
    location = f"http://registry.test:{bystander.port}/admin"
    with scripted(to(location)) as server:
        remote = f"registry.test:{server.port}"
        with pytest.raises(UnsafeRedirectError):
            client(remote).send(Request("GET", f"http://{remote}/v2/"))
    assert not bystander.received


def test_a_registry_whose_name_turns_inward_while_it_is_judged_leads_nobody_inside(
    names: None, bystander: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    with scripted(to(f"http://127.0.0.1:{bystander.port}/admin")) as server:
        remote = f"registry.test:{server.port}"

        def peer_of(connection: Any) -> str:
            address, port = connection.sock.getpeername()
            return "93.184.215.14" if port == server.port else str(address)

        monkeypatch.setattr(pools, "peer_of", peer_of)
        http = HttpClient(
            Settings.load({"MEMCUBE_HOME": "/nonexistent", "MEMCUBE_INSECURE": remote}),
            resolver=lambda host, port: ["127.0.0.1"],
        )
        with pytest.raises(UnsafeRedirectError):
            http.send(Request("GET", f"http://{remote}/v2/"))
    assert not bystander.received


def test_an_address_that_programs_read_in_two_ways_is_followed_by_none(
    names: None, bystander: Scripted
) -> None:
    def script(request: Received) -> Answer:
        if "authorization" not in request.headers:
            return Answer(401, {"WWW-Authenticate": 'Basic realm="x"'})
        inside = f"127.0.0.1:{bystander.port}"
        return Answer(307, {"Location": f"http://:@{inside}\\@registry.test:{server.port}/admin"})

    with scripted(script) as server:
        remote = f"registry.test:{server.port}"
        with pytest.raises(NetworkError):
            client(remote).send(Request("GET", f"http://{remote}/v2/"))
    assert not bystander.received


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "gopher://127.0.0.1:70/1", "//", "ftp:x"]
)
def test_other_schemes_are_not_followed(location: str) -> None:
    with scripted(to(location)) as server, pytest.raises(NetworkError):
        client().send(Request("GET", f"{server.url}/v2/"))


def test_credentials_stay_with_the_host_that_they_are_for(bystander: Scripted) -> None:
    def script(request: Received) -> Answer:
        if "authorization" not in request.headers:
            return Answer(401, {"WWW-Authenticate": 'Basic realm="x"'})
        return Answer(307, {"Location": f"{bystander.url}/blob"})

    with scripted(script) as server:
        client().send(Request("GET", f"{server.url}/v2/")).close()
        assert SECRET not in str(server.lines())
    (got,) = bystander.received
    assert "authorization" not in got.headers


def test_a_host_reached_by_a_redirect_gets_no_answer_to_its_challenge(bystander: Scripted) -> None:
    asked: list[str] = []

    def challenge(request: Received) -> Answer:
        return Answer(401, {"WWW-Authenticate": 'Basic realm="give"'})

    with scripted(challenge) as greedy, scripted(to(f"{greedy.url}/x")) as server:
        with pytest.raises(UnauthenticatedError):
            client(asked=asked).send(Request("GET", f"{server.url}/v2/"))
        assert all("authorization" not in request.headers for request in greedy.received)
    assert asked == [server.host]


def test_an_upload_that_continues_elsewhere_carries_no_credentials(bystander: Scripted) -> None:
    def script(request: Received) -> Answer:
        if "authorization" not in request.headers:
            return Answer(401, {"WWW-Authenticate": 'Basic realm="x"'})
        return Answer(202, {"Location": f"{bystander.url}/upload"})

    settings = Settings.load({"MEMCUBE_HOME": "/nonexistent"})
    with scripted(script) as server:
        registry = Registry(server.host, client(), settings)
        upload = registry.uploads.start("ann/notes")
        assert upload
        registry.uploads.finish("ann/notes", upload, DIGEST, b"x")
    assert bystander.received
    assert all("authorization" not in request.headers for request in bystander.received)


def test_an_upload_cannot_be_sent_into_this_machine(names: None, bystander: Scripted) -> None:
    with scripted(
        lambda request: Answer(202, {"Location": f"http://127.0.0.1:{bystander.port}/x"})
    ) as server:
        remote = f"registry.test:{server.port}"
        settings = Settings.load({"MEMCUBE_HOME": "/nonexistent", "MEMCUBE_INSECURE": remote})
        with pytest.raises(UnsafeRedirectError):
            Registry(remote, client(remote), settings).uploads.start("ann/notes")
    assert not bystander.received


def test_a_next_page_on_another_host_is_not_asked_for(bystander: Scripted) -> None:
    link = {"Link": f'<{bystander.url}/v2/a/tags/list?last=1>; rel="next"'}
    settings = Settings.load({"MEMCUBE_HOME": "/nonexistent"})
    with (
        scripted(lambda request: Answer(200, link, b'{"tags": ["1"]}')) as server,
        pytest.raises(NetworkError, match="another host"),
    ):
        list(Registry(server.host, client(), settings).tags("a"))
    assert not bystander.received


def test_secrets_appear_in_no_error(tmp_path: Path) -> None:
    def script(request: Received) -> Answer:
        if request.path.startswith("/token"):
            return Answer(401, body=b"no: " + request.headers["authorization"].encode())
        return Answer(401, {"WWW-Authenticate": f'Bearer realm="{server.url}/token"'})

    with scripted(script) as server, pytest.raises(UnauthenticatedError) as caught:
        client().send(Request("GET", f"{server.url}/v2/?secret=x"))
    shown = f"{caught.value} {caught.value.hint} {caught.value.__cause__}"
    assert SECRET not in shown
    assert "secret=x" not in shown


def test_a_token_realm_that_leads_elsewhere_does_not_take_the_credentials_along(
    bystander: Scripted,
) -> None:
    def script(request: Received) -> Answer:
        if request.path.startswith("/token"):
            return Answer(307, {"Location": f"{bystander.url}/token"})
        return Answer(401, {"WWW-Authenticate": f'Bearer realm="{server.url}/token"'})

    with scripted(script) as server, pytest.raises(MemcubeError):
        client().send(Request("GET", f"{server.url}/v2/"))
    assert server.received[1].headers["authorization"]
    assert all("authorization" not in request.headers for request in bystander.received)
