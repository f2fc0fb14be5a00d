"""Tokens that try to become more than they are."""

import json
from collections.abc import Callable

import pytest
from conftest import Person, fresh
from support.wire import Reply, Wire


def create_token(wire: Wire, *scopes: str) -> Reply:
    body = json.dumps({"name": "wider", "scopes": list(scopes)}).encode()
    return wire.post("/api/v1/tokens", body=body, headers={"Content-Type": "application/json"})


@pytest.fixture
def narrowed(new_person: Callable[[], Person]) -> tuple[Person, Wire]:
    """Somebody, and the wire of a token for their own namespace only."""
    person = new_person()
    token = person.server.create_token(person.name, f"admin:{person.name}")
    return person, person.server.wire.bearer(token)


@pytest.mark.parametrize("scope", ["admin", "push", "pull", "push:acme", "admin:acme/notes"])
def test_a_token_of_one_namespace_makes_none_for_others(
    narrowed: tuple[Person, Wire], scope: str
) -> None:
    person, wire = narrowed
    assert create_token(wire, f"pull:{person.name}", scope).status == 403


def test_a_token_of_one_namespace_makes_narrower_ones(narrowed: tuple[Person, Wire]) -> None:
    person, wire = narrowed
    scopes = (f"push:{person.name}/notes", f"admin:{person.name}")
    assert create_token(wire, *scopes).status == 201


def test_a_token_of_one_namespace_does_not_operate_the_registry(
    narrowed: tuple[Person, Wire],
) -> None:
    person, wire = narrowed
    person.server.admin("account", "create", name := fresh("boss"), "--operator")
    wire = person.server.wire.bearer(person.server.create_token(name, f"admin:{name}"))
    body = json.dumps({"name": fresh("made")}).encode()
    headers = {"Content-Type": "application/json"}
    assert wire.post("/api/v1/accounts", body=body, headers=headers).status == 403
