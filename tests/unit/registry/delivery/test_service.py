"""authorize: the decision with its facts from the database."""

from collections.abc import Callable

import pytest
from memcube_protocol.errors import (
    ForbiddenError,
    InvalidReferenceError,
    MemcubeError,
    NotFoundError,
    UnauthenticatedError,
)
from memcube_registry.accounts import service as accounts
from memcube_registry.accounts.models import Account, Role
from memcube_registry.accounts.principal import ANONYMOUS, Principal
from memcube_registry.accounts.scopes import Act, parse_scopes
from memcube_registry.catalog.models import Repository, Visibility
from memcube_registry.database import Database
from memcube_registry.delivery.service import READABLE, authorize, read
from sqlmodel import select

NewAccount = Callable[[str], Account]


def as_principal(account: Account, scopes: str = "pull push delete", **more: bool) -> Principal:
    return Principal(account.id, account.name, parse_scopes(scopes), 1, **more)


@pytest.fixture
def people(database: Database, new_account: NewAccount) -> dict[str, Account]:
    made = {name: new_account(name) for name in ("alice", "bob")}
    for name, visibility in (("notes", Visibility.PUBLIC), ("diary", Visibility.PRIVATE)):
        with database.write() as session:
            row = authorize(session, as_principal(made["alice"]), f"alice/{name}", Act.WRITE)
            row.visibility = visibility
            session.add(row)
    return made


def answer(database: Database, principal: Principal, name: str, act: Act) -> str:
    """`allowed`, or the code and text of the refusal without the cube's name.

    What is asked for reading is the same whether one statement decides and reads, or two.
    """
    with database.read() as session:
        found = outcome(name, lambda: authorize(session, principal, name, act))
    if act is Act.READ:
        with database.glance() as connection:
            at_once = outcome(
                name, lambda: read(connection, principal, name, READABLE, {}, digest=None)
            )
        assert at_once == found
    return found


def outcome(name: str, ask: Callable[[], object]) -> str:
    try:
        ask()
    except MemcubeError as error:
        return f"{error.code}: {error} ({error.hint})".replace(name, "NAME")
    return "allowed"


def test_the_first_push_of_an_owner_makes_a_private_cube(
    database: Database, new_account: NewAccount
) -> None:
    alice = new_account("alice")
    with database.write() as session:
        made = authorize(session, as_principal(alice), "alice/deep/notes", Act.WRITE)
        assert made.visibility is Visibility.PRIVATE
    with database.write() as session:
        again = authorize(session, as_principal(alice), "alice/deep/notes", Act.WRITE)
        assert again.id == made.id
        assert again.account_id == alice.id


def test_a_refused_push_makes_nothing(database: Database, people: dict[str, Account]) -> None:
    with database.write() as session, pytest.raises(ForbiddenError):
        authorize(session, as_principal(people["bob"]), "alice/new", Act.WRITE)
    with database.read() as session:
        names = session.exec(select(Repository.name)).all()
    assert sorted(names) == ["alice/diary", "alice/notes"]


@pytest.mark.parametrize("act", [Act.READ, Act.WRITE, Act.DELETE])
def test_private_and_absent_cubes_look_alike(
    database: Database, people: dict[str, Account], act: Act
) -> None:
    bob = people["bob"]
    callers = [
        ANONYMOUS,
        Principal(came_by_handshake=True),
        as_principal(bob),
        as_principal(bob, "pull:bob/x"),
        as_principal(bob, "pull:bob/x", came_by_handshake=True),
        as_principal(people["alice"], "pull:alice/notes"),
    ]
    for caller in callers:
        private = answer(database, caller, "alice/diary", act)
        assert private == answer(database, caller, "alice/absent", act)
        assert private != "allowed"


def test_namespaces_that_do_not_exist_look_like_those_that_do(
    database: Database, people: dict[str, Account]
) -> None:
    bob = as_principal(people["bob"])
    for act in (Act.READ, Act.WRITE, Act.DELETE):
        nowhere = answer(database, bob, "nobody/diary", act)
        assert nowhere == answer(database, bob, "alice/diary", act)


def test_a_public_cube_is_read_by_all_and_changed_by_its_own(
    database: Database, people: dict[str, Account]
) -> None:
    assert answer(database, ANONYMOUS, "alice/notes", Act.READ) == "allowed"
    assert answer(database, as_principal(people["bob"]), "alice/notes", Act.READ) == "allowed"
    for act in (Act.WRITE, Act.DELETE):
        assert answer(database, ANONYMOUS, "alice/notes", act).startswith("unauthenticated")
        assert answer(database, as_principal(people["bob"]), "alice/notes", act).startswith(
            "forbidden"
        )
        assert answer(database, as_principal(people["alice"]), "alice/notes", act) == "allowed"


def test_members_do_what_their_role_says(database: Database, people: dict[str, Account]) -> None:
    bob = as_principal(people["bob"])
    with database.write() as session:
        accounts.create_organisation(session, people["alice"], "acme")
    with database.write() as session:
        authorize(session, as_principal(people["alice"]), "acme/notes", Act.WRITE)
    expected = {
        None: (),
        Role.READER: (Act.READ,),
        Role.WRITER: (Act.READ, Act.WRITE),
        Role.MAINTAINER: (Act.READ, Act.WRITE, Act.DELETE),
        Role.OWNER: (Act.READ, Act.WRITE, Act.DELETE),
    }
    for role, allowed in expected.items():
        if role is not None:
            with database.write() as session:
                acme = accounts.account_named(session, "acme")
                accounts.set_member(session, acme, people["bob"], role)
        acts = (Act.READ, Act.WRITE, Act.DELETE)
        got = tuple(a for a in acts if answer(database, bob, "acme/notes", a) == "allowed")
        assert got == allowed, role


def test_a_token_does_no_more_than_its_scope(
    database: Database, people: dict[str, Account]
) -> None:
    narrow = as_principal(people["alice"], "pull:alice/diary")
    assert answer(database, narrow, "alice/diary", Act.READ) == "allowed"
    assert answer(database, narrow, "alice/diary", Act.WRITE).startswith("forbidden")
    assert answer(database, narrow, "alice/other", Act.READ).startswith("forbidden")
    handshake = as_principal(people["alice"], "pull:alice/diary", came_by_handshake=True)
    assert answer(database, handshake, "alice/diary", Act.WRITE).startswith("unauthenticated")


@pytest.mark.parametrize("name", ["alice", "Alice/notes", "alice//notes", "../x", "a/b:c", ""])
def test_what_is_not_a_qualified_name_is_refused(database: Database, name: str) -> None:
    with database.read() as session, pytest.raises(InvalidReferenceError):
        authorize(session, ANONYMOUS, name, Act.READ)


def test_refusals_say_what_to_do(database: Database, people: dict[str, Account]) -> None:
    cases = [
        (ANONYMOUS, UnauthenticatedError, Act.READ),
        (as_principal(people["bob"]), NotFoundError, Act.READ),
        (as_principal(people["bob"]), ForbiddenError, Act.WRITE),
    ]
    for caller, kind, act in cases:
        with database.read() as session, pytest.raises(kind) as caught:
            authorize(session, caller, "alice/diary", act)
        assert caught.value.hint
