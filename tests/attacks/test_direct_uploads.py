"""Attacks on direct uploads: other bytes, late bytes, other people's uploads, requests that make no sense."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import ALL_SCOPES, NO_LIMITS, Person, fresh
from memcube_protocol.digest import Digest
from support.direct import put
from support.moto import moto_server
from support.repository import Repository
from support.servers import MemcubeServer, memcube_server
from support.swift import ACCESS_KEY, REGION, SECRET_KEY, SwiftServer
from support.wire import Reply, Wire

MIB = 1 << 20
UPLOADS = "/api/v1/uploads"
SETTINGS = NO_LIMITS | {"MEMCUBE_REGISTRY_S3_WHOLE_BYTES": str(8 * MIB)}


@pytest.fixture(scope="module")
def on_swift(
    s3_server: SwiftServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MemcubeServer]:
    """A registry whose store checks what clients put."""
    settings = SETTINGS | s3_server.registry_settings()
    with memcube_server(tmp_path_factory.mktemp("direct"), settings) as server:
        yield server


@pytest.fixture(scope="module")
def on_moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MemcubeServer]:
    """A registry whose store takes whatever clients put."""
    with moto_server() as store:
        settings = SETTINGS | {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "MEMCUBE_REGISTRY_STORAGE": "s3",
            "MEMCUBE_REGISTRY_S3_BUCKET": store.bucket(),
            "MEMCUBE_REGISTRY_S3_ENDPOINT_URL": store.endpoint_url,
            "MEMCUBE_REGISTRY_S3_REGION": REGION,
            "MEMCUBE_REGISTRY_S3_PATH_STYLE": "true",
        }
        with memcube_server(tmp_path_factory.mktemp("careless"), settings) as server:
            yield server


@pytest.fixture(params=["on_swift", "on_moto"])
def server(request: pytest.FixtureRequest) -> MemcubeServer:
    found: MemcubeServer = request.getfixturevalue(request.param)
    return found


def person_on(server: MemcubeServer, quota: str | None = None) -> Person:
    name = fresh("person")
    server.admin("account", "create", name, *(["--quota", quota] if quota else []))
    return Person(server, name, server.create_token(name, *ALL_SCOPES))


_KNOWN: dict[tuple[int, str], Person] = {}


def known(server: MemcubeServer, who: str) -> Person:
    """Somebody on `server` whom tests share: making a person takes two commands."""
    key = (server.port, who)
    if key not in _KNOWN:
        _KNOWN[key] = person_on(server)
    return _KNOWN[key]


@pytest.fixture
def ann(server: MemcubeServer) -> Person:
    return known(server, "ann")


def ask(wire: Wire, method: str, rest: str = "", value: Any = None) -> Reply:
    body = None if value is None else json.dumps(value).encode()
    headers = {"Content-Type": "application/json"} if body else {}
    return wire.send(method, f"{UPLOADS}{rest}", body=body, headers=headers)


def announce(repository: Repository, content: bytes, **more: Any) -> Reply:
    value = {
        "repository": repository.name,
        "digest": str(Digest.of(content)),
        "sizeBytes": len(content),
    }
    return ask(repository.wire, "POST", "", value | more)


def begin(repository: Repository, content: bytes) -> dict[str, Any]:
    reply = announce(repository, content)
    assert reply.status == 200, reply
    view: dict[str, Any] = reply.json()
    assert view["state"] == "open"
    return view


def sign(repository: Repository, view: dict[str, Any], content: bytes, number: int = 1) -> Any:
    start = (number - 1) * view["partBytes"]
    part = content[start : start + view["partBytes"]]
    wanted = {"number": number, "sha256": hashlib.sha256(part).hexdigest()}
    reply = ask(repository.wire, "POST", f"/{view['id']}/requests", {"parts": [wanted]})
    assert reply.status == 200, reply
    (signed,) = reply.json()["requests"]
    return signed


def send(repository: Repository, view: dict[str, Any], content: bytes) -> None:
    for number in range(1, view["partCount"] + 1):
        signed = sign(repository, view, content, number)
        start = (number - 1) * view["partBytes"]
        part = content[start : start + view["partBytes"]]
        assert put(signed["url"], signed["headers"], part) == 200


def complete(repository: Repository, view: dict[str, Any]) -> Reply:
    return ask(repository.wire, "POST", f"/{view['id']}/completion")


def pulled(repository: Repository, content: bytes) -> bytes | None:
    """What the repository gives for the digest of `content`."""
    import urllib3

    reply = repository.get_blob(Digest.of(content))
    if reply.status == 307:
        return urllib3.request("GET", reply.header("Location") or "").data
    return reply.body if reply.status == 200 else None


@pytest.mark.parametrize("size", [5 * MIB, 40 * MIB])
def test_bytes_that_never_passed_the_registry_are_a_blob(ann: Person, size: int) -> None:
    repository, content = ann.repository(), os.urandom(size)
    view = begin(repository, content)
    send(repository, view, content)
    assert pulled(repository, content) is None
    reply = complete(repository, view)
    assert reply.status == 201, reply
    is_read_back = size > 8 * MIB or view["partSha256"] or "checksum" not in reply.json()["proof"]
    assert reply.json() == {
        "state": "complete",
        "digest": str(Digest.of(content)),
        "sizeBytes": size,
        "proof": "readBack" if is_read_back else "checksum",
        "readBackBytes": size if is_read_back else 0,
    }
    assert pulled(repository, content) == content


@pytest.mark.parametrize("wrong", ["other", "longer", "shorter", "empty"])
def test_a_wrong_body_never_becomes_the_blob(ann: Person, wrong: str) -> None:
    """Refused by a store that checks, or found out when it is read back."""
    repository, content = ann.repository(), os.urandom(100_000)
    bodies = {
        "other": os.urandom(100_000),
        "longer": content + b"x",
        "shorter": content[:-1],
        "empty": b"",
    }
    view = begin(repository, content)
    signed = sign(repository, view, content)
    status = put(signed["url"], signed["headers"], bodies[wrong])
    reply = complete(repository, view)
    assert reply.status in (400, 409), reply
    assert status in (200, 400, 403)
    if view["partCount"] == 1 and "x-amz-checksum-sha256" in signed["headers"]:
        assert status != 200
    assert pulled(repository, content) is None
    assert pulled(repository, bodies[wrong]) is None


@pytest.mark.parametrize("size", [100_000, 9 * MIB])
def test_a_second_body_on_the_same_request_changes_nothing(ann: Person, size: int) -> None:
    repository, content = ann.repository(), os.urandom(size)
    view = begin(repository, content)
    signed = sign(repository, view, content)
    send(repository, view, content)
    assert complete(repository, view).status == 201
    for late in (os.urandom(size), content):
        put(signed["url"], signed["headers"], late)
        assert pulled(repository, content) == content


def test_a_second_body_before_the_end_changes_nothing_either(ann: Person) -> None:
    repository, content = ann.repository(), os.urandom(100_000)
    view = begin(repository, content)
    signed = sign(repository, view, content)
    assert put(signed["url"], signed["headers"], content) == 200
    second = put(signed["url"], signed["headers"], os.urandom(100_000))
    reply = complete(repository, view)
    if second == 200:  # a careless store: found out, nothing is visible
        assert reply.status == 400, reply
        assert pulled(repository, content) is None
    else:
        assert reply.status == 201, reply
        assert pulled(repository, content) == content


def test_requests_for_two_contents_of_one_part_cannot_be_had(ann: Person) -> None:
    """Else the second one, used once the blob is visible, would destroy it for all who share it."""
    repository, content, other = ann.repository(), os.urandom(9 * MIB), os.urandom(9 * MIB)
    view = begin(repository, content)
    signed = sign(repository, view, content)
    if not view["partSha256"]:
        return  # this store takes no part once they are joined
    assert sign(repository, view, content)["headers"] == signed["headers"]
    wanted = {"number": 1, "sha256": hashlib.sha256(other[: view["partBytes"]]).hexdigest()}
    reply = ask(repository.wire, "POST", f"/{view['id']}/requests", {"parts": [wanted]})
    assert reply.status == 404, reply
    assert ask(repository.wire, "GET", f"/{view['id']}").status == 404
    again = begin(repository, content)
    assert again["id"] != view["id"]
    send(repository, again, content)
    assert complete(repository, again).status == 201
    put(signed["url"], signed["headers"], content[: view["partBytes"]])
    assert pulled(repository, content) == content


def test_a_request_is_still_good_for_nothing_after_the_blob_was_deleted(ann: Person) -> None:
    repository, content = ann.repository(), os.urandom(100_000)
    view = begin(repository, content)
    signed = sign(repository, view, content)
    send(repository, view, content)
    assert complete(repository, view).status == 201
    assert repository.delete_blob(Digest.of(content)).status == 202
    put(signed["url"], signed["headers"], content)
    assert complete(repository, view).status == 404
    assert pulled(repository, content) is None


def test_other_bytes_under_right_checksums_are_found_out(ann: Person) -> None:
    """Every part is what its request binds; only reading back tells that the blob is another."""
    repository, content, other = ann.repository(), os.urandom(9 * MIB), os.urandom(9 * MIB)
    view = begin(repository, content)
    send(repository, view, other)
    reply = complete(repository, view)
    assert reply.status == 400, reply
    assert reply.json()["code"] == "digest-mismatch"
    assert pulled(repository, content) is None
    assert ask(ann.wire, "GET", f"/{view['id']}").status == 404


def test_a_part_of_one_upload_is_none_of_another(ann: Person) -> None:
    repository, content, other = ann.repository(), os.urandom(9 * MIB), os.urandom(9 * MIB)
    first, second = begin(repository, content), begin(repository, other)
    assert first["id"] != second["id"]
    send(repository, first, content)
    assert complete(repository, second).status == 409


def test_uploads_of_others_cannot_be_seen_signed_completed_or_ended(
    server: MemcubeServer, ann: Person
) -> None:
    repository, content = ann.repository(), os.urandom(1000)
    view, bob = begin(repository, content), known(server, "bob")
    for wire, refusals in ((bob.wire, {404}), (ann.wire.anonymous(), {401, 404})):
        assert ask(wire, "GET", f"/{view['id']}").status in refusals
        wanted = {"parts": [{"number": 1, "sha256": "0" * 64}]}
        assert ask(wire, "POST", f"/{view['id']}/requests", wanted).status in refusals
        assert ask(wire, "POST", f"/{view['id']}/completion").status in refusals
        assert ask(wire, "DELETE", f"/{view['id']}").status in refusals
    theirs = announce(Repository(bob.wire, repository.name), content)
    assert theirs.status in (401, 403, 404)
    send(repository, view, content)
    assert complete(repository, view).status == 201


def test_a_token_that_may_only_read_announces_nothing(server: MemcubeServer, ann: Person) -> None:
    reader = server.wire.bearer(server.create_token(ann.name, "pull"))
    reply = announce(Repository(reader, f"{ann.name}/cube"), b"x")
    assert reply.status in (401, 403)


def test_what_does_not_fit_is_refused_before_a_byte_is_sent(server: MemcubeServer) -> None:
    repository = person_on(server, "20MiB").repository()
    view = begin(repository, os.urandom(15 * MIB))
    refused = announce(repository, os.urandom(6 * MIB))
    assert refused.status == 413, refused
    assert refused.json()["code"] == "quota-exceeded"
    assert ask(repository.wire, "DELETE", f"/{view['id']}").status == 204
    assert announce(repository, os.urandom(6 * MIB)).status == 200


def test_a_digest_of_a_cube_that_one_may_not_read_cannot_be_had_by_announcing_it(
    server: MemcubeServer, ann: Person
) -> None:
    hidden, content = ann.repository(), os.urandom(1000)
    hidden.add_blob(content)
    bob = known(server, "bob").repository()
    for more in ({}, {"mountFrom": hidden.name}):
        reply = announce(bob, content, **more)
        assert reply.json()["state"] == "open", reply
    assert bob.get_blob(Digest.of(content)).status == 404


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"repository": "ann/x"},
        {"repository": "x", "digest": "sha256:" + "0" * 64, "sizeBytes": 1},
        {"repository": "../x/y", "digest": "sha256:" + "0" * 64, "sizeBytes": 1},
        {"repository": "{own}/x", "digest": "sha256:" + "0" * 64, "sizeBytes": 0},
        {"repository": "{own}/x", "digest": "sha256:" + "0" * 64, "sizeBytes": -1},
        {"repository": "{own}/x", "digest": "sha256:" + "0" * 64, "sizeBytes": 1 << 61},
        {"repository": "{own}/x", "digest": "sha256:" + "0" * 64, "sizeBytes": "many"},
        {"repository": "{own}/x", "digest": "md5:" + "0" * 32, "sizeBytes": 1},
        {"repository": "{own}/x", "digest": "sha256:" + "0" * 64, "sizeBytes": 1, "more": 1},
    ],
)
def test_announcements_that_make_no_sense_are_refused(ann: Person, value: dict[str, Any]) -> None:
    named = {k: v.replace("{own}", ann.name) if isinstance(v, str) else v for k, v in value.items()}
    reply = ask(ann.wire, "POST", "", named)
    assert reply.status in (400, 403, 404, 413), reply
    assert reply.json()["code"]


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [{"number": 0, "sha256": "0" * 64}],
        [{"number": 2, "sha256": "0" * 64}],
        [{"number": 1, "sha256": "0" * 63}],
        [{"number": 1, "sha256": "Z" * 64}],
        [{"number": 1, "sha256": "0" * 64}] * 2,
        [{"number": n, "sha256": "0" * 64} for n in range(1, 102)],
        "all",
    ],
)
def test_wishes_for_requests_that_make_no_sense_are_refused(ann: Person, parts: Any) -> None:
    view = begin(ann.repository(), os.urandom(1000))
    reply = ask(ann.wire, "POST", f"/{view['id']}/requests", {"parts": parts})
    assert reply.status == 400, reply


@pytest.mark.parametrize("upload", ["x", "0" * 32, "..%2f..", "%00", "a" * 500])
def test_uploads_that_were_never_begun_are_unknown(ann: Person, upload: str) -> None:
    for method, rest in (("GET", ""), ("POST", "/completion"), ("DELETE", "")):
        assert ask(ann.wire, method, f"/{upload}{rest}").status in (400, 404), upload


def test_a_direct_upload_takes_no_bytes_through_the_registry(ann: Person) -> None:
    repository, content = ann.repository(), os.urandom(1000)
    view = begin(repository, content)
    location = repository.path(f"blobs/uploads/{view['id']}")
    assert ann.wire.get(location).status == 404
    assert repository.patch(location, content, start=0).status == 404
    assert repository.finish_upload(location, Digest.of(content), content).status == 404
    assert ann.wire.delete(location).status == 404
    assert ask(ann.wire, "GET", f"/{view['id']}").status == 200


def test_signed_requests_are_in_no_log(on_swift: MemcubeServer) -> None:
    repository, content = known(on_swift, "ann").repository(), os.urandom(9 * MIB)
    view = begin(repository, content)
    signed = sign(repository, view, content)
    send(repository, view, content)
    assert complete(repository, view).status == 201
    text = on_swift.log_text()
    assert "was read back" in text
    assert str(Digest.of(content)) in text
    signature = signed["url"].partition("X-Amz-Signature=")[2][:64]
    assert len(signature) == 64
    assert signature not in text


def test_what_was_read_back_is_counted(on_swift: MemcubeServer) -> None:
    def counted(name: str) -> float:
        lines = on_swift.wire.get("/metrics").body.decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

    before = counted("memcube_read_back_bytes_total"), counted("memcube_direct_uploads_total")
    repository = known(on_swift, "ann").repository()
    for size in (1000, 9 * MIB):
        content = os.urandom(size)
        view = begin(repository, content)
        send(repository, view, content)
        assert complete(repository, view).status == 201
    assert counted("memcube_read_back_bytes_total") == before[0] + 9 * MIB
    assert counted("memcube_direct_uploads_total") == before[1] + 2


def test_a_registry_that_was_killed_between_the_bytes_and_the_end_goes_on(
    on_swift: MemcubeServer,
) -> None:
    repository, content = known(on_swift, "ann").repository(), os.urandom(9 * MIB)
    view = begin(repository, content)
    send(repository, view, content)
    on_swift.kill()
    on_swift.start()
    again = begin(repository, content)
    assert again["id"] == view["id"]
    assert again["received"] == [1]
    assert complete(repository, again).status == 201
    assert pulled(repository, content) == content


def test_where_operators_forbid_them_there_are_none(s3_server: SwiftServer, tmp_path: Any) -> None:
    settings = SETTINGS | s3_server.registry_settings(S3_WRITES="stream")
    with memcube_server(tmp_path / "stream", settings) as server:
        assert (
            server.wire.get("/.well-known/memcube.json").json()["features"]["directUpload"] is None
        )
        reply = announce(person_on(server).repository(), b"x")
        assert reply.status == 501, reply


def test_a_registry_with_local_files_offers_none(ada: Person) -> None:
    document = ada.wire.get("/.well-known/memcube.json").json()
    assert document["features"]["directUpload"] is None
    assert announce(ada.repository(), b"x").status == 501


def test_requests_say_when_they_run_out(ann: Person) -> None:
    from datetime import datetime

    view = begin(ann.repository(), os.urandom(1000))
    wanted = {"parts": [{"number": 1, "sha256": "0" * 64}]}
    reply = ask(ann.wire, "POST", f"/{view['id']}/requests", wanted)
    left_s = datetime.fromisoformat(reply.json()["expiresAt"]).timestamp() - time.time()
    assert 3000 < left_s <= 3601
