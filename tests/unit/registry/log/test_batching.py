"""Group commit: nothing is lost, nothing is written twice, errors reach whom they concern."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from memcube_protocol.errors import ConflictError
from memcube_registry.log.batching import Batches


def test_what_waits_while_a_batch_is_written_becomes_the_next_batch():
    written: list[list[int]] = []
    begun, go_on = threading.Event(), threading.Event()

    def write(items):
        written.append(list(items))
        begun.set()
        assert go_on.wait(10)
        return [item * 2 for item in items]

    batches: Batches[int, int] = Batches(write, 8)
    with ThreadPoolExecutor(21) as pool:
        first = pool.submit(batches.submit, 0)
        assert begun.wait(10)
        others = [pool.submit(batches.submit, number) for number in range(1, 21)]
        while len(batches._waiting) < 20:
            threading.Event().wait(0.001)
        go_on.set()
        results = [future.result(10) for future in [first, *others]]
    assert results == [number * 2 for number in range(21)]
    assert [len(batch) for batch in written] == [1, 8, 8, 4]
    assert sorted(number for batch in written for number in batch) == list(range(21))


def test_an_error_of_one_item_is_its_own():
    batches: Batches[int, int] = Batches(
        lambda items: [ConflictError("odd") if item % 2 else item for item in items], 8
    )
    assert batches.submit(2) == 2
    with pytest.raises(ConflictError):
        batches.submit(3)


def test_a_batch_that_cannot_be_written_fails_whoever_waits_for_it_and_nobody_else():
    broken = [True]

    def write(items):
        if broken:
            broken.clear()
            raise OSError("the disk is full")
        return items

    batches: Batches[int, int] = Batches(write, 8)
    with pytest.raises(OSError, match="full"):
        batches.submit(1)
    assert batches.submit(2) == 2
