"""Names of tests are the same in every process: workers that collect different ones run none."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
MODULES = sorted(path for path in TESTS.rglob("test_*.py") if path != Path(__file__))
BY_CHANCE = {"urandom", "token_bytes", "token_hex", "token_urlsafe", "uuid4", "time", "time_ns"}


def spelled(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes under `node` that can come into a name: pytest only counts dictionaries."""
    yield node
    if not isinstance(node, ast.Dict):
        for child in ast.iter_child_nodes(node):
            yield from spelled(child)


def names_in(node: ast.AST) -> set[str]:
    return {each.id for each in spelled(node) if isinstance(each, ast.Name)}


def is_by_chance(node: ast.AST) -> bool:
    calls = (each.func for each in spelled(node) if isinstance(each, ast.Call))
    return any(isinstance(call, ast.Attribute) and call.attr in BY_CHANCE for call in calls)


def chance_names(module: ast.Module) -> set[str]:
    """The constants of a module that differ from process to process."""
    found: set[str] = set()
    for statement in module.body:
        if isinstance(statement, ast.Assign) and (
            is_by_chance(statement.value) or names_in(statement.value) & found
        ):
            found |= names_in(ast.Tuple(statement.targets))
    return found


def unnamed_parameters(module: ast.Module) -> Iterator[ast.Call]:
    """The `parametrize` decorators that leave the names to pytest."""
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            is_named = any(keyword.arg == "ids" for keyword in node.keywords)
            if node.func.attr == "parametrize" and not is_named:
                yield node


def unstable(source: str) -> list[int]:
    """The lines of decorators whose tests get names by chance."""
    module = ast.parse(source)
    chance = chance_names(module)
    return [
        call.lineno
        for call in unnamed_parameters(module)
        if names_in(call) & chance or any(map(is_by_chance, call.args))
    ]


def test_no_name_of_a_test_is_made_by_chance() -> None:
    found = {
        f"{path.relative_to(TESTS)}:{line}"
        for path in MODULES
        for line in unstable(path.read_text("utf-8"))
    }
    assert found == set(), "give these parameters ids, or the same content each time"


@pytest.mark.parametrize(
    ("constants", "parameters", "lines"),
    [
        ("A = os.urandom(3)", '"a", [A]', [2]),
        ("A = os.urandom(3); B = len(A)", '"b", [B]', [2]),
        ("A = os.urandom(3)", '"a", [A], ids=["some"]', []),
        ("A = random.Random(3).randbytes(3)", '"a", [A]', []),
        ("", '"a", [uuid.uuid4()]', [2]),
        ("", '"a", [{"now": time.time()}]', []),
    ],
)
def test_what_is_made_by_chance_is_found(constants: str, parameters: str, lines: list[int]) -> None:
    source = f"{constants}\n@pytest.mark.parametrize({parameters})\ndef test(): ..."
    assert unstable(source) == lines
