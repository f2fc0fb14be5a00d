"""Token buckets: one contract for those in memory, in a file of one machine, and in PostgreSQL."""

import asyncio
import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memcube_protocol.errors import StorageError
from memcube_registry.database import Database
from memcube_registry.rates import mapped
from memcube_registry.rates.buckets import BURST_S, Buckets, MemoryBuckets, Rate, whole_seconds
from memcube_registry.rates.mapped import MappedBuckets
from memcube_registry.rates.shared import KEPT_S, LEASE_S, SharedBuckets
from sqlalchemy import text
from support.postgres import migrated_url

SECRET = b"the same in every replica"
Maker = Callable[[], Buckets]


def take(buckets: Buckets, key: str, rate: Rate, now_s: float = 0.0) -> float:
    return asyncio.run(buckets.take(key, rate, now_s=now_s))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    mapped.make(tmp_path / "rates")
    return tmp_path / "rates"


@pytest.fixture
def postgres() -> Iterator[Database]:
    with migrated_url() as url:
        database = Database(url)
        yield database
        database.close()


@pytest.fixture(params=["memory", "mapped", "shared"])
def new(request: pytest.FixtureRequest) -> Iterator[Maker]:
    """Makes buckets; of those that are shared, further ones on the same counts."""
    made: list[Buckets] = []

    def make() -> Buckets:
        if request.param == "memory":
            made.append(MemoryBuckets())
        elif request.param == "mapped":
            made.append(MappedBuckets(request.getfixturevalue("table")))
        else:
            made.append(SharedBuckets(request.getfixturevalue("postgres").url, SECRET))
        return made[-1]

    yield make
    for buckets in made:
        buckets.close()


def test_a_burst_is_allowed_and_then_nothing_for_a_while(new: Maker) -> None:
    buckets, rate = new(), Rate(0.2)
    waits = [take(buckets, "a", rate) for _ in range(3)]
    assert waits[:2] == [0.0, 0.0]
    assert 4.0 < waits[2] <= 5.0


def test_one_sender_does_not_use_anothers_bucket(new: Maker) -> None:
    buckets, rate = new(), Rate(0.01)
    assert take(buckets, "a", rate) == 0.0
    assert take(buckets, "a", rate) > 0
    assert take(buckets, "b", rate) == 0.0


def test_a_rate_of_zero_is_no_limit(new: Maker) -> None:
    buckets = new()
    assert not any(take(buckets, "a", Rate(0.0)) for _ in range(1000))


@pytest.mark.parametrize("new", ["memory", "mapped"], indirect=True)
def test_after_the_burst_the_rate_passes(new: Maker) -> None:
    buckets, rate = new(), Rate(2.0)
    waits = [take(buckets, "a", rate) for _ in range(2 * BURST_S + 1)]
    assert waits[:-1] == [0.0] * (2 * BURST_S)
    assert waits[-1] == 0.5
    assert take(buckets, "a", rate, 0.49) > 0
    assert take(buckets, "a", rate, 0.51) == 0.0


@pytest.mark.parametrize("new", ["mapped", "shared"], indirect=True)
def test_who_shares_buckets_counts_together(new: Maker) -> None:
    one, other, rate = new(), new(), Rate(0.3)
    assert [take(each, "a", rate) == 0.0 for each in (one, other, one, other, one)] == [
        True,
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("new", ["mapped", "shared"], indirect=True)
def test_many_at_once_get_no_more_than_the_burst(new: Maker) -> None:
    rate, passed = Rate(0.001 + 1.9), [0] * 8

    def ask(number: int, buckets: Buckets) -> None:
        async def all_at_once() -> list[float]:
            return await asyncio.gather(*(buckets.take("a", rate, now_s=0.0) for _ in range(20)))

        passed[number] = asyncio.run(all_at_once()).count(0.0)

    threads = [threading.Thread(target=ask, args=(n, new())) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # PostgreSQL's clock goes on meanwhile: what a minute adds is allowed for.
    assert int(rate.burst) <= sum(passed) <= rate.burst + 60 * rate.per_s


def test_memory_is_bounded_and_the_one_unused_longest_goes() -> None:
    buckets, rate = MemoryBuckets(capacity=2), Rate(0.1)
    for key in ("a", "b", "a", "c"):
        take(buckets, key, rate)
    assert take(buckets, "b", rate) == 0.0
    assert len(buckets) == 2


def test_a_table_keeps_its_size_and_forgets_those_unused_longest(tmp_path: Path) -> None:
    mapped.make(tmp_path / "small", sets=4)
    buckets, rate = MappedBuckets(tmp_path / "small"), Rate(0.0001)
    size = (tmp_path / "small").stat().st_size
    for number in range(2000):
        assert take(buckets, str(number), rate, 1.0 + number * 0.001) == 0.0
        # Used between any two others, it is never the one unused longest.
        assert (take(buckets, "used", rate, 1.0 + number * 0.001) > 0) is (number > 0)
    assert take(buckets, "0", rate, 4.0) == 0.0
    assert (tmp_path / "small").stat().st_size == size
    buckets.close()


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        MappedBuckets(tmp_path / "absent")
    (tmp_path / "other").write_bytes(bytes(4 << 20))
    with pytest.raises(StorageError):
        MappedBuckets(tmp_path / "other")


def test_a_process_takes_ahead_and_asks_again_only_when_that_is_used(postgres: Database) -> None:
    buckets, rate = SharedBuckets(postgres.url, SECRET), Rate(1000.0)
    asked: list[int] = []
    inner = buckets._granted
    buckets._granted = lambda batch: (asked.append(len(batch)), inner(batch))[1]  # type: ignore[method-assign]
    ahead = int(1000 * LEASE_S)
    assert [take(buckets, "a", rate) for _ in range(2 * (ahead + 1))] == [0.0] * 2 * (ahead + 1)
    assert asked == [1, 1]
    assert take(buckets, "a", rate, KEPT_S + 1) == 0.0
    assert asked == [1, 1, 1]
    buckets.close()


def test_who_is_refused_is_refused_again_without_asking(postgres: Database) -> None:
    buckets, rate = SharedBuckets(postgres.url, SECRET), Rate(0.01)
    take(buckets, "a", rate)
    wait_s = take(buckets, "a", rate)
    postgres.close()
    buckets._engine.dispose()
    buckets._granted = None  # type: ignore[assignment, method-assign]
    assert take(buckets, "a", rate, wait_s - 1) == pytest.approx(1.0)
    buckets.close()


def test_addresses_of_people_do_not_stand_in_the_database(postgres: Database) -> None:
    buckets = SharedBuckets(postgres.url, SECRET)
    take(buckets, "address:192.0.2.7", Rate(1.0))
    with postgres.read() as session:
        (row,) = session.connection().execute(text("SELECT * FROM rate_bucket")).all()
    assert re.fullmatch("[0-9a-f]{32}", row.key)
    assert row.key != hashlib.sha256(b"address:192.0.2.7").hexdigest()[:32]
    buckets.close()


def test_without_the_database_each_process_counts_by_itself(postgres: Database) -> None:
    buckets, rate = SharedBuckets(postgres.url.set(database="absent"), SECRET), Rate(0.2)
    assert [take(buckets, "a", rate) == 0.0 for _ in range(3)] == [True, True, False]
    buckets.close()


def test_idle_buckets_are_swept(postgres: Database) -> None:
    buckets = SharedBuckets(postgres.url, SECRET)
    take(buckets, "a", Rate(1.0))
    with postgres.write() as session:
        session.connection().execute(text("UPDATE rate_bucket SET at = at - interval '1 hour'"))
    buckets._swept_s -= 1000
    take(buckets, "b", Rate(1.0))
    with postgres.read() as session:
        assert session.connection().execute(text("SELECT count(*) FROM rate_bucket")).scalar() == 1
    buckets.close()


def test_a_clock_that_was_set_back_does_not_stop_the_refill(postgres: Database) -> None:
    buckets, rate = SharedBuckets(postgres.url, SECRET), Rate(0.2)
    take(buckets, "a", rate)
    with postgres.write() as session:
        session.connection().execute(text("UPDATE rate_bucket SET at = at + interval '1 day'"))
    take(buckets, "a", rate, 1.0)
    with postgres.read() as session:
        query = "SELECT at < now() + interval '1 hour' FROM rate_bucket"
        assert session.connection().execute(text(query)).scalar() is True
    buckets.close()


@settings(deadline=None)
@given(
    st.floats(0.1, 50),
    st.lists(st.floats(0, 3, allow_subnormal=False), min_size=1, max_size=200),
)
def test_never_more_than_the_burst_and_the_rate_pass(per_s: float, pauses: list[float]) -> None:
    buckets, rate, now_s, passed = MemoryBuckets(), Rate(per_s), 0.0, 0
    for pause in pauses:
        now_s += pause
        passed += buckets.take_now("a", rate, now_s) == 0.0
    assert passed <= rate.burst + per_s * sum(pauses) + 1e-6


@given(st.floats(0, 1e6))
def test_waits_are_whole_seconds_rounded_up(wait_s: float) -> None:
    assert whole_seconds(wait_s) >= 1
    assert wait_s <= whole_seconds(wait_s) < wait_s + 2
