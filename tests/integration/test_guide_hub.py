"""Every command of the guide to cubes on the Hub runs, in its order, against the test server."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from support.hub import HubServer
from support.hub_machine import machine_of

GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "cubes-on-the-hub.md"


def test_the_commands_of_the_guide_publish_a_cube_that_everybody_can_read(
    hub: HubServer, tmp_path: Path
) -> None:
    section = (
        GUIDE.read_text("utf-8").partition("## Publish a cube on the Hub")[2].partition("\n## ")[0]
    )
    (script,) = re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    alice = machine_of(hub, tmp_path / "alice", hub.state.token("alice"))
    environment = hub.environment(alice.more["HF_TOKEN"]) | alice.environment
    done = subprocess.run(
        ["bash", "-c", f"set -euo pipefail\n{script}"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment | {"PATH": f"{Path(sys.executable).parent}:{environment['PATH']}"},
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "plain" / ".memcube" / "manifest.json").is_file()
    made = hub.state.of("dataset", "alice/notes")
    assert not made.private
    assert set(made.tags) == {"0.1.0", "stable"}
    assert set(hub.state.of("model", "alice/notes").tags) == {"0.1.0"}
