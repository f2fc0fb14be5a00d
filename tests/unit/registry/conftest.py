"""Fixtures of the registry's unit tests: people with tokens."""

from collections.abc import Callable

import pytest
from memcube_registry.accounts import service, tokens
from memcube_registry.accounts.models import Account
from memcube_registry.accounts.scopes import parse_scopes
from memcube_registry.database import Database, utc_now


@pytest.fixture
def new_account(database: Database) -> Callable[[str], Account]:
    """Makes people."""

    def make(name: str) -> Account:
        with database.write() as session:
            return service.create_account(session, name)

    return make


@pytest.fixture
def new_token(database: Database) -> Callable[..., str]:
    """Makes tokens of an account."""

    def make(account: Account, scopes: str = "pull push delete") -> str:
        with database.write() as session:
            return tokens.create_token(
                session, account, "test", parse_scopes(scopes), now=utc_now()
            )[0]

    return make
