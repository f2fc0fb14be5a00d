"""Every command of the README runs, in its order, as a reader would type it."""

import importlib.util
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.servers import clean_environment, free_port

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.skipif(
        importlib.util.find_spec("qdrant_edge") is None, reason="qdrant-edge-py is not installed"
    ),
]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the README's shell blocks, but the first, print together, with the Python block last."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "example.py").write_text("\n".join(blocks("python")))
    lines = [*"\n".join(blocks("sh")[1:]).splitlines(), "python example.py"]
    port = free_port()
    wait = f"until curl -fs 127.0.0.1:{port}/healthz >/dev/null; do sleep 0.2; done"
    lines.insert(
        next(i for i, line in enumerate(lines) if line.startswith("memcube serve")) + 1, wait
    )
    environment = clean_environment(
        MEMCUBE_HOME=str(folder / "home"),
        MEMCUBE_ENDPOINT=f"http://127.0.0.1:{port}",
        MEMCUBE_REGISTRY_PORT=str(port),
        MEMCUBE_REGISTRY_DATA_DIR=str(folder / "registry"),
        MEMCUBE_KEYRING="0",
        MEMCUBE_KEY_PASSPHRASE="of this test",
        PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    )
    script = folder / "readme.sh"
    script.write_text("set -euxo pipefail\n" + "\n".join(lines) + "\n")
    log = folder / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            ["bash", script],
            stdout=file,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment,
            cwd=folder,
            start_new_session=True,
        )
        code = process.wait(220)
    os.killpg(process.pid, signal.SIGTERM)
    text = log.read_text("utf-8", "replace")
    assert code == 0, text
    return text


def test_the_two_commands_that_do_everything_stand_at_the_top() -> None:
    first = blocks("sh")[0]
    assert re.findall(r"^make (\w+)", first, re.MULTILINE) == ["demo", "test"]
    assert README.index(first) < 300


def test_the_notes_are_published_verified_and_found(output: str) -> None:
    assert "Published 127.0.0.1" in output
    assert "Verified 127.0.0.1" in output
    assert output.count("Test a backup by restoring it on another machine.") >= 2


def test_every_linked_page_exists() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert [link for link in links if not (ROOT / link).exists()] == []
