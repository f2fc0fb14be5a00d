"""Every command of the guide to a first cube runs, in its order."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Person
from support.machine import Machine

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "guide" / "first-cube.md").read_text("utf-8")


@pytest.mark.skipif(
    importlib.util.find_spec("qdrant_edge") is None, reason="qdrant-edge-py is not installed"
)
def test_the_commands_of_the_guide_do_what_it_says(ada: Person, tmp_path: Path) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 5
    script = "set -euo pipefail\n" + "".join(blocks).replace("alice/", f"{ada.name}/")
    machine = Machine(tmp_path / "home", ada.server.url, ada.token)
    path = f"{Path(sys.executable).parent}:{machine.environment['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=machine.environment | {"PATH": path},
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The third copy lies in the office in Tartu." in done.stdout
    assert f"{ada.name}/backups:0.2.0" in done.stdout
    assert (tmp_path / "plain" / "README.md").is_file()


def test_the_folder_of_the_guide_is_the_one_that_is_packed() -> None:
    from memcube.packing.layout import ACTIVATION_FILES, PARAMETRIC_FILES

    for name in (*ACTIVATION_FILES, *PARAMETRIC_FILES, "memcube.toml", "attachments/"):
        assert name in GUIDE
