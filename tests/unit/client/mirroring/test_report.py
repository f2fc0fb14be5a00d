"""What a round of a mirror says at its end."""

from __future__ import annotations

import pytest
from memcube.mirroring import Fate, Report, Row
from memcube_protocol.errors import EXIT_CONFLICT, EXIT_ERROR, EXIT_NETWORK, EXIT_OK, EXIT_TRUST


def report(*rows: tuple[Fate, int]) -> Report:
    made = (
        Row("alice/notes", str(at), fate, exit_code=code) for at, (fate, code) in enumerate(rows)
    )
    return Report("a.example/alice", "b.example/alice", tuple(made))


@pytest.mark.parametrize(
    ("rows", "code"),
    [
        ([], EXIT_OK),
        ([(Fate.COPIED, EXIT_OK), (Fate.KEPT, EXIT_OK), (Fate.SKIPPED, EXIT_OK)], EXIT_OK),
        ([(Fate.COPIED, EXIT_OK), (Fate.REFUSED, EXIT_TRUST)], EXIT_TRUST),
        ([(Fate.FAILED, EXIT_NETWORK), (Fate.FAILED, EXIT_NETWORK)], EXIT_NETWORK),
        ([(Fate.ALARM, EXIT_CONFLICT), (Fate.FAILED, EXIT_NETWORK)], EXIT_ERROR),
    ],
)
def test_the_exit_code_tells_what_failed(rows: list[tuple[Fate, int]], code: int) -> None:
    assert report(*rows).exit_code == code


def test_every_fate_is_counted_also_those_that_nothing_had() -> None:
    counts = report((Fate.COPIED, 0), (Fate.COPIED, 0), (Fate.ALARM, EXIT_CONFLICT)).counts
    assert set(counts) == {fate.value for fate in Fate}
    assert (counts["copied"], counts["alarm"], counts["failed"]) == (2, 1, 0)
