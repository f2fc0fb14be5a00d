"""Every command of the guide to copies and mirrors runs, in its order, at registries of other names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.machine import Machine
from support.published import Published
from support.quirky import QuirkyRegistry, quirky

GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "copy-and-mirror.md"
HOSTS = ("registry.example", "mirror.example", "registry.inside")
COMMAND = re.compile(r"^\$ memcube (.+?)(?:\s+#.*)?$", re.MULTILINE)


@pytest.fixture
def registries() -> Iterator[dict[str, QuirkyRegistry]]:
    """A registry for each host of the guide."""
    with ExitStack() as servers:
        yield {host: servers.enter_context(quirky()) for host in HOSTS}


def test_the_commands_of_the_guide_run(
    registries: dict[str, QuirkyRegistry], tmp_path: Path
) -> None:
    publisher = Machine(tmp_path / "publisher", registries["registry.example"].url)
    Published(publisher, "alice/notes", tmp_path / "notes").push()
    Published(publisher, "alice/diary", tmp_path / "diary").push()
    reader = Machine(tmp_path / "reader", registries["registry.inside"].url)
    commands = COMMAND.findall(GUIDE.read_text("utf-8"))
    assert len(commands) >= 5
    for line in commands:
        text = line.replace("/media/stick", str(tmp_path / "stick"))
        for host, registry in registries.items():
            text = text.replace(host, registry.host)
        reader.ok(*text.split())
    for host in HOSTS[1:]:
        assert "1.0.0" in registries[host].repository("alice/notes").tags
    assert "1.0.0" in registries["mirror.example"].repository("alice/diary").tags


def test_the_options_of_the_guide_are_those_of_the_commands() -> None:
    machine = Machine(Path("/nonexistent"), "http://127.0.0.1:1")
    said = {word for line in GUIDE.read_text("utf-8").splitlines() for word in options(line)}
    known = {
        one
        for name in ("cp", "mirror", "login", "pull")
        for one in options(machine.ok(name, "--help"))
    }
    assert said <= known
    assert {
        "--all-tags",
        "--no-builds",
        "--prune",
        "--interval",
        "--once",
        "--cube",
        "--tag",
    } <= said


def options(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z]+(?:-[a-z]+)*", text))
