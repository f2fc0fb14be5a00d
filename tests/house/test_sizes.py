"""The house stays small: functions, modules and imports are measured (house-style, "Size")."""

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path
from statistics import quantiles

import grimp
import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "memcube_protocol": ROOT / "protocol",
    "memcube_signing": ROOT / "signing",
    "memcube": ROOT / "client",
    "memcube_registry": ROOT / "registry",
}
FUNCTION_P90_LINES = 25
FUNCTION_LINES = 60
MODULE_LINES = 500


def modules() -> Iterator[Path]:
    for folder in PACKAGES.values():
        yield from sorted(folder.rglob("*.py"))


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Name and length, without docstring, of every function in `path`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            docstring = node.body[0] if ast.get_docstring(node) else None
            documented = docstring.end_lineno - docstring.lineno + 1 if docstring else 0
            if body:
                yield f"{path.name}:{node.name}", node.end_lineno - node.lineno + 1 - documented


def test_no_function_is_longer_than_sixty_lines() -> None:
    sizes = [entry for path in modules() for entry in functions(path)]
    assert [entry for entry in sizes if entry[1] > FUNCTION_LINES] == []


def test_nine_of_ten_functions_fit_in_twenty_five_lines() -> None:
    sizes = [size for path in modules() for _, size in functions(path)]
    assert quantiles(sizes, n=10)[-1] <= FUNCTION_P90_LINES


def test_no_module_is_longer_than_five_hundred_lines() -> None:
    lengths = {str(p.relative_to(ROOT)): len(p.read_text("utf-8").splitlines()) for p in modules()}
    assert {name: size for name, size in lengths.items() if size > MODULE_LINES} == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_no_import_cycle(package: str) -> None:
    graph = grimp.build_graph(package, cache_dir=None)
    edges = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    try:
        graphlib.TopologicalSorter(edges).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")


def test_the_folders_of_the_distribution_are_not_packages() -> None:
    strays = [
        ROOT / name / "__init__.py" for name in ("alembic", *(p.name for p in PACKAGES.values()))
    ]
    assert [path for path in strays if path.exists()] == []


def test_no_module_is_named_after_nothing() -> None:
    nameless = {"utils", "util", "helpers", "helper", "common", "lib", "misc"}
    assert [path for path in modules() if nameless & {path.stem, *path.parent.parts[-2:]}] == []
