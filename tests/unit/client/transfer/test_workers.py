import threading
import time

import pytest
from memcube.transfer.progress import Moved, Outcome, Report, distinct
from memcube.transfer.workers import Stop, run
from memcube_protocol import media_types
from memcube_protocol.errors import NotFoundError
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

    def work(blob: Descriptor, stop: Stop) -> Moved:
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
