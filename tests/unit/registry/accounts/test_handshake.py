"""Handshake tokens: identity and scope, one algorithm, a short life."""

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from memcube_protocol.errors import (
    InvalidRequestError,
    InvalidSettingError,
    TokenExpiredError,
    UnauthenticatedError,
)
from memcube_registry.accounts.handshake import Issuer, grant, load_key, parse_requested
from memcube_registry.accounts.principal import ANONYMOUS, Principal
from memcube_registry.accounts.scopes import Act, Scope, parse_scopes

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
ISSUER = Issuer(bytes(range(32)), "registry.example.org", timedelta(minutes=5))
ALICE = Principal(7, "alice", parse_scopes("push:alice pull"), token_id=3)
SCOPES = (Scope(Act.READ, "alice/notes"), Scope(Act.WRITE, "alice/notes"))


def forged(claims: dict[str, object], algorithm: str = "HS256", key: bytes = ISSUER.key) -> str:
    return jwt.encode(claims, key, algorithm=algorithm)


def claims_of(token: str) -> dict[str, object]:
    return dict(jwt.decode(token, options={"verify_signature": False}))


def test_a_token_carries_who_and_what_for() -> None:
    found = ISSUER.check(ISSUER.issue(ALICE, SCOPES, now=NOW), now=NOW)
    assert found == Principal(7, "alice", SCOPES, 3, came_by_handshake=True)


def test_an_anonymous_token_carries_nobody() -> None:
    found = ISSUER.check(ISSUER.issue(ANONYMOUS, (), now=NOW), now=NOW)
    assert found == replace(ANONYMOUS, came_by_handshake=True)


def test_a_token_ends_by_itself() -> None:
    token = ISSUER.issue(ALICE, SCOPES, now=NOW)
    ISSUER.check(token, now=NOW + timedelta(minutes=4, seconds=59))
    with pytest.raises(TokenExpiredError):
        ISSUER.check(token, now=NOW + timedelta(minutes=5))


def test_a_token_of_the_far_future_is_refused_and_a_small_skew_is_not() -> None:
    token = ISSUER.issue(ALICE, SCOPES, now=NOW)
    ISSUER.check(token, now=NOW - timedelta(seconds=20))
    with pytest.raises(UnauthenticatedError):
        ISSUER.check(token, now=NOW - timedelta(minutes=2))


def test_tokens_of_another_key_service_or_issuer_are_refused() -> None:
    token = ISSUER.issue(ALICE, SCOPES, now=NOW)
    claims = claims_of(token)
    others = [
        forged(claims, key=bytes(32)),
        forged(claims | {"aud": "other.example.org"}),
        forged(claims | {"iss": "other.example.org"}),
        token[:-2] + ("AA" if token[-2:] != "AA" else "BB"),
    ]
    for other in others:
        with pytest.raises(UnauthenticatedError):
            ISSUER.check(other, now=NOW)


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
def test_the_algorithm_is_ours_not_the_tokens(algorithm: str) -> None:
    wide = Issuer(bytes(32), "registry.example.org", timedelta(minutes=5))
    token = jwt.encode(
        claims_of(wide.issue(ALICE, SCOPES, now=NOW)), bytes(64), algorithm=algorithm
    )
    with pytest.raises(UnauthenticatedError):
        wide.check(token, now=NOW)


def test_an_unsigned_token_is_refused() -> None:
    def part(value: dict[str, object]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    claims = claims_of(ISSUER.issue(ALICE, SCOPES, now=NOW))
    for algorithm in ("none", "None", "HS256"):
        token = f"{part({'alg': algorithm, 'typ': 'JWT'})}.{part(claims)}."
        with pytest.raises(UnauthenticatedError):
            ISSUER.check(token, now=NOW)


@pytest.mark.parametrize("claim", ["iss", "aud", "sub", "exp", "nbf", "iat", "jti", "access"])
def test_every_claim_is_required(claim: str) -> None:
    claims = claims_of(ISSUER.issue(ALICE, SCOPES, now=NOW))
    del claims[claim]
    with pytest.raises(UnauthenticatedError):
        ISSUER.check(forged(claims), now=NOW)


@pytest.mark.parametrize(
    "change",
    [
        {"account": None},
        {"account": "7"},
        {"account": True, "sub": ""},
        {"sub": ""},
        {"access": [{"name": "A", "actions": ["pull"]}]},
        {"access": [{"name": "a/b", "actions": ["fly"]}]},
        {"access": "all"},
        {"exp": "soon"},
    ],
)
def test_odd_claims_are_refused_even_if_signed(change: dict[str, object]) -> None:
    claims = claims_of(ISSUER.issue(ALICE, SCOPES, now=NOW)) | change
    with pytest.raises(UnauthenticatedError):
        ISSUER.check(forged(claims), now=NOW)


@given(st.text(max_size=200))
def test_any_text_as_a_token_is_refused(text: str) -> None:
    with pytest.raises(UnauthenticatedError):
        ISSUER.check(text, now=NOW)


def test_no_more_is_granted_than_the_api_token_covers() -> None:
    asked = parse_requested(
        ["repository:alice/notes:pull,push,delete repository:bob/notes:pull,push", "registry:x:*"]
    )
    assert grant(ALICE, asked) == (
        Scope(Act.READ, "alice/notes"),
        Scope(Act.WRITE, "alice/notes"),
        Scope(Act.READ, "bob/notes"),
    )
    assert grant(ANONYMOUS, asked) == ()


def test_a_token_for_one_cube_grants_nothing_of_another() -> None:
    narrow = Principal(7, "alice", parse_scopes("pull:alice/notes"), token_id=4)
    assert grant(narrow, parse_requested(["repository:alice/diary:pull"])) == ()


def test_a_star_asks_for_everything() -> None:
    ((_, acts),) = parse_requested(["repository:alice/notes:*"])
    assert acts == {Act.READ, Act.WRITE, Act.DELETE}


def test_the_class_of_a_resource_is_ignored() -> None:
    assert parse_requested(["repository(plugin):alice/notes:pull"]) == (
        ("alice/notes", frozenset({Act.READ})),
    )


@pytest.mark.parametrize(
    "text", ["repository:", "repository:A:pull", "repository:a//b:pull", "repository:../x:pull"]
)
def test_malformed_repository_scopes_are_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError):
        parse_requested([text])


def test_too_many_scopes_are_refused() -> None:
    with pytest.raises(InvalidRequestError, match="limit"):
        parse_requested(["repository:a/b:pull"] * 65)


def test_the_key_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "token.key"
    key = load_key(path)
    assert load_key(path) == key
    assert len(key) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["token.key"]


def test_a_key_that_everybody_reads_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "token.key"
    load_key(path)
    path.chmod(0o644)
    with pytest.raises(InvalidSettingError, match="everybody"):
        load_key(path)


def test_a_short_key_is_refused() -> None:
    with pytest.raises(InvalidSettingError, match="16 bytes"):
        Issuer(bytes(16), "registry.example.org", timedelta(minutes=5))
