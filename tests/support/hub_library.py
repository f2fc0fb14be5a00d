"""The Hub's own client library as a process, in the version of this environment and an older one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from support.servers import clean_environment

OLDER = Path("/usr/local/lib/huggingface-hub/bin/python")
TIMEOUT_S = 110
_PROLOGUE = """\
import json, sys
import huggingface_hub as hub
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
def say(value): print("\\n=> " + json.dumps(value, default=str))
def refusal(work):
    try: work()
    except Exception as error: return type(error).__name__
api = HfApi()
"""

both_versions = pytest.mark.parametrize(
    "python",
    [
        pytest.param(Path(sys.executable), id="this version"),
        pytest.param(
            OLDER,
            id="older version",
            marks=pytest.mark.skipif(
                not OLDER.exists(), reason="run .ci/hub for an older huggingface_hub"
            ),
        ),
    ],
)
"""Runs a test once for each version; its argument `python` is that version's interpreter."""


@dataclass(frozen=True)
class HubLibrary:
    """Somebody who uses the library against `endpoint`, with caches of their own below `home`."""

    python: Path
    endpoint: str
    home: Path
    token: str | None = None
    more: Mapping[str, str] = field(default_factory=dict)

    def run(self, script: str, *arguments: str) -> Any:
        """What `script` last said with `say`. `api`, `hub` and `refusal` are at its hand."""
        done = self._process([str(self.python), "-c", _PROLOGUE + script, *arguments])
        assert done.returncode == 0, done.stdout + done.stderr
        said = [line for line in done.stdout.splitlines() if line.startswith("=> ")]
        return json.loads(said[-1].removeprefix("=> "))

    def hf(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The library's own command, finished, whatever its exit code."""
        return self._process([str(self.python.parent / "hf"), *arguments])

    def _process(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            env=self._environment(),
            timeout=TIMEOUT_S,
            check=False,
        )

    def _environment(self) -> dict[str, str]:
        kept = {k: v for k, v in clean_environment().items() if not k.startswith("HF_")}
        own = {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(self.home),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "NO_COLOR": "1",
        }
        return kept | own | ({"HF_TOKEN": self.token} if self.token else {}) | dict(self.more)
