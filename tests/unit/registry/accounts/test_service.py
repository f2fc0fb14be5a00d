"""Accounts, organisations and quotas."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from memcube_protocol.errors import (
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    QuotaExceededError,
)
from memcube_registry.accounts import service
from memcube_registry.accounts.models import Account, Role
from memcube_registry.database import Database

NewAccount = Callable[[str], Account]


@pytest.mark.parametrize("name", ["alice", "al1ce", "allce", "a-lice"])
def test_a_name_is_given_once_and_so_is_what_looks_like_it(
    new_account: NewAccount, name: str
) -> None:
    new_account("alice")
    with pytest.raises(ConflictError, match=r"taken|looks like"):
        new_account(name)


def test_an_organisation_keeps_an_owner(database: Database, new_account: NewAccount) -> None:
    alice, bob = new_account("alice"), new_account("bob")
    with database.write() as session:
        acme = service.create_organisation(session, alice, "acme")
        with pytest.raises(ConflictError):
            service.remove_member(session, acme, alice)
        with pytest.raises(ConflictError):
            service.set_member(session, acme, alice, Role.READER)
        service.set_member(session, acme, bob, Role.OWNER)
        service.set_member(session, acme, alice, Role.READER)
        assert service.members_of(session, acme) == [("alice", Role.READER), ("bob", Role.OWNER)]
        service.remove_member(session, acme, alice)
        assert service.organisations_of(session, alice.id) == []
        assert [(o.name, r) for o, r in service.organisations_of(session, bob.id)] == [
            ("acme", Role.OWNER)
        ]


def test_nobody_makes_names_and_storage_without_end(
    database: Database, new_account: NewAccount
) -> None:
    alice, bob = new_account("alice"), new_account("bob")

    def found(founder: Account, name: str) -> Account:
        return database.run(
            lambda session: service.found_organisation(
                session, founder, name, quota_bytes=1, at_most=2
            )
        )

    acme = found(alice, "acme")
    found(alice, "acme-labs")
    with pytest.raises(QuotaExceededError, match="has made 2 organisations"):
        found(alice, "acme-more")
    # Leaving does not make room: who left has made it all the same.
    with database.write() as session:
        service.set_member(session, acme, bob, Role.OWNER)
        service.remove_member(session, acme, alice)
    with pytest.raises(QuotaExceededError):
        found(alice, "acme-more")
    found(bob, "bobs")


def test_people_have_no_members_and_organisations_join_none(
    database: Database, new_account: NewAccount
) -> None:
    alice, bob = new_account("alice"), new_account("bob")
    with database.write() as session:
        acme = service.create_organisation(session, alice, "acme")
        other = service.create_organisation(session, alice, "other")
        for group, member in ((alice, bob), (acme, other)):
            with pytest.raises(InvalidRequestError):
                service.set_member(session, group, member, Role.READER)
        with pytest.raises(NotFoundError):
            service.remove_member(session, acme, bob)


def test_a_quota_is_used_up_to_its_last_byte(database: Database) -> None:
    with database.write() as session:
        account = service.create_account(session, "alice", quota_bytes=100)
        service.require_quota(session, account.id, 100)
        service.add_usage(session, account.id, 60)
        service.require_quota(session, account.id, 40)
        with pytest.raises(QuotaExceededError, match="60 of 100") as caught:
            service.require_quota(session, account.id, 41)
    assert caught.value.hint


def test_an_account_without_quota_takes_everything(
    database: Database, new_account: NewAccount
) -> None:
    alice = new_account("alice")
    with database.write() as session:
        service.require_quota(session, alice.id, 1 << 60)


def test_usage_counted_at_the_same_time_is_not_lost(
    database: Database, new_account: NewAccount
) -> None:
    alice = new_account("alice")

    def use(_: int) -> None:
        database.run(lambda session: service.add_usage(session, alice.id, 3))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(use, range(40)))
    with database.read() as session:
        assert service.account_named(session, "alice").used_bytes == 120
