import threading
import time

import pytest
from memcube.transfer.progress import Moved, Outcome, Report, distinct
from memcube.transfer.workers import Line, Stop, run
from memcube_protocol import media_types
from memcube_protocol.errors import MemcubeError, NotFoundError
from memcube_protocol.oci import Descriptor


def blobs(*sizes: int) -> list[Descriptor]:
    return [Descriptor.of(media_types.RECORDS, bytes(size)) for size in sizes]


def test_results_come_in_the_order_asked_for_and_large_blobs_are_begun_first() -> None:
    begun: list[int] = []

    def work(blob: Descriptor, stop: Stop) -> Moved:
        begun.append(blob.size)
        return Moved(blob, Outcome.FETCHED, blob.size)

    wanted = blobs(1, 3, 2)
    assert [moved.blob for moved in run(work, wanted, 1)] == wanted
    assert begun == [3, 2, 1]


def test_blobs_move_at_the_same_time() -> None:
    together = threading.Barrier(3)

    def work(blob: Descriptor, stop: Stop) -> Moved:
        together.wait(10)
        return Moved(blob, Outcome.FETCHED)

    assert len(run(work, blobs(1, 2, 3), 3)) == 3


def test_the_first_error_ends_the_transfer_and_the_others_stop() -> None:
    ended: list[int] = []
    together = threading.Barrier(3)

    def work(blob: Descriptor, stop: Stop) -> Moved:
        together.wait(10)
        if blob.size == 2:
            raise NotFoundError("gone", hint="none")
        try:
            while True:
                stop.check()
                time.sleep(0.005)
        finally:
            ended.append(blob.size)

    with pytest.raises(NotFoundError, match="gone"):
        run(work, blobs(1, 2, 3), 3)
    deadline = time.monotonic() + 5
    while len(ended) < 2 and time.monotonic() < deadline:
        time.sleep(0.005)
    assert sorted(ended) == [1, 3]


def test_nothing_to_move_is_done_at_once() -> None:
    assert run(lambda blob, stop: Moved(blob, Outcome.SENT), [], 4) == []


def test_a_blob_named_twice_moves_once() -> None:
    one, two = blobs(1, 2)
    assert distinct([one, two, one]) == [one, two]


def test_a_report_adds_up() -> None:
    one, two = blobs(1, 2)
    report = Report((Moved(one, Outcome.PRESENT), Moved(two, Outcome.SENT, 2)))
    assert (report.moved_bytes, report.total_bytes) == (2, 3)
    assert report.count(Outcome.SENT) == 1


class TestALine:
    def test_works_on_what_comes_in_its_order_and_can_be_waited_for_again(self) -> None:
        done: list[int] = []
        line = Line[int](lambda item, _stop: done.append(item), 1)
        line.wait()
        for item in range(20):
            line.add(item)
        line.wait()
        line.add(20)
        line.wait()
        assert done == list(range(21))

    def test_works_on_as_many_at_once_as_it_may_and_on_no_more(self) -> None:
        together, at_once, most = threading.Barrier(3), 0, 0
        lock = threading.Lock()

        def work(item: int, stop: Stop) -> None:
            nonlocal at_once, most
            with lock:
                at_once += 1
                most = max(most, at_once)
            together.wait(30)
            with lock:
                at_once -= 1

        line = Line(work, 3)
        for item in range(9):
            line.add(item)
        line.wait()
        assert most == 3

    def test_after_a_failure_begins_nothing_more_and_tells_everybody(self) -> None:
        begun: list[int] = []
        others = threading.Event()

        def work(item: int, stop: Stop) -> None:
            begun.append(item)
            others.wait(30)
            raise NotFoundError(f"no {item}", hint="none")

        line = Line(work, 1)
        for item in range(3):
            line.add(item)
        others.set()
        with pytest.raises(NotFoundError, match="no 0"):
            line.wait()
        with pytest.raises(NotFoundError, match="no 0"):
            line.add(3)
        line.end()
        assert begun == [0]

    def test_ends_what_is_under_way_after_its_piece_and_drops_what_waits(self) -> None:
        begun: list[int] = []
        under_way, ended = threading.Event(), threading.Event()

        def work(item: int, stop: Stop) -> None:
            begun.append(item)
            under_way.set()
            try:
                while True:
                    stop.check()
                    time.sleep(0.001)
            except MemcubeError:
                ended.set()
                raise

        line = Line(work, 1)
        line.add(1)
        line.add(2)
        assert under_way.wait(30)
        line.end()
        assert ended.is_set()
        assert begun == [1]

    def test_tells_the_failure_that_stopped_the_others_and_not_that_they_stopped(self) -> None:
        def work(item: int, stop: Stop) -> None:
            if not item:
                raise NotFoundError("no 0", hint="none")
            while True:
                stop.check()

        for _ in range(20):
            line = Line(work, 4)
            for item in (1, 2, 3, 0):
                line.add(item)
            with pytest.raises(NotFoundError):
                line.wait()
            line.end()
