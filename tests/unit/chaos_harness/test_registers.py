"""What the operations of a journal wrote."""

import pytest
from chaos.journal import Event, Outcome
from chaos.registers import history_of

BLOB = ("blob", "ada/one", "sha256:00")


def announcement(outcome: Outcome, **more: str) -> Event:
    return Event(0, "http-1", "announce upload", *BLOB[1:], "", 1.0, 2.0, outcome, 200, dict(more))


@pytest.mark.parametrize(
    ("event", "certain"),
    [
        (announcement(Outcome.ACKNOWLEDGED, state="open"), []),
        (announcement(Outcome.ACKNOWLEDGED, state="mounted"), [True]),
        (announcement(Outcome.ACKNOWLEDGED, state="present"), [True]),
        (announcement(Outcome.UNKNOWN), [False]),
        (announcement(Outcome.REFUSED), []),
    ],
)
def test_an_announcement_writes_a_blob_unless_it_opens_an_upload(
    event: Event, certain: list[bool]
) -> None:
    assert [write.is_certain for write in history_of([event]).of(BLOB)] == certain
