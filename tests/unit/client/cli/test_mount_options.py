"""What is mounted is said alike to every command that mounts."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from memcube.cli.commands.chat import chat
from memcube.cli.commands.context import context
from memcube.cli.commands.mcp import install, serve
from memcube.cli.commands.mount import mount
from memcube.cli.commands.proxy import proxy
from memcube.cli.mount_options import MountOptions, mount_options
from memcube.cli.run import run
from memcube_protocol.errors import NotFoundError, outcome_of
from memcube_protocol.reference import Reference
from memcube_protocol.selection import Selection

_CUBES = ("alice/notes", "acme/handbook:1.4")


def options_of(command: click.Command) -> dict[str, str]:
    """Each option with its help."""
    return {
        name: option.help or ""
        for option in command.params
        if isinstance(option, click.Option)
        for name in option.opts
    }


def read(*words: str) -> MountOptions:
    """What `words` say of a mount."""
    read: list[MountOptions] = []

    @click.command()
    @click.argument("references", nargs=-1)
    @mount_options(asks_trust=False)
    def ask(wanted: MountOptions) -> None:
        read.append(wanted)

    ask.main([*words], standalone_mode=False)
    return read[0]


@pytest.mark.parametrize("command", [mount, chat, context, proxy, serve], ids=lambda c: c.name)
def test_every_command_that_mounts_takes_the_same_options(command: click.Command) -> None:
    @click.command()
    @click.option("--references", multiple=True)
    @mount_options()
    def alone(wanted: MountOptions) -> None: ...

    shared = {k: v for k, v in options_of(alone).items() if k not in ("--references", "--help")}
    assert {"--filter", "--overlay", "--embedder", "--trust", "--offline"} <= shared.keys()
    assert shared.items() <= options_of(command).items()
    assert "wanted" not in options_of(command)


def test_what_a_client_starts_later_is_not_asked_for_trust() -> None:
    assert "--filter" in options_of(install)
    assert not [name for name in options_of(install) if name.startswith(("--trust", "--accept"))]


def test_a_model_is_fitted_alike_by_mount_and_chat() -> None:
    for name in ("--rebuild", "--compose", "--prefix-tokens", "--allow-unverified-base"):
        assert options_of(mount)[name] == options_of(chat)[name]


def test_words_say_the_same_again_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model").mkdir()
    words = [*_CUBES, "--overlay", "own", "--budget", "300", "--embedder", "./model"]
    words += ["--priority", "alice/notes=3", "--filter", "kind=plaintext,parametric", "--offline"]
    wanted = read(*words)
    assert wanted.cubes == {"alice/notes": 3, "acme/handbook:1.4": None}
    said = wanted.words
    monkeypatch.chdir("/")
    again = read(*said)
    assert again.words == said
    assert again.overlay == tmp_path / "own"
    assert again.embedder == str(tmp_path / "model")
    assert read("--profile", "work").words == ["--profile", "work"]
    assert "trust" not in again.asked
    assert Selection.parse(again.asked["filters"]).kinds == {"plaintext", "parametric"}
    assert [str(Reference.parse(str(cube))) for cube in again.cubes]


def test_a_priority_of_a_cube_that_is_not_named_is_refused() -> None:
    for word in ("acme/other=2", "alice/notes", "alice/notes=x"):
        with pytest.raises(click.UsageError, match="one of the references"):
            _ = read("alice/notes", "--priority", word).cubes


@pytest.mark.parametrize(
    "words",
    [
        ("mount", "--overlay"),
        ("context", "a question", "--overlay"),
        ("proxy", "--upstream", "http://127.0.0.1:9/v1", "--overlay"),
    ],
)
def test_a_command_that_remembers_nothing_makes_no_folder_of_a_mistyped_overlay(
    words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = tmp_path / "ntoes"
    assert run([*words, str(absent)]) == outcome_of(NotFoundError("")).exit_code
    assert f"there is no overlay {absent}" in capsys.readouterr().err
    assert not absent.exists()
    absent.mkdir()  # a folder of something else
    assert run([*words, str(absent)]) == outcome_of(NotFoundError("")).exit_code
    assert f"there is no overlay {absent}" in capsys.readouterr().err
    assert not [*absent.iterdir()]
