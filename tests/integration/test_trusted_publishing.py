"""Trusted publishing: a CI job's identity token buys a short token for one repository, once."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator

import pytest
from conftest import NO_LIMITS, Person, fresh
from cryptography.hazmat.primitives.asymmetric import ec
from support.issuer import IdentityIssuer, identity_issuer
from support.servers import memcube_server

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def issuer() -> Iterator[IdentityIssuer]:
    with identity_issuer() as running:
        yield running


@pytest.fixture(scope="module")
def alice(issuer: IdentityIssuer, tmp_path_factory) -> Iterator[Person]:
    settings = {**NO_LIMITS, "MEMCUBE_REGISTRY_OIDC_ISSUERS": issuer.url}
    with memcube_server(tmp_path_factory.mktemp("oidc"), settings) as server:
        name = fresh("alice")
        server.create_account(name)
        yield Person(server, name, server.create_token(name, "admin"))


def api(wire, method: str, path: str, **body):
    return getattr(wire, method)(f"/api/v1/{path}", body=json.dumps(body).encode(), headers=JSON)


def bind(alice: Person, issuer: IdentityIssuer, repository: str, **claims: str):
    claims = claims or {"repository": "alice/memories"}
    return api(
        alice.wire, "post", "publishers", repository=repository, issuer=issuer.url, claims=claims
    )


def exchange(alice: Person, repository: str, token: str):
    return api(
        alice.server.wire, "post", "oidc/exchange", repository=repository, identityToken=token
    )


@pytest.fixture
def repository(alice: Person, issuer: IdentityIssuer) -> str:
    name = f"{alice.name}/{fresh('notes')}"
    assert bind(alice, issuer, name).status == 201
    return name


def audience(alice: Person) -> str:
    return alice.server.wire.netloc


def test_a_job_gets_a_short_token_for_its_repository_alone(alice, issuer, repository) -> None:
    reply = exchange(alice, repository, issuer.token(audience(alice)))
    assert reply.status == 201
    said = reply.json()
    assert said["scopes"] == [f"push:{repository}"]
    wire = alice.server.wire.bearer(said["secret"])
    assert wire.post(f"/v2/{repository}/blobs/uploads/").status == 202
    assert wire.post(f"/v2/{alice.name}/other/blobs/uploads/").status in (401, 403)
    assert api(wire, "post", "tokens", name="more", scopes=["push"]).status == 403


def test_an_identity_token_buys_one_token(alice, issuer, repository) -> None:
    token = issuer.token(audience(alice))
    assert exchange(alice, repository, token).status == 201
    assert exchange(alice, repository, token).status == 401


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "other.example"},
        {"iss": "https://evil.example"},
        {"exp": int(time.time()) - 3600},
        {"iat": int(time.time()) + 3600},
        {"repository": "mallory/memories"},
        {"repository": "alice/memories2"},
        {"repository": ["alice/memories"]},
        {"repository": None},
        {"jti": None},
        {"sub": None},
    ],
)
def test_other_claims_buy_nothing(alice, issuer, repository, claims) -> None:
    token = issuer.token(claims.pop("aud", audience(alice)), **claims)
    assert exchange(alice, repository, token).status == 401


def test_another_key_buys_nothing(alice, issuer, repository) -> None:
    forged = issuer.token(audience(alice), key=ec.generate_private_key(ec.SECP256R1()))
    assert exchange(alice, repository, forged).status == 401


def test_an_unknown_key_does_not_make_the_registry_ask_each_time(alice, issuer, repository) -> None:
    before = issuer.asked
    for _ in range(5):
        token = issuer.token(audience(alice), header={"kid": "unknown"})
        assert exchange(alice, repository, token).status == 401
    assert issuer.asked - before <= 2


def test_no_algorithm_but_the_issuers_is_taken(alice, issuer, repository) -> None:
    head, body, _ = issuer.token(audience(alice)).split(".")

    def encoded(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    for forged in (
        f"{encoded({'alg': 'none', 'kid': 'one'})}.{body}.",
        f"{encoded({'alg': 'HS256', 'kid': 'one'})}.{body}.AAAA",
        f"{head}.{body}.",
        "not a token",
        "a" * 20_000,
    ):
        assert exchange(alice, repository, forged).status == 401


def test_a_repository_without_a_publisher_is_not_told_from_one_that_is_absent(alice, issuer):
    token = issuer.token(audience(alice))
    assert exchange(alice, f"{alice.name}/nothing", token).status == 401


def test_a_publisher_that_is_removed_has_no_token_any_more(alice, issuer) -> None:
    name = f"{alice.name}/{fresh('notes')}"
    row = bind(alice, issuer, name).json()
    secret = exchange(alice, name, issuer.token(audience(alice))).json()["secret"]
    assert alice.wire.delete(f"/api/v1/publishers/{row['id']}").status == 204
    wire = alice.server.wire.bearer(secret)
    assert wire.post(f"/v2/{name}/blobs/uploads/").status == 401
    assert exchange(alice, name, issuer.token(audience(alice))).status == 401


def test_only_admins_of_the_namespace_bind_jobs(alice, issuer) -> None:
    stranger = fresh("stranger")
    alice.server.create_account(stranger)
    other = Person(alice.server, stranger, alice.server.create_token(stranger, "admin"))
    assert bind(other, issuer, f"{alice.name}/notes").status in (403, 404)
    narrow = Person(
        alice.server, alice.name, alice.server.create_token(alice.name, f"push:{alice.name}")
    )
    assert bind(narrow, issuer, f"{alice.name}/notes").status == 403


@pytest.mark.parametrize("claims", [{"iss": "x"}, {"jti": "1"}, {"sub": ""}])
def test_a_publisher_is_bound_to_claims_that_tell_jobs_apart(alice, issuer, claims) -> None:
    assert bind(alice, issuer, f"{alice.name}/notes", **claims).status == 400


def test_an_issuer_that_the_operator_did_not_name_is_refused(alice) -> None:
    reply = api(
        alice.wire,
        "post",
        "publishers",
        repository=f"{alice.name}/notes",
        issuer="https://evil.example",
        claims={"sub": "x"},
    )
    assert reply.status == 400
