"""The page of a cube in a real browser: it is laid out with our style, and nothing in it runs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import Person, fresh
from support.machine import Machine

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
HOSTILE = (
    '<script>document.body.innerHTML="owned"</script><img src=x onerror="document.title=1">'
    '<style>body{display:none}</style><iframe src="https://elsewhere.example"></iframe>'
)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


def rendered(url: str, profile: Path) -> str:
    """The document at `url` once a browser has loaded it and run what it may run."""
    assert CHROMIUM
    done = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--no-first-run",
            f"--user-data-dir={profile}",
            "--virtual-time-budget=3000",
            "--enable-logging=stderr",
            "--dump-dom",
            url,
        ],
        capture_output=True,
        text=True,
        timeout=90,
        check=True,
    )
    assert "Content Security Policy" not in done.stderr, done.stderr
    return done.stdout


def test_a_browser_shows_a_hostile_publishers_cube_as_plain_text(tmp_path: Path, ada: Person):
    publisher = Machine(tmp_path / "publisher", ada.server.url, ada.token)
    name = f"{ada.name}/{fresh('notes')}"
    publisher.ok("init", tmp_path / "cube", "--name", name)
    (tmp_path / "cube" / "README.md").write_text(HOSTILE)
    publisher.ok("push", tmp_path / "cube", "--public", "--allow-findings")
    page = rendered(f"{ada.server.url}/{name}", tmp_path / "profile")
    assert "&lt;script&gt;" in page
    for element in ("<script", "<img", "<iframe", "<style", "<form"):
        assert element not in page
    assert ">Publisher</h2>" in page
    assert f"memcube pull {ada.server.wire.netloc}/{name}" in page


def test_a_browser_is_told_nothing_of_a_private_cube(tmp_path: Path, ada: Person):
    publisher = Machine(tmp_path / "publisher", ada.server.url, ada.token)
    name = f"{ada.name}/{fresh('notes')}"
    publisher.ok("init", tmp_path / "cube", "--name", name)
    publisher.ok("push", tmp_path / "cube")
    page = rendered(f"{ada.server.url}/{name}", tmp_path / "profile")
    assert "Not found" in page
    assert name not in page
