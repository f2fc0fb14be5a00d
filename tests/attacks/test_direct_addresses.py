"""Registries that name a store to put bytes into: where a client goes, with which headers, and where not."""

from __future__ import annotations

import itertools
import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from memcube.accounts.credentials import Credentials
from memcube.http import HttpClient, RetryPolicy
from memcube.remote import Registry
from memcube.settings import Settings
from memcube.store import Store
from memcube.transfer import Outcome, Progress, Silent, patience, push_blobs
from memcube_protocol import media_types
from memcube_protocol.errors import (
    DigestMismatchError,
    ForbiddenError,
    NetworkError,
    UnavailableError,
    UnsafeRedirectError,
)
from memcube_protocol.oci import Descriptor
from support.scripted import Answer, Received, Scripted, scripted

SECRET = "s3cret-of-ann"
CONTENT = bytes(5 << 20)
BLOB = Descriptor.of(media_types.RECORDS, CONTENT)
RIGHT = {"if-none-match": "*", "x-amz-checksum-sha256": "x="}
NAMED = "/bucket/object?X-Amz-Signature=5ecret"


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets every name under `.test` connect to this machine, as a hostile name server would."""
    real = socket.getaddrinfo

    def resolve(host: Any, *rest: Any, **more: Any) -> Any:
        return real("127.0.0.1" if str(host).endswith(".test") else host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


@dataclass
class Lying:
    """A registry that offers direct uploads and signs whatever the test says."""

    url: str
    headers: dict[str, Any] = field(default_factory=lambda: dict(RIGHT))
    method: str = "PUT"
    view: dict[str, Any] = field(default_factory=dict)
    read_back: Iterator[int] = field(default_factory=lambda: iter(()))
    """What it says to have read back, before it says that all is well."""

    def answer(self, request: Received) -> Answer:
        path = request.path
        if path == "/.well-known/memcube.json":
            return _json({"features": {"directUpload": {"url": "https://elsewhere.test/api"}}})
        if path == "/api/v1/uploads":
            view = {
                "state": "open",
                "id": "0123456789abcdef",
                "sizeBytes": len(CONTENT),
                "partBytes": len(CONTENT),
                "partCount": 1,
                "received": [],
            }
            return _json(view | self.view)
        if path.endswith("/requests"):
            signed = {"number": 1, "method": self.method, "url": self.url, "headers": self.headers}
            return _json({"requests": [signed]})
        if path.endswith("/completion"):
            if (read := next(self.read_back, None)) is not None:
                return _json({"state": "checking", "readBackBytes": read}, 202)
            return _json({"state": "complete", "digest": str(BLOB.digest)}, 201)
        if request.method == "DELETE":
            return Answer(204)
        if path.startswith("/v2/ann/notes/blobs/uploads/"):
            location = "/v2/ann/notes/blobs/uploads/1"
            return Answer(201 if request.method == "PUT" else 202, {"Location": location})
        return Answer(404)


def _json(value: Any, status: int = 200) -> Answer:
    return Answer(status, {"Content-Type": "application/json"}, json.dumps(value).encode())


@pytest.fixture
def bucket() -> Iterator[Scripted]:
    """A store that takes everything."""
    with scripted(lambda request: Answer()) as server:
        yield server


Push = Callable[..., Any]


@pytest.fixture
def push(tmp_path: Path) -> Push:
    """Pushes `BLOB` to a registry, with credentials for it; says what became of it."""
    store = Store(tmp_path / "store")
    store.blobs.add(CONTENT)

    def pushed(
        host: str, *insecure: str, progress: Progress | None = None, **variables: str
    ) -> Outcome:
        environ = {"MEMCUBE_HOME": str(tmp_path), "MEMCUBE_INSECURE": ",".join(insecure)}
        settings = Settings.load({k: v for k, v in (environ | variables).items() if v})
        http = HttpClient(
            settings,
            find_credentials=lambda host: Credentials("", SECRET),
            retry=RetryPolicy(attempts=3, sleep=lambda seconds: None),
            resolver=lambda host, port: ["127.0.0.1" if host == "127.0.0.1" else "93.184.215.14"],
        )
        registry = Registry(host, http, settings)
        report = push_blobs(registry, "ann/notes", [BLOB], store, progress=progress)
        return report.blobs[0].outcome

    return pushed


def test_bytes_go_to_the_store_and_credentials_stay_with_the_registry(
    push: Push, bucket: Scripted
) -> None:
    with scripted(Lying(f"{bucket.url}{NAMED}").answer) as registry:
        assert push(registry.host) is Outcome.SENT
    (put,) = bucket.received
    assert (put.method, put.path, put.body) == ("PUT", NAMED, CONTENT)
    assert SECRET not in str(put.headers)
    assert "authorization" not in put.headers
    asked = [one for one in registry.received if one.path.startswith("/api/")]
    assert len(asked) == 3
    assert all(one.headers["authorization"] == f"Bearer {SECRET}" for one in asked)
    assert not any(len(one.body) > 1000 for one in registry.received)


def test_the_address_of_the_offer_is_not_asked_but_the_registry_that_the_user_named(
    push: Push, bucket: Scripted
) -> None:
    with scripted(Lying(f"{bucket.url}{NAMED}").answer) as registry:
        push(registry.host)
    assert "POST /api/v1/uploads" in registry.lines()


def test_a_remote_registry_cannot_lead_into_this_machine(
    names: None, push: Push, bucket: Scripted
) -> None:
    with scripted(Lying(f"{bucket.url}{NAMED}").answer) as registry:
        remote = f"registry.test:{registry.port}"
        with pytest.raises(UnsafeRedirectError) as caught:
            push(remote, remote)
    assert not bucket.received
    assert "MEMCUBE_DIRECT=0" in (caught.value.hint or "")


def test_a_name_that_turns_inward_after_the_check_is_caught_at_the_connection(
    names: None, push: Push, bucket: Scripted
) -> None:
    with scripted(Lying("").answer) as registry:
        remote = f"registry.test:{registry.port}"
        lying = Lying(f"http://registry.test:{bucket.port}{NAMED}")
        with scripted(lying.answer) as second, pytest.raises(UnsafeRedirectError):
            push(f"registry.test:{second.port}", f"registry.test:{second.port}", remote)
    assert not bucket.received


def test_bytes_do_not_go_to_a_third_host_over_plain_http(push: Push) -> None:
    with (
        scripted(Lying(f"http://store.example{NAMED}").answer) as registry,
        pytest.raises(UnsafeRedirectError, match="plain http"),
    ):
        push(registry.host)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://u@127.0.0.1/"])
def test_other_addresses_are_refused(push: Push, url: str) -> None:
    with scripted(Lying(url).answer) as registry, pytest.raises(NetworkError):
        push(registry.host)


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Basic eA=="},
        {"host": "elsewhere"},
        {"content-length": "1"},
        {"transfer-encoding": "chunked"},
        {"cookie": "a=b"},
        {"if-none-match": '"x"'},
        {"X-Amz-Meta": "x"},
        {"x-amz-a": "b\r\nhost: elsewhere"},
        {"x-amz-a": 3},
        {f"x-amz-{n}": "x" for n in range(17)},
    ],
)
def test_headers_that_do_more_than_put_an_object_are_refused(
    push: Push, bucket: Scripted, headers: dict[str, Any]
) -> None:
    lying = Lying(f"{bucket.url}{NAMED}", headers)
    with scripted(lying.answer) as registry, pytest.raises(NetworkError, match="malformed"):
        push(registry.host)
    assert not bucket.received


def test_another_method_than_put_is_refused(push: Push, bucket: Scripted) -> None:
    lying = Lying(f"{bucket.url}{NAMED}", method="DELETE")
    with scripted(lying.answer) as registry, pytest.raises(NetworkError):
        push(registry.host)
    assert not bucket.received


@pytest.mark.parametrize(
    "view",
    [
        {"partBytes": 0},
        {"partBytes": 1, "partCount": len(CONTENT)},
        {"partCount": 7},
        {"partBytes": True},
        {"id": "../../v2/"},
        {"id": 7},
        {"received": 3},
        {"state": "odd"},
    ],
)
def test_an_upload_that_makes_no_sense_is_refused(
    push: Push, bucket: Scripted, view: dict[str, Any]
) -> None:
    lying = Lying(f"{bucket.url}{NAMED}", view=view)
    with scripted(lying.answer) as registry, pytest.raises(NetworkError):
        push(registry.host)
    assert not bucket.received


def test_a_store_that_leads_on_is_not_followed(push: Push, bucket: Scripted) -> None:
    elsewhere = Answer(307, {"Location": f"{bucket.url}/other"})
    with (
        scripted(lambda request: elsewhere) as store,
        scripted(Lying(f"{store.url}{NAMED}").answer) as registry,
        pytest.raises(UnsafeRedirectError),
    ):
        push(registry.host)
    assert not bucket.received


def test_a_store_that_asks_for_a_login_gets_none(push: Push) -> None:
    wants = Answer(401, {"WWW-Authenticate": 'Basic realm="x"'})
    with (
        scripted(lambda request: wants) as store,
        scripted(Lying(f"{store.url}{NAMED}").answer) as registry,
        pytest.raises(Exception, match="HTTP 401"),
    ):
        push(registry.host)
    assert not any("authorization" in one.headers for one in store.received)


def test_a_signature_in_the_address_is_in_no_error(push: Push) -> None:
    refused = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>no</Message></Error>"
    with (
        scripted(lambda request: Answer(403, body=refused)) as store,
        scripted(Lying(f"{store.url}{NAMED}").answer) as registry,
        pytest.raises(ForbiddenError) as caught,
    ):
        push(registry.host)
    assert "AccessDenied: no" in str(caught.value)
    assert "5ecret" not in str(caught.value)
    assert len(store.received) == 4, "once, and three times announced anew"


def test_a_body_that_the_store_calls_wrong_is_not_sent_twice(push: Push) -> None:
    refused = b"<Error><Code>BadDigest</Code><Message>did not match</Message></Error>"
    with (
        scripted(lambda request: Answer(400, body=refused)) as store,
        scripted(Lying(f"{store.url}{NAMED}").answer) as registry,
        pytest.raises(DigestMismatchError),
    ):
        push(registry.host)
    assert len(store.received) == 1


def test_where_the_store_never_answers_the_registry_takes_the_bytes(push: Push) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}{NAMED}"
    with scripted(Lying(nobody).answer) as registry:
        assert push(registry.host) is Outcome.SENT
    assert registry.received[-1].body == CONTENT
    assert "DELETE /api/v1/uploads/0123456789abcdef" in registry.lines()


def test_an_upload_that_another_client_ended_meanwhile_is_no_failure(
    push: Push, bucket: Scripted
) -> None:
    lying = Lying(f"{bucket.url}{NAMED}")

    def ended(request: Received) -> Answer:
        if request.path.endswith("/completion"):
            return _json({"code": "conflict", "detail": "the upload has just ended"}, 409)
        if request.path == "/api/v1/uploads/0123456789abcdef":
            return Answer(404)
        if request.method == "HEAD":
            return Answer(200, {"Content-Length": str(len(CONTENT))})
        return lying.answer(request)

    with scripted(ended) as registry:
        assert push(registry.host) is Outcome.SENT
    assert len(bucket.received) == 1


def test_the_setting_sends_everything_through_the_registry(push: Push, bucket: Scripted) -> None:
    with scripted(Lying(f"{bucket.url}{NAMED}").answer) as registry:
        assert push(registry.host, MEMCUBE_DIRECT="0") is Outcome.SENT
    assert not bucket.received
    assert registry.received[-1].body == CONTENT


class Watched(Silent):
    """What somebody who waits is told of the check at the registry."""

    def __init__(self) -> None:
        self.checked: list[int] = []

    def check(self, blob: Descriptor, size_bytes: int) -> None:
        self.checked.append(size_bytes)


def test_who_waits_for_the_registry_to_read_back_sees_how_far_it_is(
    push: Push, bucket: Scripted
) -> None:
    watched, said = Watched(), iter([0, 1 << 20, 1 << 50])
    with scripted(Lying(f"{bucket.url}{NAMED}", read_back=said).answer) as registry:
        assert push(registry.host, progress=watched) is Outcome.SENT
    assert watched.checked == [0, 1 << 20, len(CONTENT)], "never more than there is"


@pytest.mark.parametrize("said", [itertools.repeat(7), itertools.count()], ids=["stuck", "endless"])
def test_a_registry_that_never_ends_reading_back_is_given_up(
    push: Push, bucket: Scripted, monkeypatch: pytest.MonkeyPatch, said: Iterator[int]
) -> None:
    monkeypatch.setattr(patience, "IDLE_S", 0.1)
    monkeypatch.setattr(patience, "SLOWEST_BYTES_PER_S", 1 << 40)
    with (
        scripted(Lying(f"{bucket.url}{NAMED}", read_back=said).answer) as registry,
        pytest.raises(UnavailableError, match="read back") as caught,
    ):
        push(registry.host)
    assert "what has arrived is kept" in (caught.value.hint or "")
