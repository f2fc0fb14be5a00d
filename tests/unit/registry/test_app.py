"""The application in this process: login, the JSON API, health, and how it refuses."""

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from litestar.testing import TestClient
from memcube_registry.accounts import service, tokens
from memcube_registry.accounts.models import Account
from memcube_registry.app import create_app
from memcube_registry.database import Database, utc_now
from memcube_registry.settings import DRAIN_VARIABLE, Settings

NewAccount = Callable[[str], Account]
NewToken = Callable[..., str]
Client = TestClient[Any]
EXTERNAL = "https://memcube.example.org"


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> Settings:
    return Settings(
        data_dir=tmp_path, database_url=database_url, external_url=EXTERNAL, log_level="error"
    )


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    with TestClient(create_app(settings), base_url="http://evil.example.com") as made:
        yield made


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def basic(user: str, password: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def handshake(client: Client, secret: str, *scopes: str, user: str = "alice") -> str:
    answer = client.get("/token", params={"scope": list(scopes)}, headers=basic(user, secret))
    assert answer.status_code == 200, answer.text
    return str(answer.json()["token"])


class TestHandshake:
    def test_the_challenge_names_the_configured_realm_whatever_the_host_header_says(
        self, client: Client
    ) -> None:
        answer = client.get("/v2/alice/notes/manifests/latest")
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == (
            f'Bearer realm="{EXTERNAL}/token",service="memcube.example.org",'
            'scope="repository:alice/notes:pull"'
        )

    @pytest.mark.parametrize(
        ("method", "path", "actions"),
        [
            ("GET", "blobs/sha256:" + "0" * 64, "pull"),
            ("HEAD", "blobs/sha256:" + "0" * 64, "pull,push"),
            ("POST", "blobs/uploads/", "pull,push"),
            ("GET", "blobs/uploads/" + "0" * 32, "pull,push"),
            ("DELETE", "manifests/latest", "pull,delete"),
        ],
    )
    def test_the_challenge_asks_for_the_scope_that_is_needed(
        self, client: Client, method: str, path: str, actions: str
    ) -> None:
        answer = client.request(method, f"/v2/alice/notes/{path}")
        assert answer.status_code == 401
        assert f'scope="repository:alice/notes:{actions}"' in answer.headers["www-authenticate"]

    def test_the_root_asks_everybody_to_log_in(self, client: Client) -> None:
        answer = client.get("/v2/")
        assert answer.status_code == 401
        assert "scope=" not in answer.headers["www-authenticate"]
        anonymous = client.get("/token").json()["token"]
        assert client.get("/v2/", headers=bearer(anonymous)).status_code == 200

    def test_an_api_token_becomes_a_handshake_token(
        self, client: Client, new_account: NewAccount, new_token: NewToken
    ) -> None:
        secret = new_token(new_account("alice"))
        token = handshake(client, secret, "repository:alice/notes:pull,push")
        assert client.get("/v2/", headers=bearer(token)).status_code == 200
        posted = client.post("/v2/alice/notes/blobs/uploads/", headers=bearer(token))
        assert posted.status_code == 202

    def test_a_token_for_one_cube_is_sent_back_for_a_wider_one(
        self, client: Client, new_account: NewAccount, new_token: NewToken
    ) -> None:
        secret = new_token(new_account("alice"))
        token = handshake(client, secret, "repository:alice/notes:pull")
        answer = client.post("/v2/alice/notes/blobs/uploads/", headers=bearer(token))
        assert answer.status_code == 401
        challenge = answer.headers["www-authenticate"]
        assert 'scope="repository:alice/notes:pull,push"' in challenge
        assert 'error="insufficient_scope"' in challenge
        other = client.post("/v2/alice/diary/blobs/uploads/", headers=bearer(token))
        assert other.status_code == 401

    def test_a_revoked_api_token_ends_its_handshake_tokens(
        self, client: Client, database: Database, new_account: NewAccount, new_token: NewToken
    ) -> None:
        alice = new_account("alice")
        token = handshake(client, new_token(alice), "repository:alice/notes:pull")
        with database.write() as session:
            (row,) = tokens.tokens_of(session, alice.id)
            tokens.revoke_token(session, alice.id, row.id, now=utc_now())
        answer = client.get("/v2/", headers=bearer(token))
        assert answer.status_code == 401
        assert answer.json()["errors"][0]["detail"]["code"] == "token-expired"
        assert 'error="invalid_token"' in answer.headers["www-authenticate"]

    def test_a_client_that_knows_only_the_token_logs_in_as_token(
        self, client: Client, new_account: NewAccount, new_token: NewToken
    ) -> None:
        secret = new_token(new_account("alice"))
        token = handshake(client, secret, user="token")
        assert client.get("/api/v1/me", headers=bearer(token)).json()["name"] == "alice"
        form = {"grant_type": "password", "username": "token", "password": secret}
        assert client.post("/token", data=form).status_code == 200

    def test_a_handshake_token_does_not_buy_another(
        self, client: Client, new_account: NewAccount, new_token: NewToken
    ) -> None:
        token = handshake(client, new_token(new_account("alice")))
        assert client.get("/token", headers=bearer(token)).status_code == 401

    def test_wrong_passwords_and_users_get_one_answer(
        self, client: Client, new_account: NewAccount, new_token: NewToken
    ) -> None:
        secret = new_token(new_account("alice"))
        new_account("bob")
        answers = [
            client.get("/token", headers=basic(user, password))
            for user, password in [
                ("alice", "mct_" + "a" * 43),
                ("alice", "hunter2"),
                ("bob", secret),
                ("nobody", secret),
                ("", secret),
            ]
        ]
        assert {answer.status_code for answer in answers} == {401}
        assert len({answer.json()["detail"] for answer in answers}) == 1
        assert answers[0].headers["www-authenticate"].startswith("Basic ")

    @pytest.mark.parametrize(
        "header",
        [
            b"",
            b"Bearer",
            b"Bearer ",
            b"Basic",
            b"Basic !!!",
            b"Basic " + base64.b64encode(b"\xff\xfe:x"),
            b"Digest username=alice",
            b"Bearer " + b"x" * 9000,
            b"Bearer \xff",
            b"mct_" + b"a" * 43,
        ],
    )
    def test_odd_authorization_headers_are_wrong_credentials(
        self, client: Client, header: bytes
    ) -> None:
        answer = client.get("/api/v1/cubes", headers=[(b"authorization", header)])
        assert answer.status_code == 401
        assert answer.json()["code"] == "unauthenticated"

    def test_two_authorization_headers_are_wrong_credentials(
        self, client: Client, new_account: NewAccount, new_token: NewToken
    ) -> None:
        header = ("authorization", f"Bearer {new_token(new_account('alice'))}")
        assert client.get("/api/v1/me", headers=[header]).status_code == 200
        assert client.get("/api/v1/me", headers=[header, header]).status_code == 401

    def test_the_oauth_form_takes_a_password_and_gives_the_api_token_back_when_asked(
        self, client: Client, new_account: NewAccount, new_token: NewToken
    ) -> None:
        secret = new_token(new_account("alice"))
        form = {"grant_type": "password", "username": "alice", "password": secret}
        plain = client.post("/token", data=form | {"scope": "repository:alice/notes:pull"})
        assert plain.status_code == 200
        assert "refresh_token" not in plain.json()
        assert plain.headers["cache-control"] == "no-store"
        offline = client.post("/token", data=form | {"access_type": "offline"}).json()
        again = {"grant_type": "refresh_token", "refresh_token": offline["refresh_token"]}
        refreshed = client.post("/token", data=again)
        token = refreshed.json()["access_token"]
        assert client.get("/v2/", headers=bearer(token)).status_code == 200

    @pytest.mark.parametrize(
        ("form", "status"),
        [
            ({}, 400),
            ({"grant_type": "client_credentials"}, 400),
            ({"grant_type": "password", "username": "alice"}, 400),
            ({"grant_type": "password", "username": "alice", "password": "x"}, 401),
            ({"grant_type": "refresh_token", "refresh_token": "mct_" + "a" * 43}, 401),
            ({"grant_type": ["password", "refresh_token"]}, 400),
            ({"grant_type": "password", "x": "y" * 70_000}, 413),
        ],
    )
    def test_other_forms_are_refused(
        self, client: Client, form: dict[str, Any], status: int
    ) -> None:
        assert client.post("/token", data=form).status_code == status

    def test_without_anonymous_pull_nobody_gets_an_anonymous_token(
        self, settings: Settings, database: Database
    ) -> None:
        closed = replace(settings, anonymous_pull=False)
        with TestClient(create_app(closed)) as client:
            assert client.get("/token").status_code == 401
            assert client.get("/api/v1/cubes").status_code == 401


class TestApi:
    def test_me_says_who_and_what_the_token_may(
        self, client: Client, new_account: NewAccount, new_token: NewToken
    ) -> None:
        secret = new_token(new_account("alice"), "pull push:alice/notes")
        me = client.get("/api/v1/me", headers=bearer(secret)).json()
        assert me == {
            "name": "alice",
            "isOperator": False,
            "usedBytes": 0,
            "quotaBytes": None,
            "scopes": ["pull", "push:alice/notes"],
            "organisations": {},
        }

    def test_tokens_are_made_listed_and_revoked(
        self, client: Client, new_account: NewAccount, new_token: NewToken
    ) -> None:
        admin = bearer(new_token(new_account("alice"), "admin"))
        body = {"name": "ci", "scopes": ["push:alice/notes"], "days": 30}
        made = client.post("/api/v1/tokens", json=body, headers=admin)
        assert made.status_code == 201
        secret, token = made.json()["secret"], made.json()["token"]
        assert token["expiresAt"] > token["createdAt"]
        listed = client.get("/api/v1/tokens", headers=admin)
        assert token["id"] in [entry["id"] for entry in listed.json()]
        assert secret not in listed.text
        assert client.get("/api/v1/me", headers=bearer(secret)).status_code == 200
        path = f"/api/v1/tokens/{token['id']}"
        assert client.delete(path, headers=admin).status_code == 204
        assert client.get("/api/v1/me", headers=bearer(secret)).json()["code"] == "token-expired"

    def test_a_token_can_end_itself_and_no_other(
        self, client: Client, database: Database, new_account: NewAccount, new_token: NewToken
    ) -> None:
        alice = new_account("alice")
        one, _two = new_token(alice, "pull"), new_token(alice, "pull")
        with database.read() as session:
            newest, oldest = (row.id for row in tokens.tokens_of(session, alice.id))
        path = "/api/v1/tokens/{}"
        assert client.delete(path.format(newest), headers=bearer(one)).status_code == 403
        assert client.delete(path.format(oldest), headers=bearer(one)).status_code == 204
        assert client.get("/api/v1/me", headers=bearer(one)).status_code == 401

    def test_narrow_tokens_administer_nothing(
        self, client: Client, new_account: NewAccount, new_token: NewToken
    ) -> None:
        for scopes in ("pull push delete", "admin:alice/notes", "admin:acme"):
            name = f"user{len(scopes)}"
            headers = bearer(new_token(new_account(name), scopes))
            body = {"name": "ci", "scopes": ["admin"]}
            assert client.get("/api/v1/tokens", headers=headers).status_code == 403
            assert client.post("/api/v1/tokens", json=body, headers=headers).status_code == 403
            made = client.post("/api/v1/organisations", json={"name": "acme"}, headers=headers)
            assert made.status_code == 403

    def test_only_operators_create_accounts(
        self, client: Client, database: Database, new_account: NewAccount, new_token: NewToken
    ) -> None:
        with database.write() as session:
            root = service.create_account(session, "boss", is_operator=True)
        operator = bearer(new_token(root, "admin"))
        person = bearer(new_token(new_account("alice"), "admin"))
        body = {"name": "carol", "quotaBytes": 1000}
        assert client.post("/api/v1/accounts", json=body, headers=person).status_code == 403
        assert client.post("/api/v1/accounts", json=body).status_code == 401
        assert client.post("/api/v1/accounts", json=body, headers=operator).status_code == 201
        assert client.post("/api/v1/accounts", json=body, headers=operator).status_code == 409
        assert client.get("/api/v1/accounts/carol").json()["kind"] == "person"

    def test_organisations_are_seen_by_members_and_run_by_owners(
        self, client: Client, new_account: NewAccount, new_token: NewToken
    ) -> None:
        alice = bearer(new_token(new_account("alice"), "admin"))
        bob = bearer(new_token(new_account("bob"), "admin"))
        made = client.post("/api/v1/organisations", json={"name": "acme"}, headers=alice)
        assert made.status_code == 201
        members = "/api/v1/organisations/acme/members"
        assert client.get(members, headers=bob).status_code == 404
        body = {"role": "writer"}
        assert client.put(f"{members}/bob", json=body, headers=bob).status_code == 404
        assert client.put(f"{members}/bob", json=body, headers=alice).status_code == 200
        assert client.get(members, headers=bob).json() == [
            {"name": "alice", "role": "owner"},
            {"name": "bob", "role": "writer"},
        ]
        assert client.put(f"{members}/bob", json={"role": "owner"}, headers=bob).status_code == 403
        assert client.delete(f"{members}/alice", headers=bob).status_code == 403
        assert client.delete(f"{members}/bob", headers=bob).status_code == 204
        assert client.get("/api/v1/organisations", headers=bob).json() == []

    def test_a_cube_is_published_listed_hidden(
        self, client: Client, new_account: NewAccount, new_token: NewToken
    ) -> None:
        alice = bearer(new_token(new_account("alice")))
        bob = bearer(new_token(new_account("bob")))
        path = "/api/v1/cubes/alice/notes"
        body = {"visibility": "private"}
        assert client.put(path, json=body, headers=bob).status_code == 403
        assert client.put(path, json=body, headers=alice).status_code == 200
        for headers, status in ((alice, 200), (bob, 404), ({}, 401)):
            assert client.get(path, headers=headers).status_code == status
        assert client.get("/api/v1/cubes", headers=bob).json()["cubes"] == []
        client.put(path, json={"visibility": "public"}, headers=alice)
        assert client.get(path).json()["visibility"] == "public"
        assert client.get("/api/v1/tags/alice/notes").json() == []
        page = client.get("/api/v1/cubes", params={"prefix": "alice/"}).json()
        assert [cube["name"] for cube in page["cubes"]] == ["alice/notes"]

    def test_a_publisher_without_the_right_to_delete_publishes_but_does_not_hide(
        self, client: Client, new_account: NewAccount, new_token: NewToken
    ) -> None:
        headers = bearer(new_token(new_account("alice"), "push"))
        path = "/api/v1/cubes/alice/notes"
        for visibility, status in (("private", 200), ("public", 200), ("private", 403)):
            answer = client.put(path, json={"visibility": visibility}, headers=headers)
            assert answer.status_code == status

    def test_lists_come_in_pages(
        self, client: Client, new_account: NewAccount, new_token: NewToken
    ) -> None:
        alice = bearer(new_token(new_account("alice")))
        names = [f"alice/n{number}" for number in range(5)]
        for name in names:
            client.put(f"/api/v1/cubes/{name}", json={"visibility": "public"}, headers=alice)
        seen: list[str] = []
        after: str | None = ""
        while after is not None:
            page = client.get("/api/v1/cubes", params={"limit": 2, "after": after}).json()
            seen += [cube["name"] for cube in page["cubes"]]
            after = page["next"]
        assert seen == names

    def test_a_narrow_token_lists_only_the_private_cubes_of_its_scope(
        self, client: Client, new_account: NewAccount, new_token: NewToken
    ) -> None:
        alice = new_account("alice")
        for name in ("diary", "notes"):
            path = f"/api/v1/cubes/alice/{name}"
            body = {"visibility": "private"}
            client.put(path, json=body, headers=bearer(new_token(alice)))
        narrow = bearer(new_token(alice, "pull:alice/notes"))
        cubes = client.get("/api/v1/cubes", headers=narrow).json()["cubes"]
        assert [cube["name"] for cube in cubes] == ["alice/notes"]


class TestRefusals:
    @pytest.fixture
    def database_url(self, sqlite_url: str) -> str:
        """No database has a say in what is refused here."""
        return sqlite_url

    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [
            ("GET", "/nothing", 404),
            ("GET", "/api/v1/nothing", 404),
            ("PATCH", "/api/v1/me", 405),
            ("GET", "/api/v1/me", 401),
            ("GET", "/api/v1/accounts/nobody", 404),
            ("GET", "/api/v1/cubes?limit=0", 400),
            ("GET", "/api/v1/cubes?limit=many", 400),
        ],
    )
    def test_every_refusal_is_a_problem_with_code_and_hint(
        self, client: Client, method: str, path: str, status: int
    ) -> None:
        answer = client.request(method, path)
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()
        assert problem["status"] == status
        assert problem["type"] == f"urn:memcube:error:{problem['code']}"
        assert problem["hint"]
        assert problem["instance"] == answer.headers["x-request-id"]

    @pytest.mark.parametrize(
        "body",
        [b"", b"{", b"[]", b'{"name": 1, "scopes": []}', b'{"name": "x"}', b"\xff", b"[" * 2000],
    )
    def test_malformed_bodies_are_the_callers_fault(
        self, client: Client, new_account: NewAccount, new_token: NewToken, body: bytes
    ) -> None:
        headers = bearer(new_token(new_account("alice"), "admin"))
        answer = client.post("/api/v1/tokens", content=body, headers=headers)
        assert answer.status_code == 400
        assert answer.json()["code"] == "invalid-request"

    def test_a_large_body_is_refused(
        self, client: Client, new_account: NewAccount, new_token: NewToken
    ) -> None:
        headers = bearer(new_token(new_account("alice"), "admin"))
        answer = client.post("/api/v1/tokens", content=b" " * (2 << 20), headers=headers)
        assert answer.status_code == 413
        assert answer.json()["code"] == "limit-exceeded"

    def test_too_many_requests_are_asked_to_wait(
        self, settings: Settings, database: Database
    ) -> None:
        slow = replace(settings, anonymous_requests_per_s=1)
        with TestClient(create_app(slow)) as client:
            answers = [client.get("/api/v1/cubes") for _ in range(12)]
            assert answers[0].status_code == 200
            assert answers[-1].status_code == 429
            assert int(answers[-1].headers["retry-after"]) >= 1
            assert answers[-1].json()["code"] == "rate-limited"
            oci = client.get("/v2/")
            assert (oci.status_code, oci.json()["errors"][0]["code"]) == (429, "TOOMANYREQUESTS")
            assert client.get("/healthz").status_code == 200

    def test_who_keeps_guessing_has_to_wait_and_nobody_else(
        self, settings: Settings, database: Database, new_account: NewAccount, new_token: NewToken
    ) -> None:
        secret = new_token(new_account("alice"))
        with TestClient(create_app(replace(settings, failed_logins_per_minute=6))) as client:
            guesses = [client.get("/v2/", headers=bearer("mct_" + "a" * 43)) for _ in range(3)]
            assert [answer.status_code for answer in guesses] == [401, 429, 429]
            assert client.get("/v2/", headers=bearer(secret)).status_code == 200

    def test_a_form_is_no_way_to_guess_more_often(
        self, settings: Settings, database: Database, new_account: NewAccount, new_token: NewToken
    ) -> None:
        secret = new_token(new_account("alice"))
        form = {"grant_type": "password", "username": "alice", "service": "x"}
        with TestClient(create_app(replace(settings, failed_logins_per_minute=6))) as client:
            tried = ("mct_" + "a" * 43, "hunter2", "mct_" + "b" * 43)
            guesses = [client.post("/token", data={**form, "password": one}) for one in tried]
            assert [answer.status_code for answer in guesses] == [401, 429, 429]
            assert int(guesses[1].headers["retry-after"]) >= 1
            assert client.get("/v2/", headers=bearer(tried[0])).status_code == 429
            assert client.post("/token", data={**form, "password": secret}).status_code == 200


class TestOperations:
    def test_a_live_and_ready_registry_says_so(self, client: Client) -> None:
        assert client.get("/healthz").json() == {"status": "ok"}
        assert client.get("/readyz").json() == {"status": "ready"}

    def test_readiness_ends_when_the_shutdown_begins(
        self, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        mark = tmp_path / "draining"
        monkeypatch.setenv(DRAIN_VARIABLE, str(mark))
        assert client.get("/readyz").status_code == 200
        mark.touch()
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        assert client.get("/healthz").status_code == 200

    def test_readiness_asks_the_store(self, client: Client, settings: Settings) -> None:
        blobs = settings.data_dir / "blobs"
        moved = blobs.rename(settings.data_dir / "elsewhere")
        blobs.write_text("a file in the way")
        assert client.get("/readyz").status_code >= 500
        blobs.unlink()
        moved.rename(blobs)
        assert client.get("/readyz").status_code == 200

    def test_the_registry_describes_itself(self, client: Client) -> None:
        found = client.get("/.well-known/memcube.json").json()
        assert found["registry"] == EXTERNAL
        assert found["mipVersions"] == ["1.0"]
        assert found["features"]["tokenHandshake"] == f"{EXTERNAL}/token"
        assert found["limits"]["manifestBytes"] == 4 << 20

    def test_metrics_count_without_naming(
        self, client: Client, new_account: NewAccount, new_token: NewToken
    ) -> None:
        secret = new_token(new_account("alice"))
        client.post("/v2/alice/diary/blobs/uploads/", headers=bearer(secret))
        text = client.get("/metrics").text
        assert 'memcube_requests_total{method="POST",route="upload",status="202"} 1.0' in text
        assert "memcube_uploads_open 1.0" in text
        assert "alice" not in text
        assert "diary" not in text

    def test_the_reference_page_runs_no_script(self, client: Client) -> None:
        page = client.get("/api/v1/docs")
        assert page.status_code == 200
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert client.get("/api/v1/docs/style.css").headers["content-type"].startswith("text/css")
        document = client.get("/api/v1/openapi.json").json()
        assert json.dumps(document).count("operationId") >= 16
