"""Who may see and change what: nothing leaks, nothing is stolen."""

import base64
import hashlib
import hmac
import json
import os
import re
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest
from conftest import Person, on_both_databases
from memcube_protocol.digest import Digest
from support.repository import IMAGE, INDEX, Repository
from support.samples import Sample, one_image, to_json
from support.servers import MemcubeServer
from support.wire import Reply, Wire

pytestmark = on_both_databases


@pytest.fixture(scope="module")
def private(ada: Person) -> tuple[Repository, Sample]:
    """Ada's cube, private as every new one, and what is in it."""
    repository, sample = ada.repository("diary"), one_image()
    subject = sample.manifests[sample.top]
    sample.artifact(
        subject={"mediaType": IMAGE, "digest": str(sample.top), "size": len(subject)}, tag="note"
    )
    sample.push(repository)
    return repository, sample


Private = tuple[Repository, Sample]


def secrets_of(sample: Sample) -> dict[Digest, bytes]:
    """The blobs that nobody else has: the empty JSON is everybody's."""
    return {digest: content for digest, content in sample.blobs.items() if content != b"{}"}


def every_request(repository: Repository, blob: Digest, top: Digest) -> dict[str, Reply]:
    """The answer to every kind of request about `repository`."""
    content = os.urandom(16)
    body = to_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": []})
    return {
        "head blob": repository.head_blob(blob),
        "get blob": repository.get_blob(blob),
        "get range": repository.get_blob(blob, "bytes=0-1"),
        "head manifest": repository.head_manifest(top),
        "get manifest": repository.get_manifest(top),
        "get tag": repository.get_manifest("v1"),
        "tags": repository.list_tags(),
        "referrers": repository.list_referrers(top),
        "start upload": repository.start_upload(),
        "post blob": repository.post_blob(content, Digest.of(content)),
        "mount": repository.mount(blob, repository.name),
        "put manifest": repository.put_manifest("intruder", body, INDEX),
        "delete blob": repository.delete_blob(blob),
        "delete manifest": repository.delete_manifest(top),
        "delete tag": repository.delete_manifest("v1"),
        "continue upload": repository.wire.get(repository.path(f"blobs/uploads/{'0' * 32}")),
    }


READS = ["head blob", "get blob", "get range", "head manifest", "get manifest", "get tag", "tags",
         "referrers"]  # fmt: skip


class TestStrangers:
    def test_see_nothing_of_a_private_cube(self, private: Private, bob: Person) -> None:
        repository, sample = private
        seen = repository.seen_by(bob.wire)
        replies = every_request(seen, next(iter(sample.blobs)), sample.top)
        assert {name: replies[name].status for name in READS} == dict.fromkeys(READS, 404)

    def test_change_nothing_of_a_private_cube(self, private: Private, bob: Person) -> None:
        repository, sample = private
        before = (repository.tags(), repository.get_manifest("v1").body)
        replies = every_request(repository.seen_by(bob.wire), next(iter(sample.blobs)), sample.top)
        changes = {name: reply.status for name, reply in replies.items() if name not in READS}
        assert set(changes.values()) <= {403, 404}, changes
        assert (repository.tags(), repository.get_manifest("v1").body) == before

    def test_cannot_tell_a_private_cube_from_an_absent_one(
        self, private: Private, ada: Person, bob: Person
    ) -> None:
        repository, sample = private
        absent = Repository(bob.wire, f"{ada.name}/absent")
        blob = next(iter(sample.blobs))
        there = every_request(repository.seen_by(bob.wire), blob, sample.top)
        nowhere = every_request(absent, blob, sample.top)
        for name, reply in there.items():
            assert comparable(reply, "diary") == comparable(nowhere[name], "absent"), name

    def test_cannot_tell_it_without_a_login_either(self, private: Private, ada: Person) -> None:
        repository, sample = private
        absent = Repository(ada.server.wire, f"{ada.name}/absent")
        blob = next(iter(sample.blobs))
        there = every_request(repository.seen_by(ada.server.wire), blob, sample.top)
        nowhere = every_request(absent, blob, sample.top)
        for name, reply in there.items():
            assert reply.status == 401, name
            assert comparable(reply, "diary") == comparable(nowhere[name], "absent"), name

    def test_cannot_push_into_the_namespace_of_another(self, ada: Person, bob: Person) -> None:
        for name in (f"{ada.name}/new", f"{ada.name}/diary", "nobody-at-all/new"):
            reply = Repository(bob.wire, name).start_upload()
            assert reply.status in {403, 404}

    def test_cannot_continue_an_upload_of_another(self, ada: Person, bob: Person) -> None:
        location = ada.repository("diary").upload_location()
        forged = location.replace(f"/{ada.name}/diary/", f"/{bob.name}/own/")
        own = bob.repository("own")
        own.add_blob(b"{}")
        for target in (location, forged):
            for reply in (
                bob.wire.get(target),
                bob.wire.patch(target, body=b"x"),
                bob.wire.put(f"{target}?digest={Digest.of(b'x')}", body=b"x"),
                bob.wire.delete(target),
            ):
                assert reply.status in {403, 404}
        assert ada.wire.get(location).status == 204


def comparable(reply: Reply, name: str) -> tuple[int, bytes, list[tuple[str, str]]]:
    """What of `reply` must not depend on whether something is there."""
    varying = {"date", "x-request-id", "content-length", "connection"}
    headers = [
        (key.lower(), value.replace(name, "NAME"))
        for key, value in reply.headers.items()
        if key.lower() not in varying
    ]
    body = re.sub(rb"[0-9a-f]{8}-[0-9a-f-]{27}", b"ID", reply.body.replace(name.encode(), b"NAME"))
    return reply.status, body, sorted(headers)


class TestTheft:
    """A digest is no right: it is printed in public manifests and can be guessed."""

    def test_a_private_blob_cannot_be_mounted(self, private: Private, bob: Person) -> None:
        repository, sample = private
        thief = bob.repository()
        for digest in secrets_of(sample):
            for source in (repository.name, None, thief.name):
                assert thief.mount(digest, source).status == 202
            assert thief.head_blob(digest).status == 404

    def test_a_private_blob_cannot_be_had_by_naming_it_in_a_manifest(
        self, private: Private, bob: Person
    ) -> None:
        _, sample = private
        thief = bob.repository()
        thief.add_blob(b"{}")
        content = sample.manifests[next(iter(sample.manifests))]
        assert thief.put_manifest("stolen", content).status in {400, 404}
        assert thief.get_manifest("stolen").status == 404
        for digest in secrets_of(sample):
            assert thief.head_blob(digest).status == 404
            assert thief.get_blob(digest).status == 404

    def test_a_private_manifest_cannot_be_had_by_naming_it_in_an_index(
        self, private: Private, bob: Person
    ) -> None:
        _, sample = private
        thief = bob.repository()
        thief.add_blob(b"{}")
        child = {"mediaType": IMAGE, "digest": str(sample.top), "size": 1}
        child["size"] = len(sample.manifests[sample.top])
        content = to_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": [child]})
        assert thief.put_manifest("stolen", content, INDEX).status in {400, 404}
        assert thief.get_manifest(sample.top).status == 404

    def test_a_private_manifest_cannot_be_had_by_naming_it_as_subject(
        self, private: Private, bob: Person
    ) -> None:
        repository, sample = private
        thief, hook = bob.repository(), Sample()
        subject = {"mediaType": IMAGE, "digest": str(sample.top), "size": 1}
        hook.artifact(subject=subject)
        hook.push(thief)
        assert thief.get_manifest(sample.top).status == 404
        assert str(hook.top) not in {e["digest"] for e in repository.referrers(sample.top)}

    def test_pushing_the_same_bytes_is_possible_and_tells_nothing(
        self, private: Private, bob: Person
    ) -> None:
        _, sample = private
        digest, content = next(iter(sample.blobs.items()))
        thief = bob.repository()
        promised = thief.post_blob(content[:-1], digest)
        assert promised.status == 400
        fresh = os.urandom(len(content))
        unknown = thief.post_blob(fresh[:-1], Digest.of(fresh))
        assert unknown.status == 400
        scrub = re.compile(rb"[0-9a-f]{32,}")
        assert scrub.sub(b"", promised.body) == scrub.sub(b"", unknown.body)
        assert thief.add_blob(content) == digest

    def test_deleting_ones_own_copy_leaves_that_of_the_other(
        self, private: Private, bob: Person
    ) -> None:
        repository, sample = private
        digest, content = next(iter(sample.blobs.items()))
        copy = bob.repository()
        copy.add_blob(content)
        assert copy.delete_blob(digest).status == 202
        assert repository.get_blob(digest).body == content


@pytest.fixture(scope="module")
def public(ada: Person) -> Private:
    """A cube of Ada's that everybody may read."""
    repository, sample = ada.repository("paper"), one_image()
    sample.push(repository)
    target = f"/api/v1/cubes/{repository.name}"
    body = json.dumps({"visibility": "public"}).encode()
    reply = ada.wire.put(target, body=body, headers={"Content-Type": "application/json"})
    assert reply.status == 200, reply
    return repository, sample


class TestPublicCubes:
    def test_are_read_by_everybody_and_changed_by_their_owner(
        self, public: Private, bob: Person
    ) -> None:
        repository, sample = public
        for wire in (bob.wire, bob.server.wire):
            seen = repository.seen_by(wire)
            replies = every_request(seen, next(iter(sample.blobs)), sample.top)
            assert {replies[name].status for name in READS} <= {200, 206}
            changes = {name: reply.status for name, reply in replies.items() if name not in READS}
            assert set(changes.values()) <= {401, 403}, changes
        assert repository.tags() == ["v1"]

    def test_lend_their_blobs_to_mounts(self, public: Private, bob: Person) -> None:
        repository, sample = public
        copy = bob.repository()
        for digest, content in sample.blobs.items():
            assert copy.mount(digest, repository.name).status == 201
            assert copy.get_blob(digest).body == content

    def test_are_not_made_public_by_strangers(self, private: Private, bob: Person) -> None:
        repository, _ = private
        target = f"/api/v1/cubes/{repository.name}"
        body = json.dumps({"visibility": "public"}).encode()
        for wire in (bob.wire, bob.server.wire):
            reply = wire.put(target, body=body, headers={"Content-Type": "application/json"})
            assert reply.status in {401, 403, 404}
        assert repository.seen_by(bob.wire).get_manifest("v1").status == 404

    def test_are_read_with_a_handshake_token_of_nobody(self, public: Private, ada: Person) -> None:
        repository, _ = public
        token = handshake_token(ada.server.wire, f"repository:{repository.name}:pull")
        seen = repository.seen_by(ada.server.wire.bearer(token))
        assert seen.get_manifest("v1").status == 200
        assert seen.start_upload().status in {401, 403}


class TestTokens:
    def test_wrong_credentials_are_401_with_a_challenge(self, memcube: MemcubeServer) -> None:
        for wire in (
            memcube.wire.bearer("mct_" + "A" * 43),
            memcube.wire.bearer("nonsense"),
            memcube.wire.basic("ada", "wrong"),
        ):
            reply = wire.get("/v2/")
            assert reply.status == 401
            assert reply.header("WWW-Authenticate")

    def test_a_token_in_the_query_is_no_credential(self, ada: Person) -> None:
        path = ada.repository("diary").path("tags/list")
        for name in ("access_token", "token", "authorization"):
            assert ada.server.wire.get(f"{path}?{name}={ada.token}").status == 401

    def test_a_revoked_token_is_refused_at_once(self, ada: Person) -> None:
        token = ada.server.create_token(ada.name, "pull")
        wire = ada.server.wire.bearer(token)
        assert wire.get("/v2/").status == 200
        handshake = handshake_token(ada.server.wire.basic(ada.name, token), "")
        assert ada.server.wire.bearer(handshake).get("/v2/").status == 200
        revoke_newest(ada)
        assert wire.get("/v2/").status == 401
        assert ada.server.wire.basic(ada.name, token).get("/v2/").status == 401
        assert ada.server.wire.bearer(handshake).get("/v2/").status == 401

    def test_an_expired_token_is_refused(self, ada: Person) -> None:
        done = ada.server.admin(
            "token", "create", ada.name, "--scope", "pull", "--days", "0.00002", "--quiet"
        )
        wire = ada.server.wire.bearer(done.stdout.strip())
        deadline = time.monotonic() + 10
        while wire.get("/v2/").status == 200 and time.monotonic() < deadline:
            time.sleep(0.2)
        assert wire.get("/v2/").status == 401

    def test_a_token_that_may_pull_cannot_push_or_delete(
        self, private: Private, ada: Person
    ) -> None:
        repository, sample = private
        token = ada.server.create_token(ada.name, "pull")
        seen = repository.seen_by(ada.server.wire.bearer(token))
        replies = every_request(seen, next(iter(sample.blobs)), sample.top)
        assert {name: replies[name].status for name in READS if name != "get range"} == {
            name: 200 for name in READS if name != "get range"
        }
        changes = {name: reply.status for name, reply in replies.items() if name not in READS}
        assert set(changes.values()) <= {401, 403}, changes

    def test_a_token_that_may_push_cannot_delete(self, private: Private, ada: Person) -> None:
        repository, sample = private
        seen = repository.seen_by(ada.server.wire.bearer(ada.server.create_token(ada.name, "push")))
        assert seen.start_upload().status == 202
        assert seen.delete_manifest("v1").status in {401, 403}
        assert seen.delete_blob(next(iter(sample.blobs))).status in {401, 403}

    def test_a_token_for_one_cube_is_none_for_another(self, private: Private, ada: Person) -> None:
        repository, sample = private
        token = ada.server.create_token(ada.name, f"push:{ada.name}/other", "delete:x/y")
        wire = ada.server.wire.bearer(token)
        assert Repository(wire, f"{ada.name}/other").start_upload().status == 202
        replies = every_request(repository.seen_by(wire), next(iter(sample.blobs)), sample.top)
        assert {reply.status for reply in replies.values()} <= {401, 403, 404}


def revoke_newest(person: Person) -> None:
    """Revoke the token that the person got last."""
    rows = person.server.admin("token", "list", person.name).stdout.splitlines()
    newest = max(int(row.split("\t")[0]) for row in rows)
    person.server.admin("token", "revoke", person.name, str(newest))


def challenge(wire: Wire, path: str) -> dict[str, str]:
    """Parameters of the Bearer challenge that `path` answers."""
    reply = wire.get(path)
    assert reply.status == 401
    value = reply.header("WWW-Authenticate") or ""
    assert value.startswith("Bearer ")
    return dict(re.findall(r'(\w+)="([^"]*)"', value))


def handshake_token(wire: Wire, scope: str) -> str:
    """A token from the endpoint that the challenge of `/v2/` names."""
    parameters = challenge(wire.anonymous(), "/v2/")
    realm = urlsplit(parameters["realm"])
    query = f"service={parameters['service']}" + (f"&scope={scope}" if scope else "")
    reply = wire.get(f"{realm.path}?{query}")
    assert reply.status == 200, reply
    document = reply.json()
    return str(document.get("token") or document["access_token"])


class TestHandshake:
    def test_a_token_is_had_with_basic_credentials_and_works(
        self, private: Private, ada: Person
    ) -> None:
        repository, _ = private
        basic = ada.server.wire.basic(ada.name, ada.token)
        token = handshake_token(basic, f"repository:{repository.name}:pull,push")
        seen = repository.seen_by(ada.server.wire.bearer(token))
        assert seen.get_manifest("v1").status == 200
        assert seen.start_upload().status == 202

    def test_the_challenge_names_the_scope_that_is_missing(self, ada: Person) -> None:
        parameters = challenge(ada.server.wire, f"/v2/{ada.name}/diary/manifests/v1")
        assert parameters["scope"] == f"repository:{ada.name}/diary:pull"
        reply = ada.server.wire.post(f"/v2/{ada.name}/diary/blobs/uploads/")
        assert f'scope="repository:{ada.name}/diary:' in (reply.header("WWW-Authenticate") or "")
        assert "push" in (reply.header("WWW-Authenticate") or "")

    def test_the_realm_does_not_come_from_the_host_header(self, ada: Person) -> None:
        own = "127.0.0.1:1"
        for name, value, host, status in (
            ("Accept", "*/*", own, b" 401 "),
            (
                "Host",
                "evil.example",
                None,
                b" 403 ",
            ),  # only this machine can ask it: see `Entrance`
            ("X-Forwarded-Host", "evil.example", own, b" 401 "),
            ("Forwarded", "host=evil.example", own, b" 401 "),
        ):
            lines = [f"GET /v2/{ada.name}/diary/tags/list HTTP/1.1", "Connection: close"]
            lines += [f"{name}: {value}", *([f"Host: {host}"] if host else [])]
            answer = ada.server.wire.exchange("\r\n".join([*lines, "", ""]).encode())
            assert status in answer.splitlines()[0]
            assert b"evil.example" not in answer
            assert (f'realm="{ada.server.url}/'.encode() in answer) == (status == b" 401 ")

    def test_locations_do_not_come_from_the_host_header(self, ada: Person) -> None:
        reply = ada.wire.post(
            f"/v2/{ada.name}/diary/blobs/uploads/", headers={"X-Forwarded-Host": "evil.example"}
        )
        assert "evil.example" not in (reply.header("Location") or "")

    def test_wrong_credentials_get_no_token(self, ada: Person) -> None:
        parameters = challenge(ada.server.wire, "/v2/")
        path = urlsplit(parameters["realm"]).path
        wire = ada.server.wire.basic(ada.name, "mct_" + "B" * 43)
        assert wire.get(f"{path}?service={parameters['service']}").status == 401

    def test_the_credentials_of_one_are_not_taken_under_the_name_of_another(
        self, ada: Person, bob: Person
    ) -> None:
        assert ada.server.wire.basic(bob.name, ada.token).get("/v2/").status == 401

    def test_asking_for_more_than_one_may_gives_no_right(
        self, private: Private, ada: Person, bob: Person
    ) -> None:
        repository, _ = private
        basic = ada.server.wire.basic(bob.name, bob.token)
        token = handshake_token(basic, f"repository:{repository.name}:pull,push,delete")
        seen = repository.seen_by(ada.server.wire.bearer(token))
        assert seen.get_manifest("v1").status in {401, 404}
        assert seen.start_upload().status in {401, 403, 404}

    @pytest.mark.parametrize("forge", ["none", "stripped", "other key", "payload"])
    def test_a_forged_token_is_refused(
        self, private: Private, ada: Person, bob: Person, forge: str
    ) -> None:
        repository, _ = private
        token = handshake_token(ada.server.wire.basic(bob.name, bob.token), "")
        forged = FORGERIES[forge](token, ada.name)
        assert forged != token
        seen = repository.seen_by(ada.server.wire.bearer(forged))
        assert seen.get_manifest("v1").status == 401


def encode(document: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).decode().rstrip("=")


def decode(part: str) -> dict[str, object]:
    return dict(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))))


def _unsigned(token: str, name: str) -> str:
    _, payload, _ = token.split(".")
    return f"{encode({'alg': 'none', 'typ': 'JWT'})}.{encode(decode(payload) | {'sub': name})}."


def _stripped(token: str, name: str) -> str:
    return ".".join(token.split(".")[:2]) + "."


def _other_key(token: str, name: str) -> str:
    header, payload, _ = token.split(".")
    signed = f"{header}.{encode(decode(payload) | {'sub': name})}"
    mac = hmac.new(b"", signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"


def _payload(token: str, name: str) -> str:
    header, payload, signature = token.split(".")
    return f"{header}.{encode(decode(payload) | {'sub': name})}.{signature}"


FORGERIES: dict[str, Callable[[str, str], str]] = {
    "none": _unsigned,
    "stripped": _stripped,
    "other key": _other_key,
    "payload": _payload,
}


class TestLog:
    def test_no_secret_reaches_the_log(self, private: Private, ada: Person, bob: Person) -> None:
        repository, _ = private
        wrong = "mct_" + "Wr0ngT0ken" * 4 + "xyz"
        server = ada.server
        basic = server.wire.basic(ada.name, ada.token)
        handshake = handshake_token(basic, f"repository:{repository.name}:pull")
        for wire in (
            ada.wire,
            bob.wire,
            basic,
            server.wire.bearer(handshake),
            server.wire.bearer(wrong),
            server.wire.basic("someone", wrong),
        ):
            repository.seen_by(wire).get_manifest("v1")
            repository.seen_by(wire).start_upload()
        server.wire.get(f"/v2/?token={wrong}")
        server.wire.get("/v2/", headers={"Cookie": f"session={wrong}"})
        log = server.log_text()
        for secret in (ada.token, bob.token, handshake, wrong, (basic.authorization or "")[6:]):
            assert secret not in log
            assert secret[8:40] not in log

    def test_a_request_cannot_write_lines_into_the_log(self, ada: Person) -> None:
        marker = os.urandom(6).hex()
        ada.wire.get(f"/v2/x%0a{marker}/y/tags/list")
        ada.wire.get("/v2/", headers={"User-Agent": f"a\x1b[31m{marker}"})
        lines = ada.server.log_text().splitlines()
        assert not any(line.startswith(marker) for line in lines)
        assert "\x1b" not in ada.server.log_text()

    def test_an_error_tells_nothing_of_the_inside(self, ada: Person) -> None:
        for target in ("/v2/%ff", "/v2/a/b/manifests/x%ff", "/api/v1/nothing", "/no/such/page"):
            body = ada.wire.get(target).body
            assert b"Traceback" not in body
            assert str(ada.server.data).encode() not in body
            assert b"site-packages" not in body
