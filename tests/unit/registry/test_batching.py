"""Group commit: nothing is lost, nothing is done twice, errors reach whom they concern."""

import asyncio
import threading
from concurrent.futures import CancelledError

import pytest
from memcube_protocol.errors import ConflictError
from memcube_registry.batching import Batches


class Slow:
    """Work that begins when it is asked to, and goes on when it is let go."""

    def __init__(self) -> None:
        self.done: list[list[int]] = []
        self.begun, self.go_on = threading.Event(), threading.Event()

    def __call__(self, items):
        self.done.append(list(items))
        self.begun.set()
        assert self.go_on.wait(10)
        return [item * 2 for item in items]


def test_what_waits_while_a_batch_is_worked_on_becomes_the_next_batch():
    slow = Slow()
    batches: Batches[int, int] = Batches(slow, 8)
    first = batches.submit(0)
    assert slow.begun.wait(10)
    others = [batches.submit(number) for number in range(1, 21)]
    slow.go_on.set()
    assert [one.result(10) for one in (first, *others)] == [2 * number for number in range(21)]
    assert [len(batch) for batch in slow.done] == [1, 8, 8, 4]
    assert [number for batch in slow.done for number in batch] == list(range(21))


def test_an_error_of_one_item_is_its_own():
    batches: Batches[int, int] = Batches(
        lambda items: [ConflictError("odd") if item % 2 else item for item in items], 8
    )
    assert batches.submit(2).result(10) == 2
    with pytest.raises(ConflictError):
        batches.submit(3).result(10)


def test_a_batch_that_fails_fails_whoever_waits_for_it_and_nobody_else():
    broken = [True]

    def work(items):
        if broken:
            broken.clear()
            raise OSError("the disk is full")
        return items

    batches: Batches[int, int] = Batches(work, 8)
    with pytest.raises(OSError, match="full"):
        batches.submit(1).result(10)
    assert batches.submit(2).result(10) == 2


def test_a_thousand_tasks_of_one_loop_wait_without_a_thread_each():
    before, seen = threading.active_count(), set()

    def work(items):
        seen.add(threading.active_count())
        return items

    batches: Batches[int, int] = Batches(work, 64)

    async def ask() -> list[int]:
        futures = [batches.submit(number) for number in range(1000)]
        return list(await asyncio.gather(*map(asyncio.wrap_future, futures)))

    assert asyncio.run(ask()) == list(range(1000))
    assert max(seen) <= before + 1


def test_who_waits_no_longer_takes_nobody_along():
    slow = Slow()
    batches: Batches[int, int] = Batches(slow, 8)
    first, given_up, last = (batches.submit(number) for number in range(3))
    assert slow.begun.wait(10)
    assert given_up.cancel()
    slow.go_on.set()
    assert (first.result(10), last.result(10)) == (0, 4)
    with pytest.raises(CancelledError):
        given_up.result(10)


def test_threads_that_submit_at_once_are_all_answered():
    batches: Batches[int, int] = Batches(lambda items: [item * 2 for item in items], 7)
    found: dict[int, int] = {}

    def ask(number: int) -> None:
        found[number] = batches.submit(number).result(10)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: number * 2 for number in range(50)}
