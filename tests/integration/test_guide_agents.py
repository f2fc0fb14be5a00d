"""The guide to agents over MCP: its commands run in their order, its tables are what the code says."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Person
from memcube.mcp.clients import CLIENTS
from memcube.mcp.tools import TOOLS
from support.machine import Machine

GUIDE = (Path(__file__).parents[2] / "docs" / "guide" / "agents-over-mcp.md").read_text("utf-8")
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def ada(new_person: Callable[[], Person]) -> Person:
    """Somebody who has nothing at the registry yet: the guide's cubes have names of their own."""
    return new_person()


def test_the_commands_of_the_guide_do_what_it_says(
    ada: Person,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("qdrant_edge")
    machine = Machine(tmp_path / "home", ada.server.url, ada.token)
    monkeypatch.chdir(tmp_path)
    for name, value in machine.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{machine.environment['PATH']}")
    machine.ok("init", "handbook", "--name", f"{ada.name}/handbook")
    machine.ok("push", "handbook")
    for language, block in BLOCK.findall(GUIDE.replace("alice/", f"{ada.name}/")):
        if language == "python":
            exec(block, {})
            continue
        for line in block.splitlines():
            program, *words = shlex.split(line)
            assert program == "memcube"
            machine.ok(*words)
    assert "lies in Tartu" in capsys.readouterr().out
    assert "notes:0.1.0" in machine.ok("ls")
    assert (tmp_path / ".cursor/mcp.json").is_file()


def test_the_tables_of_the_guide_name_every_tool_and_client() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \|", GUIDE, re.MULTILINE)
    assert rows == [*CLIENTS, *(tool.name for tool in TOOLS)]
    for tool in TOOLS:
        (row,) = re.findall(rf"^\| `{tool.name}` \| (.*?) \|", GUIDE, re.MULTILINE)
        assert set(re.findall(r"`(\w+)`", row)) == set(tool.takes["properties"])
