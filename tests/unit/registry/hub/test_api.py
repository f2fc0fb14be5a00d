"""The ASGI application: refusals in the Hub's words, redirects of a store, and nothing of the Host header."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from memcube_protocol import media_types, oci
from memcube_protocol.errors import UnauthenticatedError
from memcube_registry.accounts.authentication import SCOPE_KEY
from memcube_registry.accounts.principal import ANONYMOUS, Principal
from memcube_registry.catalog.models import Visibility
from memcube_registry.catalog.service import set_visibility
from memcube_registry.database import Database
from memcube_registry.http.asgi import Message
from memcube_registry.hub.api import HubApi
from memcube_registry.storage import MemoryStore
from support.registry_core import Core

CONTENT = b"0123456789"
URL = "https://registry.example"


class ElsewhereStore(MemoryStore):
    """A store whose objects clients fetch themselves."""

    def url(self, location: str, *, media_type: str) -> str | None:
        return f"https://cdn.example/{location}?signature=x"


@dataclass
class Got:
    """One answer."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    app: HubApi,
    path: str,
    *,
    method: str = "GET",
    who: Principal | Exception = ANONYMOUS,
    body: bytes = b"",
    query: str = "",
    **headers: str,
) -> Got:
    got = Got()
    sent = [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()]
    scope: dict[str, Any] = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(b"host", b"evil.example"), *sent],
        SCOPE_KEY: who,
    }

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            got.status = message["status"]
            got.headers = {k.decode(): v.decode("ascii") for k, v in message["headers"]}
        else:
            got.body += message.get("body", b"")

    asyncio.run(app(scope, receive, send))
    return got


@pytest.fixture
def core(database: Database) -> Core:
    core = Core(database)
    core.principal = core.person("ada")
    core.push_blob("ada/x", b"{}")
    titles = {"a.txt": CONTENT, "b/\u00e9\u201d.txt": b""}
    layers = [
        {
            "mediaType": "text/html",
            "digest": str(core.push_blob("ada/x", content)),
            "size": len(content),
            "annotations": {media_types.TITLE: title},
        }
        for title, content in titles.items()
    ]
    value = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "config": oci.EMPTY.to_json(),
        "layers": layers,
    }
    core.put("ada/x", value, ("latest",), None)
    core.publish("ada/x")
    return core


@pytest.fixture
def app(core: Core) -> HubApi:
    return HubApi(core.database, core.store, URL)


FILE = "/ada/x/resolve/main/a.txt"


def test_head_tells_what_get_gives(app: HubApi) -> None:
    head, whole = ask(app, FILE, method="HEAD"), ask(app, FILE)
    assert (head.status, head.body, whole.body) == (200, b"", CONTENT)
    assert head.headers == whole.headers
    assert head.headers["content-length"] == head.headers["x-linked-size"] == "10"
    assert head.headers["etag"] == head.headers["x-linked-etag"]


def test_a_range_is_206_and_one_outside_416(app: HubApi) -> None:
    part = ask(app, FILE, range="bytes=4-")
    assert (part.status, part.body) == (206, CONTENT[4:])
    assert part.headers["content-range"] == "bytes 4-9/10"
    assert "x-repo-commit" in part.headers
    outside = ask(app, FILE, range="bytes=10-")
    assert (outside.status, outside.headers["content-range"]) == (416, "bytes */10")


def test_a_known_file_is_not_sent_again(app: HubApi) -> None:
    tag = ask(app, FILE).headers["etag"]
    for method in ("GET", "HEAD"):
        assert ask(app, FILE, method=method, if_none_match=tag).status == 304


def test_what_somebody_pushed_is_never_shown_as_a_page(app: HubApi) -> None:
    headers = ask(app, "/ada/x/resolve/main/b/%C3%A9%E2%80%9D.txt").headers
    assert headers["content-type"] == "application/octet-stream"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-disposition"] == "attachment; filename*=UTF-8''%C3%A9%E2%80%9D.txt"


def test_the_store_is_where_a_get_is_led_to_and_a_head_is_not(core: Core) -> None:
    elsewhere = ElsewhereStore()
    elsewhere._objects = core.store._objects  # type: ignore[attr-defined]
    app = HubApi(core.database, elsewhere, URL)
    led, head = ask(app, FILE), ask(app, FILE, method="HEAD")
    assert (led.status, head.status) == (307, 200)
    assert led.headers["location"].startswith("https://cdn.example/")
    assert led.headers["x-linked-size"] == "10"
    assert len(led.headers["x-repo-commit"]) == 40
    assert "location" not in head.headers


def test_a_private_cube_is_led_to_by_nobody_else(core: Core) -> None:
    core.database.run(
        lambda session: set_visibility(session, core.principal, "ada/x", Visibility.PRIVATE)
    )
    app = HubApi(core.database, ElsewhereStore(), URL)
    for method in ("GET", "HEAD"):
        assert ask(app, FILE, method=method).status == 401
        assert ask(app, FILE, method=method, who=core.person(f"bob{method.lower()}")).status == 404
    assert ask(app, FILE, who=core.principal).status == 307


def test_wrong_credentials_are_told_from_an_absent_cube(app: HubApi) -> None:
    wrong = ask(app, "/api/models/ada/x", who=UnauthenticatedError("wrong", hint="log in"))
    assert wrong.status == 401
    assert "x-error-code" not in wrong.headers
    assert wrong.headers["x-error-message"] == "Invalid credentials in Authorization header"
    absent = ask(app, "/api/models/ada/absent")
    assert (absent.status, absent.headers["x-error-code"]) == (401, "RepoNotFound")


def test_the_next_page_lies_at_the_registrys_own_url(app: HubApi) -> None:
    path, query = "/api/models/ada/x/tree/main", "recursive=true&limit=1"
    paths = []
    while True:
        got = ask(app, path, query=query)
        paths += [entry["path"] for entry in got.json()]
        if "link" not in got.headers:
            break
        link, _, rel = got.headers["link"].partition("; ")
        assert rel == 'rel="next"'
        assert link.startswith(f"<{URL}{path}?")
        query = link.strip("<>").partition("?")[2]
    assert paths == ["a.txt", "b", "b/\u00e9\u201d.txt"]


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "limit=-1", "cursor=a&cursor=b"])
def test_a_wrong_query_is_refused(app: HubApi, query: str) -> None:
    assert ask(app, "/api/models/ada/x/tree/main", query=query).status == 400


def test_no_word_of_a_request_becomes_a_header(app: HubApi) -> None:
    got = ask(app, "/ada/x/resolve/main/%E2%80%A8x%C2%85y")
    assert got.status == 404
    assert got.headers["x-error-code"] == "EntryNotFound"
    assert "\n" not in got.headers["x-error-message"]
    assert got.headers["x-error-message"].isprintable()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"paths=a.txt&paths=b&paths=absent&expand=False", 200),
        (b'{"paths": ["a.txt", "b"]}', 200),
        (b'{"paths": [1]}', 400),
        (b'{"paths": {}', 400),
        (b"[" * 100_000, 400),
        (b'{"paths":' + b"[" * 100_000, 400),
        (b"nothing=x", 400),
        (b"paths=%FF", 400),
        (b"", 400),
        (b"&".join([b"paths=a.txt"] * 2000), 400),
    ],
)
def test_paths_are_told_of_or_the_list_refused(app: HubApi, body: bytes, status: int) -> None:
    got = ask(app, "/api/models/ada/x/paths-info/main", method="POST", body=body)
    assert got.status == status
    if status == 200:
        assert [entry["type"] for entry in got.json()] == ["file", "directory"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_can_be_written(app: HubApi, method: str, core: Core) -> None:
    for path in (FILE, "/api/models/ada/x", "/api/models/ada/x/tree/main", "/api/whoami-v2"):
        got = ask(app, path, method=method, who=core.principal)
        assert (got.status, got.headers["allow"]) == (405, "GET, HEAD")


def test_whoami_needs_a_login_and_says_what_the_token_may(app: HubApi, core: Core) -> None:
    assert ask(app, "/api/whoami-v2").status == 401
    said = ask(app, "/api/whoami-v2", who=core.principal).json()
    assert (said["name"], said["orgs"]) == ("ada", [])
    assert said["auth"]["accessToken"]["role"] == "write"
