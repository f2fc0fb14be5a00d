"""API tokens: only their hash is kept, and an ended one says so."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from memcube_protocol.errors import (
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    TokenExpiredError,
    UnauthenticatedError,
)
from memcube_registry.accounts import service, tokens
from memcube_registry.accounts.models import Account, ApiToken
from memcube_registry.accounts.scopes import Act, Scope
from memcube_registry.database import Database, utc_now
from sqlmodel import select

NewAccount = Callable[[str], Account]
NewToken = Callable[..., str]


def test_a_secret_stands_for_its_account_with_its_scopes(
    database: Database, new_account: NewAccount, new_token: NewToken
) -> None:
    alice = new_account("alice")
    secret = new_token(alice, "push:alice/notes pull")
    with database.read() as session:
        found = tokens.principal_of_secret(session, secret, now=utc_now())
    assert (found.account_id, found.name) == (alice.id, "alice")
    assert set(found.scopes) == {Scope(Act.READ), Scope(Act.WRITE, "alice/notes")}


def test_the_database_never_holds_the_secret(
    database: Database, new_account: NewAccount, new_token: NewToken
) -> None:
    secret = new_token(new_account("alice"))
    with database.read() as session:
        row = session.exec(select(ApiToken)).one()
    assert secret[4:] not in repr(row.model_dump())
    assert len(row.secret_sha256) == 64


def test_secrets_have_a_form_that_scanners_find(
    new_account: NewAccount, new_token: NewToken
) -> None:
    alice = new_account("alice")
    made = {new_token(alice) for _ in range(20)}
    assert len(made) == 20
    assert all(tokens.is_secret(secret) and secret.startswith("mct_") for secret in made)


@pytest.mark.parametrize("text", ["", "mct_", "mct_" + "a" * 42, "mct_" + "a" * 44, "x" * 47])
def test_other_texts_are_no_secrets(text: str) -> None:
    assert not tokens.is_secret(text)


def test_an_unknown_secret_is_nobodys(database: Database) -> None:
    with database.read() as session, pytest.raises(UnauthenticatedError) as caught:
        tokens.principal_of_secret(session, "mct_" + "a" * 43, now=utc_now())
    assert caught.value.code == "unauthenticated"


def test_an_expired_token_says_that_it_expired(database: Database, new_account: NewAccount) -> None:
    alice, now = new_account("alice"), utc_now()
    with database.write() as session:
        secret, _ = tokens.create_token(
            session, alice, "short", [Scope(Act.READ)], now=now, lifetime=timedelta(seconds=5)
        )
    with database.read() as session:
        tokens.principal_of_secret(session, secret, now=now + timedelta(seconds=4))
        with pytest.raises(TokenExpiredError, match="expired"):
            tokens.principal_of_secret(session, secret, now=now + timedelta(seconds=5))


def test_a_revoked_token_says_that_it_was_revoked(
    database: Database, new_account: NewAccount, new_token: NewToken
) -> None:
    alice = new_account("alice")
    secret = new_token(alice)
    with database.write() as session:
        (row,) = tokens.tokens_of(session, alice.id)
        tokens.revoke_token(session, alice.id, row.id, now=utc_now())
    with database.read() as session, pytest.raises(TokenExpiredError, match="revoked"):
        tokens.principal_of_secret(session, secret, now=utc_now())


def test_the_tokens_of_a_disabled_account_are_refused(
    database: Database, new_account: NewAccount, new_token: NewToken
) -> None:
    secret = new_token(new_account("alice"))
    with database.write() as session:
        service.account_named(session, "alice").disabled_at = utc_now()
    with database.read() as session, pytest.raises(TokenExpiredError):
        tokens.principal_of_secret(session, secret, now=utc_now())


def test_nobody_revokes_anothers_token(
    database: Database, new_account: NewAccount, new_token: NewToken
) -> None:
    alice, bob = new_account("alice"), new_account("bob")
    new_token(alice)
    with database.write() as session:
        (row,) = tokens.tokens_of(session, alice.id)
        with pytest.raises(NotFoundError):
            tokens.revoke_token(session, bob.id, row.id, now=utc_now())


def test_organisations_have_no_tokens(database: Database, new_account: NewAccount) -> None:
    alice = new_account("alice")
    with database.write() as session:
        acme = service.create_organisation(session, alice, "acme")
        with pytest.raises(InvalidRequestError, match="organisation"):
            tokens.create_token(session, acme, "x", [Scope(Act.READ)], now=utc_now())


@pytest.mark.parametrize(
    ("name", "scopes", "lifetime"),
    [
        ("", [Scope(Act.READ)], None),
        ("x" * 129, [Scope(Act.READ)], None),
        ("a\nb", [Scope(Act.READ)], None),
        ("ci", [], None),
        ("ci", [Scope(Act.READ)], timedelta()),
        ("ci", [Scope(Act.READ)], timedelta(days=-1)),
    ],
)
def test_a_token_needs_a_name_a_scope_and_a_life(
    database: Database,
    new_account: NewAccount,
    name: str,
    scopes: list[Scope],
    lifetime: timedelta | None,
) -> None:
    alice = new_account("alice")
    with database.write() as session, pytest.raises(InvalidRequestError):
        tokens.create_token(session, alice, name, scopes, now=utc_now(), lifetime=lifetime)


def test_an_account_has_a_limited_number_of_tokens(
    database: Database, new_account: NewAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "MAX_PER_ACCOUNT", 2)
    alice = new_account("alice")
    with database.write() as session:
        for name in ("one", "two"):
            tokens.create_token(session, alice, name, [Scope(Act.READ)], now=utc_now())
        with pytest.raises(ConflictError):
            tokens.create_token(session, alice, "three", [Scope(Act.READ)], now=utc_now())


def test_tokens_that_are_made_and_ended_for_ever_fill_no_table(
    database: Database, new_account: NewAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "ENDED_KEPT", 3)
    alice, now = new_account("alice"), utc_now()
    with database.write() as session:
        live = tokens.create_token(session, alice, "kept", [Scope(Act.READ)], now=now)[1].id
    for _ in range(20):
        with database.write() as session:
            _, row = tokens.create_token(session, alice, "short", [Scope(Act.READ)], now=now)
            tokens.revoke_token(session, alice.id, row.id, now=now)
    with database.read() as session:
        found = [row.id for row in tokens.tokens_of(session, alice.id)]
    assert len(found) <= 5
    assert live in found


def test_expired_tokens_leave_room_for_new_ones(
    database: Database, new_account: NewAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "MAX_PER_ACCOUNT", 1)
    alice, now = new_account("alice"), utc_now()
    hour, scopes = timedelta(hours=1), [Scope(Act.READ)]
    with database.write() as session:
        tokens.create_token(session, alice, "job", scopes, now=now, lifetime=hour)
        with pytest.raises(ConflictError):
            tokens.create_token(session, alice, "job", scopes, now=now, lifetime=hour)
        tokens.create_token(session, alice, "job", scopes, now=now + 2 * hour, lifetime=hour)


def test_a_handshake_token_never_becomes_that_of_a_later_token(
    database: Database, new_account: NewAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "ENDED_KEPT", 0)
    alice, now = new_account("alice"), utc_now()
    with database.write() as session:
        _, first = tokens.create_token(session, alice, "first", [Scope(Act.READ)], now=now)
        tokens.revoke_token(session, alice.id, first.id, now=now)
    with database.write() as session:
        _, second = tokens.create_token(session, alice, "second", [Scope(Act.READ)], now=now)
        assert second.id != first.id
        with pytest.raises(UnauthenticatedError):
            tokens.find_issued_for(session.connection(), first.id, alice.id, now=now)
