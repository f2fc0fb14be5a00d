"""The threat model is true: its tests are there, and so are the defences that they are about."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from defences.__main__ import defences

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "threat-model.md").read_text("utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py::[\w:]+)`", PAGE)))
DEFENCES = defences()


@cache
def names_in(path: str) -> frozenset[str]:
    """Names of the tests in a file, those of classes as `Class::test`."""
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    found = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            inner = (one.name for one in node.body if isinstance(one, ast.FunctionDef))
            found |= {f"{node.name}::{name}" for name in inner}
    return frozenset(found)


@pytest.mark.parametrize("test", NAMED)
def test_every_test_that_the_page_names_exists(test: str) -> None:
    path, _, name = test.partition("::")
    assert name in names_in(path)


def test_every_row_of_a_threat_names_a_test() -> None:
    threats = PAGE.partition("## Threats")[2].partition("## Not defended")[0]
    rows = [line for line in threats.splitlines() if line.startswith("| ") and "---" not in line]
    bare = [row for row in rows if not row.startswith("| threat |") and "`tests/" not in row]
    assert rows
    assert bare == []


@pytest.mark.parametrize("defence", DEFENCES, ids=[defence["name"] for defence in DEFENCES])
def test_every_defence_stands_where_it_is_said_to_stand(defence: dict) -> None:
    for name, old, _ in defence["edits"]:
        assert (ROOT / name).read_text("utf-8").count(old) == 1, f"{name}: {old}"
    for test in defence["tests"]:
        path, _, name = test.partition("::")
        assert name in names_in(path)
    assert set(defence["tests"]) & set(NAMED), "the page does not tell of it"
