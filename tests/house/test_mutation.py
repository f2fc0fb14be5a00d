"""The list of mutants that no test can notice names code that stands there, each with its reason."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
LISTED = ROOT / "tests" / "mutation" / "equivalent.toml"


def entries() -> list[dict]:
    return tomllib.loads(LISTED.read_text("utf-8")).get("equivalent", [])


def test_every_listed_mutant_changes_a_line_that_is_there() -> None:
    gone = [
        (entry["module"], was)
        for entry in entries()
        for was, _ in entry["lines"]
        if was not in " ".join((ROOT / entry["module"]).read_text("utf-8").split())
    ]
    assert gone == []


def test_every_listed_mutant_has_a_reason() -> None:
    assert [entry for entry in entries() if len(entry["why"].split()) < 4] == []
