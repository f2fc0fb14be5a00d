"""Trusted publishing: a CI job's identity token buys a short token for one repository, once."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Iterator

import pytest
from conftest import NO_LIMITS, Person, fresh
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm
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


def bind(alice: Person, issuer: IdentityIssuer, place: str, /, **claims: str):
    claims = claims or {"repository": "alice/memories"}
    return api(alice.wire, "post", "publishers", repository=place, issuer=issuer.url, claims=claims)


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
    assert said["job"]["subject"] == "repo:alice/memories:ref:refs/heads/main"
    assert said["job"]["claims"]["run_id"] == "1002003"
    assert "alice-the-person" not in json.dumps(said)
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
        {"repository_id": "666"},
        {"aud": ["REGISTRY", "evil.example"]},
        {"jti": None},
        {"sub": None},
    ],
)
def test_other_claims_buy_nothing(alice, issuer, repository, claims) -> None:
    assert exchange(alice, repository, issuer.token(audience(alice))).status == 201
    said = dict(claims)
    wanted = said.pop("aud", "REGISTRY")
    if isinstance(wanted, list):
        wanted = [audience(alice) if one == "REGISTRY" else one for one in wanted]
    token = issuer.token(audience(alice) if wanted == "REGISTRY" else wanted, **said)
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


def encoded(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def test_no_algorithm_but_the_issuers_is_taken(alice, issuer, repository) -> None:
    head, body, _ = issuer.token(audience(alice)).split(".")
    kid = list(issuer.keys)[-1]
    for forged in (
        f"{encoded({'alg': 'none', 'kid': kid})}.{body}.",
        f"{encoded({'alg': 'None', 'kid': kid})}.{body}.",
        f"{head}.{body}.",
        "not a token",
        "a" * 20_000,
    ):
        assert exchange(alice, repository, forged).status == 401


@pytest.mark.parametrize("algorithm", ["HS256", "HS512"])
def test_the_issuers_public_key_is_no_shared_secret(alice, issuer, repository, algorithm) -> None:
    """The classic confusion: an HMAC whose key is what everybody can read."""
    kid, key = list(issuer.keys.items())[-1]
    public = key.public_key()
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    jwk = ECAlgorithm.to_jwk(public).encode()
    for secret in (pem, pem.strip(), der, jwk):
        head = encoded({"alg": algorithm, "kid": kid, "typ": "JWT"})
        body = encoded(issuer.said(audience(alice)))
        mac = hmac.new(secret, f"{head}.{body}".encode(), algorithm.replace("HS", "sha")).digest()
        sealed = base64.urlsafe_b64encode(mac).rstrip(b"=").decode()
        assert exchange(alice, repository, f"{head}.{body}.{sealed}").status == 401


def test_an_issuer_may_have_several_keys_and_change_them(alice, repository, tmp_path) -> None:
    """A new key is asked for when a token names it; one that is withdrawn counts no more."""
    with identity_issuer() as issuer:
        settings = {**NO_LIMITS, "MEMCUBE_REGISTRY_OIDC_ISSUERS": issuer.url}
        with memcube_server(tmp_path / "keys", settings) as server:
            name = fresh("alice")
            server.create_account(name)
            person = Person(server, name, server.create_token(name, "admin"))
            place, to = f"{name}/notes", server.wire.netloc
            assert bind(person, issuer, place).status == 201
            issuer.keys["rsa"] = rsa.generate_private_key(65537, 2048)
            for kid, key in issuer.keys.items():
                token = issuer.token(to, key=key, header={"kid": kid})
                assert exchange(person, place, token).status == 201
            # The right key under another's id, and the other kind of key under this id.
            for kid, key in (("one", issuer.keys["rsa"]), ("rsa", issuer.keys["one"])):
                token = issuer.token(to, key=key, header={"kid": kid})
                assert exchange(person, place, token).status == 401
            withdrawn = issuer.keys["one"]
            issuer.rotate("two", keep=False)
            server.stop()
            server.start()
            assert exchange(person, place, issuer.token(to)).status == 201
            token = issuer.token(to, key=withdrawn, header={"kid": "one"})
            assert exchange(person, place, token).status == 401


def test_whoever_takes_over_a_name_is_somebody_else(alice, issuer) -> None:
    """The first exchange binds the publisher to ids that are given once."""
    name = f"{alice.name}/{fresh('notes')}"
    assert bind(alice, issuer, name).status == 201
    to = audience(alice)
    assert exchange(alice, name, issuer.token(to)).status == 201
    assert exchange(alice, name, issuer.token(to, repository_owner_id="43")).status == 401
    assert exchange(alice, name, issuer.token(to, repository_id=None)).status == 401
    (known,) = alice.wire.get(f"/api/v1/publishers?repository={name}").json()
    assert known["claims"]["repository_owner_id"] == "42"


def test_a_claim_may_end_openly_where_a_part_ends(alice, issuer) -> None:
    name = f"{alice.name}/{fresh('notes')}"
    assert bind(alice, issuer, name, ref="refs/tags/*", repository="alice/memories").status == 201
    to = audience(alice)
    assert exchange(alice, name, issuer.token(to, ref="refs/tags/v1")).status == 201
    assert exchange(alice, name, issuer.token(to, ref="refs/heads/main")).status == 401
    assert bind(alice, issuer, name, repository="alice/mem*").status == 400


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


def test_its_number_tells_a_stranger_of_no_private_cube(alice, issuer) -> None:
    name = f"{alice.name}/{fresh('merger')}"
    row = bind(alice, issuer, name).json()
    stranger = fresh("stranger")
    alice.server.create_account(stranger)
    narrow = alice.server.create_token(alice.name, f"admin:{alice.name}/other")
    for wire in (
        alice.server.wire.bearer(alice.server.create_token(stranger, "admin")),
        alice.server.wire,
        alice.server.wire.bearer(narrow),
    ):
        answers = [wire.delete(f"/api/v1/publishers/{number}") for number in (row["id"], 999_999)]
        assert [answer.status for answer in answers] == [404, 404]
        assert name not in answers[0].body.decode()
    assert alice.wire.delete(f"/api/v1/publishers/{row['id']}").status == 204


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
