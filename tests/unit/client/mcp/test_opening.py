"""Opening the desk: the cubes of a role beside an overlay; what is missing is said before."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from memcube.cli.run import run
from memcube.client import Client
from memcube.mcp.opening import open_desk
from memcube.settings import Settings
from memcube_protocol.errors import EXIT_USAGE, outcome_of
from memcube_protocol.errors import MissingDependencyError as Missing
from support.mounted import HANDBOOK, pack_handbook


def test_a_profile_stands_for_the_cubes_of_a_role(tmp_path: Path) -> None:
    pytest.importorskip("qdrant_edge")
    environ = pack_handbook(tmp_path)
    config = Path(environ["MEMCUBE_HOME"]) / "config.toml"
    config.write_text('[profile.work]\ncubes = ["acme/handbook"]\nbudget_tokens = 300\n')
    with (
        Client(Settings.load(environ)) as client,
        open_desk(client, profile="work", overlay=tmp_path / "own") as desk,
    ):
        assert desk.names == ["own", HANDBOOK]
        assert desk.memory.budget_tokens == 300


def test_without_the_sdk_nothing_is_mounted_and_the_remedy_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "mcp", None)
    monkeypatch.setitem(sys.modules, "mcp.server", None)
    own = tmp_path / "own"
    assert run(["mcp", "--overlay", str(own)]) == outcome_of(Missing("")).exit_code
    assert "pip install 'memcube[mcp,plaintext]'" in capsys.readouterr().err
    assert not own.exists()


def test_an_address_for_others_without_a_token_is_refused_before_anything_is_mounted(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mcp")
    monkeypatch.delenv("MEMCUBE_MCP_TOKEN", raising=False)
    own = tmp_path / "own"
    words = ["mcp", "--overlay", str(own), "--http", "--host", "0.0.0.0"]
    assert run(words) == EXIT_USAGE
    assert "other machines" in capsys.readouterr().err
    assert not own.exists()
