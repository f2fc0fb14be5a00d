"""What many do at once: no update is lost and no limit is passed, on either database."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from memcube_protocol.digest import Digest
from memcube_protocol.errors import ConflictError, QuotaExceededError
from memcube_registry.accounts.models import Account
from memcube_registry.database import Database
from memcube_registry.manifests import service as manifests
from memcube_registry.manifests.tags import Expectation
from sqlmodel import Session, select
from support.registry_core import Core

NAME = "ada/notes"
MANY = 12


@pytest.fixture
def core(database: Database) -> Core:
    core = Core(database)
    core.principal = core.person("ada")
    return core


def at_once(work: Callable[[int], object]) -> list[object]:
    """What `work` returns or raises for each of `MANY` numbers, all in threads of their own."""

    def outcome(number: int) -> object:
        try:
            return work(number)
        except (ConflictError, QuotaExceededError) as error:
            return error

    with ThreadPoolExecutor(MANY) as pool:
        return list(pool.map(outcome, range(MANY)))


def test_a_counter_that_everybody_raises_counts_everybody(core: Core) -> None:
    def count_up(session: Session) -> None:
        account = session.exec(select(Account)).one()
        account.used_bytes += 1  # read and written back: what a lost update would lose
        session.add(account)

    def raise_it(_number: int) -> None:
        for _ in range(5):
            core.database.run(count_up)

    assert at_once(raise_it) == [None] * MANY
    assert core.used_bytes("ada") == 5 * MANY


def test_a_quota_is_never_passed_however_many_push_at_once(core: Core) -> None:
    eve = core.person("eve", quota_bytes=5 * 100)
    outcomes = at_once(lambda number: core.push_blob("eve/x", b"%03d" % number * 33 + b".", eve))
    kept = [one for one in outcomes if isinstance(one, Digest)]
    assert len(kept) == 5
    assert core.used_bytes("eve") == 500
    assert len(list(core.store.objects())) == 5


def test_of_many_that_swap_a_tag_from_one_place_one_succeeds(core: Core) -> None:
    layers = [b"layer %d" % number for number in range(MANY)]
    for layer in (b"first", *layers):
        core.push_blob(NAME, layer)
    place = core.push_manifest(NAME, [b"first"], "latest")
    candidates = [core.push_manifest(NAME, [layer]) for layer in layers]

    def swap(number: int) -> Digest:
        def work(session: Session) -> None:
            expected = Expectation(place)
            push = manifests.push_again(
                session, core.principal, NAME, candidates[number], ["latest"], expected
            )
            manifests.put(session, core.principal, NAME, push, core.now)

        core.database.run(work)
        return candidates[number]

    winners = [one for one in at_once(swap) if isinstance(one, Digest)]
    assert len(winners) == 1
    with core.database.read() as session:
        found = manifests.get(session.connection(), core.principal, NAME, "latest")
    assert found.digest == str(winners[0])


def test_a_version_that_many_publish_at_once_is_one_of_theirs_for_ever(core: Core) -> None:
    layers = [b"layer %d" % number for number in range(MANY)]
    for layer in (b"{}", *layers):
        core.push_blob(NAME, layer)
    outcomes = at_once(lambda number: core.push_manifest(NAME, [layers[number]], "1.0.0"))
    winners = [one for one in outcomes if isinstance(one, Digest)]
    assert len(winners) == 1
    with core.database.read() as session:
        assert manifests.get(session.connection(), core.principal, NAME, "1.0.0").digest == str(
            winners[0]
        )


def test_the_same_content_pushed_by_everybody_is_kept_and_counted_once(core: Core) -> None:
    outcomes = at_once(lambda _number: core.push_blob(NAME, b"the same"))
    assert set(outcomes) == {Digest.of(b"the same")}
    assert core.used_bytes("ada") == len(b"the same")
    assert len(list(core.store.objects())) == 1
