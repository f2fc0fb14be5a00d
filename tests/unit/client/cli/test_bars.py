"""Bars for long work: on a person's terminal, and nowhere else."""

from __future__ import annotations

import io
from unittest import mock

import pytest
from memcube.cli.answer import Mode
from memcube.cli.bars import progress_for, steps_for
from memcube_protocol.digest import Digest
from memcube_protocol.oci import Descriptor


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


def test_a_bar_speaks_of_bytes_only_once_there_are_some_to_move() -> None:
    blob = Descriptor("application/octet-stream", Digest.of(b"x" * 2048), 2048)
    terminal = Terminal()
    with mock.patch("sys.stderr", terminal), progress_for(Mode()) as (progress, pause):
        with pause():
            waiting = terminal.getvalue()
        progress.expect([blob])
        progress.advance(blob, 2048)
    assert "working" in waiting
    assert "bytes" not in waiting
    assert "?" not in waiting.replace("[?25", "")
    assert "2.0/2.0 kB" in terminal.getvalue()
