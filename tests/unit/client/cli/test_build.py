"""`memcube build`: what is asked wrongly is told before anything is computed."""

from __future__ import annotations

from pathlib import Path

import pytest
from memcube.dumper import MemDumper
from memcube_protocol.errors import EXIT_INVALID, EXIT_USAGE
from support.kv import kv_folder
from support.machine import Machine

NAME = "alice/backups"


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    folder = tmp_path_factory.mktemp("build")
    dumper = MemDumper(folder / "cube", name=NAME, version="1.0.0")
    kv_folder(dumper.folder, "The third copy lies in Tartu.")
    machine = Machine(folder / "home", "http://127.0.0.1:9")
    machine.ok("pack", dumper.folder)
    return machine


def test_a_recipe_that_cannot_be_saved_is_told_before_anything_is_built(
    machine: Machine, tmp_path: Path
) -> None:
    where = tmp_path / "absent" / "recipe.json"
    asked = ("build", NAME, "--kind", "plaintext", "--save-recipe")
    assert str(where.parent) in machine.fails(EXIT_USAGE, *asked, str(where))
    assert "Nothing was built" in machine.ok("builds", NAME)
    assert "Built plaintext" in machine.ok(*asked, str(tmp_path / "recipe.json"))
    assert (tmp_path / "recipe.json").is_file()


def test_a_file_that_is_no_recipe_is_told_where_recipes_come_from(
    machine: Machine, tmp_path: Path
) -> None:
    (tmp_path / "recipe.json").write_text("{}")
    told = machine.fails(EXIT_INVALID, "build", NAME, "--recipe", str(tmp_path / "recipe.json"))
    assert "--save-recipe" in told


@pytest.mark.parametrize(
    "asked",
    [
        ("--recipe", "recipe.json", "--seed", "0"),
        ("--again", f"sha256:{'0' * 64}", "--plain"),
        ("--kind", "activation", "--steps", "3"),
        ("--kind", "parametric", "--confidence", "0.5"),
    ],
)
def test_an_option_that_would_decide_nothing_is_refused(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.json").write_text("{}")
    told = machine.fails(EXIT_USAGE, "build", NAME, *asked)
    assert "goes with --kind" in told


def test_no_more_questions_are_asked_than_a_recipe_holds(machine: Machine) -> None:
    for ask in ("-1", "1025"):
        assert "1024" in machine.fails(
            EXIT_USAGE, "build", NAME, "--kind", "plaintext", "--ask", ask
        )
