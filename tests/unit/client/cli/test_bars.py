"""Bars for long work: on a person's terminal, and nowhere else."""

from __future__ import annotations

import io
from unittest import mock

import pytest
from memcube.cli.answer import Mode
from memcube.cli.bars import steps_for


class Terminal(io.StringIO):
    """What a person watches."""

    def isatty(self) -> bool:
        return True


def shown(mode: Mode, stream: io.StringIO) -> str:
    """What is written to stderr while two kinds of work go on."""
    with mock.patch("sys.stderr", stream), steps_for(mode) as watch:
        for done in range(1, 4):
            watch("teaching", done, 3)
        watch("asking", 1, 1)
    return stream.getvalue()


def test_a_person_at_a_terminal_sees_each_kind_of_work() -> None:
    told = shown(Mode(), Terminal())
    assert "teaching" in told
    assert "asking" in told


@pytest.mark.parametrize(
    ("mode", "stream"),
    [(Mode(), io.StringIO()), (Mode(quiet=True), Terminal()), (Mode(as_json=True), Terminal())],
    ids=["a pipe", "quiet", "for a program"],
)
def test_nobody_else_sees_any(mode: Mode, stream: io.StringIO) -> None:
    assert shown(mode, stream) == ""
