"""Builds that were killed: what they had made of private memories does not stay on the disk."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from memcube.client import Client
from memcube.settings import Settings
from memcube.store.workshops import workshop

KILLED = """
import os, signal, sys
from memcube.store.workshops import workshop
from memcube.client import Client
from memcube.settings import Settings

with Client(Settings.load({"MEMCUBE_HOME": sys.argv[1]})) as client, workshop(client.context.settings.home) as folder:
    (folder / "records.jsonl").write_text("private")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_build_left_goes_with_the_next_and_no_running_one_is_disturbed(
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    with Client(Settings.load({"MEMCUBE_HOME": str(home)})) as client:
        with workshop(client.context.settings.home) as running:
            (running / "made").write_text("in use")
            subprocess.run([sys.executable, "-c", KILLED, str(home)], check=False, timeout=100)
            (left,) = set((home / "building").iterdir()) - {running}
            assert (left / "records.jsonl").read_text() == "private"
            with workshop(client.context.settings.home) as next_one:
                assert set((home / "building").iterdir()) == {running, next_one}
            assert (running / "made").read_text() == "in use"
        assert [*(home / "building").iterdir()] == []
