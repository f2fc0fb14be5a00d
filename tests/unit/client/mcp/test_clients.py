"""Writing the configuration of MCP clients: one entry, everything else as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from memcube.cli.run import run
from memcube.mcp import clients
from memcube.mcp.clients import CLIENTS, Installation, installation
from memcube_protocol.errors import EXIT_USAGE, ConflictError, InvalidJsonError, outcome_of

CURSOR = CLIENTS["cursor"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "bin/memcube"
    program.parent.mkdir()
    program.write_text("")
    monkeypatch.setattr("sys.argv", [str(program)])
    return tmp_path


def planned(home: Path, client: str = "cursor", name: str = "memcube", **more: Any) -> Installation:
    given = {"home": home, "project": home / "project", "environment": {}} | more
    return installation(CLIENTS[client], name, ["alice/notes"], **given)


@pytest.mark.parametrize("client", CLIENTS)
def test_each_client_gets_the_entry_in_its_own_form(home: Path, client: str) -> None:
    kind, one = CLIENTS[client], planned(home, client, environment={"MEMCUBE_HOME": "/m"})
    assert one.write() is None
    assert one.path == (home / "project" if kind.in_project else home) / kind.path
    entry = json.loads(one.path.read_bytes())[kind.key]["memcube"]
    assert entry["command"] == str(home / "bin/memcube")
    assert entry["args"] == ["mcp", "serve", "alice/notes"]
    assert entry["env"] == {"MEMCUBE_HOME": "/m"}
    assert ("type" in entry) == kind.says_type
    assert one.path.stat().st_mode & 0o077 == 0


def test_everything_else_in_the_file_stays_and_a_copy_of_it_is_kept(home: Path) -> None:
    path = home / CURSOR.path
    path.parent.mkdir()
    before = '{"theme": "é", "mcpServers": {"z": {"command": "x"}, "a": {}}, "n": [1.5, null]}'
    path.write_text(before)
    path.chmod(0o640)
    backup = planned(home).write()
    assert backup is not None
    assert backup.read_text() == before
    after = json.loads(path.read_text())
    assert [*after["mcpServers"]] == ["z", "a", "memcube"]
    del after["mcpServers"]["memcube"]
    assert after == json.loads(before)
    assert [*after] == ["theme", "mcpServers", "n"]
    assert path.stat().st_mode & 0o777 == 0o640


def test_the_same_again_changes_nothing(home: Path) -> None:
    planned(home).write()
    path = home / CURSOR.path
    path.write_text(json.dumps(json.loads(path.read_text())))
    again = planned(home)
    again.require_new()
    assert again.write() is None
    assert again.content == again.before == path.read_bytes()


@pytest.mark.parametrize(
    ("old", "shown"),
    [
        ({"command": "/bin/other"}, '-  "command": "/bin/other"'),
        ({"command": "memcube", "args": ["mcp", "serve", "alice/old"]}, '-   "alice/old"'),
        ({"url": "https://mcp.example"}, '-  "url": "https://mcp.example"'),
        ("no object", '- "no object"'),
        (None, "- null"),
    ],
)
def test_another_entry_of_the_name_is_shown_and_replaced_by_wish_alone(
    home: Path, old: object, shown: str
) -> None:
    path = home / CURSOR.path
    path.parent.mkdir()
    path.write_text(json.dumps({"mcpServers": {"memcube": old, "z": {"command": "x"}}}))
    one = planned(home)
    with pytest.raises(ConflictError, match="another server called 'memcube'") as refused:
        one.require_new()
    assert shown in str(refused.value)
    assert '+  "command"' in str(refused.value)
    assert planned(home, name="memories").differs == ()
    assert one.write() == path.with_name("mcp.json.memcube-backup")
    servers = json.loads(path.read_text())["mcpServers"]
    assert servers["z"] == {"command": "x"}
    assert servers["memcube"]["args"] == ["mcp", "serve", "alice/notes"]


def test_secrets_of_an_entry_are_not_shown(home: Path) -> None:
    path = home / CURSOR.path
    path.parent.mkdir()
    entry = {"command": "x", "env": {"KEY": "sk-1"}, "headers": {"Authorization": "Bearer 2"}}
    path.write_text(json.dumps({"mcpServers": {"memcube": entry}}))
    told = "\n".join(planned(home, environment={"MEMCUBE_HOME": "/m"}).differs)
    assert '"KEY": "…"' in told
    assert '"MEMCUBE_HOME": "/m"' in told
    assert "sk-1" not in told
    assert "Bearer" not in told


def test_what_somebody_else_wrote_meanwhile_is_not_lost(home: Path) -> None:
    one = planned(home)
    path = home / CURSOR.path
    path.parent.mkdir()
    path.write_text('{"theme": "dark"}')
    with pytest.raises(ConflictError, match="meanwhile"):
        one.write()
    assert path.read_text() == '{"theme": "dark"}'


def test_numbers_of_any_size_in_the_file_stay(home: Path) -> None:
    path = home / CURSOR.path
    path.parent.mkdir()
    path.write_text('{"id": 12345678901234567890}')
    planned(home).write()
    assert json.loads(path.read_text())["id"] == 12345678901234567890


@pytest.mark.parametrize(
    "content",
    ['{"a": 1, // comment\n}', "[]", '{"mcpServers": []}', '{"a": 1, "a": 2}', "\ud800"],
    ids=["comment", "list", "other form", "twice", "no UTF-8"],
)
def test_a_file_that_would_lose_something_is_not_changed(home: Path, content: str) -> None:
    path = home / CURSOR.path
    path.parent.mkdir()
    path.write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(InvalidJsonError, match="not changed"):
        planned(home)


def test_a_file_behind_a_link_is_changed_where_it_lies(home: Path) -> None:
    kept = home / "dotfiles/mcp.json"
    kept.parent.mkdir()
    kept.write_text("{}")
    path = home / CURSOR.path
    path.parent.mkdir()
    path.symlink_to(kept)
    planned(home).write()
    assert path.is_symlink()
    assert "memcube" in kept.read_text()


@pytest.mark.parametrize("client", ["claude-code", "vscode"])
def test_a_project_leads_to_no_file_outside_of_it(home: Path, client: str) -> None:
    victim = home / "settings.json"
    victim.write_text("{}")
    path = home / "project" / CLIENTS[client].path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(victim)
    with pytest.raises(ConflictError, match="leads out of the project"):
        planned(home, client)
    assert victim.read_text() == "{}"


def test_the_command_line_writes_what_it_shows(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Path, "home", lambda: home)
    monkeypatch.setenv("MEMCUBE_HOME", str(home / "memcube"))
    monkeypatch.setenv("MEMCUBE_TOKEN", "secret")
    words = ["mcp", "install", "alice/notes", "--overlay", str(home / "own"), "--client", "cursor"]
    assert run([*words, "--print"]) == 0
    shown = capsys.readouterr().out
    assert not (home / CURSOR.path).exists()
    assert run(words) == 0
    written = (home / CURSOR.path).read_text()
    assert written in shown
    assert "secret" not in written
    entry = json.loads(written)["mcpServers"]["memcube"]
    assert entry["args"] == ["mcp", "serve", "alice/notes", "--overlay", str(home / "own")]
    assert entry["env"]["MEMCUBE_HOME"] == str(home / "memcube")
    assert run(words) == 0
    told = capsys.readouterr().out
    assert "says so already" in told
    assert "memcube pull alice/notes" in told


def test_the_command_line_replaces_no_entry_unasked_in_any_file(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Path, "home", lambda: home)
    cursor, gemini = home / CURSOR.path, home / CLIENTS["gemini-cli"].path
    words = ["mcp", "install", "--client", "gemini-cli", "--client", "cursor", "alice/new"]
    assert (
        run(["mcp", "install", "--client", "cursor", "alice/old", "--filter", "kind=plaintext"])
        == 0
    )
    before = cursor.read_text()
    assert run(words) == outcome_of(ConflictError("")).exit_code
    told = capsys.readouterr().err
    assert '-   "alice/old"' in told
    assert "--force" in told
    assert cursor.read_text() == before
    assert not gemini.exists()
    assert run([*words, "--print"]) == 0
    assert "would change" in capsys.readouterr().out
    assert run([*words, "--force"]) == 0
    assert "alice/new" in cursor.read_text()
    assert "alice/new" in gemini.read_text()
    assert cursor.with_name("mcp.json.memcube-backup").read_text() == before


def test_what_no_start_could_mount_is_not_written(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Path, "home", lambda: home)
    monkeypatch.setenv("MEMCUBE_HOME", str(home / "memcube"))
    for words in (["not a reference"], ["--profile", "absent"]):
        assert run(["mcp", "install", *words, "--client", "cursor"]) != 0
    assert not (home / CURSOR.path).exists()
    assert "absent" in capsys.readouterr().err


def test_a_call_without_a_cube_or_an_overlay_says_what_is_missing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for words in (["mcp", "serve"], ["mcp", "--http"], ["mcp", "install", "--client", "cursor"]):
        assert run(words) == EXIT_USAGE
        assert "name a cube" in capsys.readouterr().err


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_claude_desktop_is_found_on_every_system(platform: str) -> None:
    place = clients.desktop_path(platform)
    assert place.endswith("/Claude/claude_desktop_config.json")
    assert not Path(place).is_absolute()
