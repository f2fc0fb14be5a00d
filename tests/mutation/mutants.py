"""Every mutant of a module, as the one edit of its source that makes it: `python -m tests.mutation.mutants`.

Left out is what no test could tell from the original: annotations, the inside of f-strings (they are for
people), decorators, what Python does not compile, and exchanges of operators that others stand for.
"""

from __future__ import annotations

import ast
import json
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

_COMPARISONS: Final = {
    *("Lt_LtE", "Lt_NotEq", "Gt_GtE", "Gt_NotEq", "LtE_Lt", "LtE_Eq", "GtE_Gt", "GtE_Eq"),
    *("Eq_NotEq", "Eq_LtE", "Eq_GtE", "NotEq_Eq", "NotEq_Lt", "NotEq_Gt", "Is_IsNot", "IsNot_Is"),
}
"""Who notices these notices every other exchange of a comparison (Kaminski, Ammann, Offutt 2013)."""
_ARITHMETIC: Final = {
    *("Add_Sub", "Sub_Add", "Mul_FloorDiv", "FloorDiv_Mul", "Mod_Mul", "Pow_Mul", "Div_Mul"),
    *("LShift_RShift", "RShift_LShift", "BitAnd_BitOr", "BitOr_BitAnd", "BitXor_BitAnd"),
}
"""The others mostly make an error of types, which every test notices."""


def _is_made(operator: str) -> bool:
    kind, _, change = operator.partition("_")
    wanted = {"ReplaceComparisonOperator": _COMPARISONS, "ReplaceBinaryOperator": _ARITHMETIC}
    # Own operators lose exceptions under dotted names too.
    return change in wanted.get(kind, {change}) and kind != "ExceptionReplacer"


@dataclass(frozen=True)
class Mutant:
    """The source of `module` with `removed` characters at `offset` replaced by `inserted`.

    `function` is the outermost function or method it lies in, "" where it changes what happens at
    import; `first` and `last` are the lines of the smallest statement around it.
    """

    module: str
    operator: str
    offset: int
    removed: int
    inserted: str
    function: str
    first: int
    last: int
    was: str
    now: str

    @property
    def identity(self) -> tuple[str, str, str, str]:
        """What stays the same while lines move."""
        return self.module, self.function, self.was, self.now

    def source(self, original: str) -> str:
        return original[: self.offset] + self.inserted + original[self.offset + self.removed :]


def mutants(module: str, source: str) -> Iterator[Mutant]:
    """Every mutant of `source`, each once."""
    places = _Places(source)
    before, seen = _program(source), {source}
    for operator, line, mutated in _mutated(source):
        if mutated in seen:
            continue
        seen.add(mutated)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                after = _program(mutated)
        except SyntaxError:
            continue
        if after != before:
            yield _mutant(module, operator, source, mutated, places.of(line))


def _mutated(source: str) -> Iterator[tuple[str, tuple[int, int], str]]:
    from cosmic_ray.ast import ast_nodes, get_ast

    tree = get_ast(source)
    for node in list(ast_nodes(tree)):
        if _is_left_out(node):
            continue
        for name, operator in _operators().items():
            for index, (start, _) in enumerate(list(operator.mutation_positions(node))):
                kept = _snapshot(node)
                made = operator.mutate(node, index)
                _put(node, made)
                yield name, start, tree.get_code()
                _put(node, node, made)
                _restore(kept)


_OPERATORS: dict[str, Any] = {}


def _operators() -> Mapping[str, Any]:
    if not _OPERATORS:
        from cosmic_ray import plugins

        from .operators import OWN

        for name in plugins.operator_names():
            kind, short = plugins.get_operator(name), name.rpartition("/")[2]
            if not kind.arguments() and _is_made(short):
                _OPERATORS[short] = kind()
        _OPERATORS.update({name: kind() for name, kind in OWN.items()})
    return _OPERATORS


def _is_left_out(node: Any) -> bool:
    """Whether it is for people; or a decorator: tests/house/test_values.py looks at those of values."""
    while node is not None:
        if node.type in ("fstring", "decorator"):
            return True
        node = node.parent
    return False


def _snapshot(node: Any) -> list[tuple[Any, Any, str | None]]:
    from cosmic_ray.ast import ast_nodes

    return [
        (one, list(one.children), None)
        if hasattr(one, "children")
        else (one, one.value, one.prefix)
        for one in ast_nodes(node)
    ]


def _restore(kept: list[tuple[Any, Any, str | None]]) -> None:
    for node, content, prefix in kept:
        if prefix is None:
            node.children = content
        else:
            node.value, node.prefix = content, prefix


def _put(old: Any, new: Any, instead_of: Any = ...) -> None:
    """`new` at the place of `old` in the tree; None takes it out."""
    if old.parent is None:
        return
    siblings = old.parent.children
    if instead_of is ...:
        at = next(at for at, one in enumerate(siblings) if one is old)
        _PLACE[id(old)] = at, list(siblings)
        if new is None:
            del siblings[at]
        else:
            siblings[at] = new
    else:
        old.parent.children = _PLACE.pop(id(old))[1]


_PLACE: dict[int, tuple[int, list[Any]]] = {}


class _Places:
    """Where a line lies: the outermost function around it, and the smallest statement."""

    def __init__(self, source: str) -> None:
        self._tree = ast.parse(source)

    def of(self, at: tuple[int, int]) -> tuple[str, int, int]:
        """The function's name, and first and last line of the statement or of a block's head."""
        names: list[str] = []
        function = ""
        first, last = at[0], at[0]
        body: list[ast.AST] = list(self._tree.body)
        while body:
            node = next((one for one in body if _spans(one, at)), None)
            if node is None:
                break
            if not function and isinstance(node, ast.ClassDef):
                names.append(node.name)
            first, last, inner = _head(node)
            if isinstance(node, ast.FunctionDef) and not function and at[0] > last:
                function = ".".join((*names, node.name))
            body = inner
            if not any(_spans(one, at) for one in inner):
                break
        return function, first, last


def _spans(node: ast.AST, at: tuple[int, int]) -> bool:
    if isinstance(node, ast.match_case):
        return any(_spans(one, at) for one in (node.pattern, *node.body))
    decorators = [one.lineno for one in getattr(node, "decorator_list", [])]
    start = min([node.lineno, *decorators])
    return start <= at[0] <= node.end_lineno


def _head(node: ast.AST) -> tuple[int, int, list[ast.AST]]:
    """First and last line of a statement without the statements in it, and these."""
    inner: list[ast.AST] = []
    for name in ("body", "handlers", "orelse", "finalbody", "cases"):
        inner += (
            getattr(node, name, None) or []
            if isinstance(node, ast.stmt | ast.excepthandler)
            else []
        )
    decorators = [one.lineno for one in getattr(node, "decorator_list", [])]
    first = min([node.lineno, *decorators])
    if not inner or not isinstance(inner[0], ast.stmt | ast.excepthandler):
        return first, node.end_lineno, inner
    return first, max(node.lineno, inner[0].lineno - 1), inner


class _Plain(ast.NodeTransformer):
    """The program without what is never run: annotations and docstrings."""

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)


def _program(source: str) -> str:
    return ast.dump(_Plain().visit(ast.parse(source)))


def _mutant(
    module: str, operator: str, source: str, mutated: str, place: tuple[str, int, int]
) -> Mutant:
    start = 0
    while start < min(len(source), len(mutated)) and source[start] == mutated[start]:
        start += 1
    end = 0
    while end < min(len(source), len(mutated)) - start and source[-1 - end] == mutated[-1 - end]:
        end += 1
    was = _lines(source, start, len(source) - end)
    now = _lines(mutated, start, len(mutated) - end)
    inserted = mutated[start : len(mutated) - end]
    removed = len(source) - end - start
    return Mutant(module, operator, start, removed, inserted, *place, was, now)


def _lines(text: str, start: int, end: int) -> str:
    """The whole lines around a part of `text`, in one."""
    begin = text.rfind("\n", 0, start) + 1
    stop = text.find("\n", max(start, end - 1))
    return " ".join(text[begin : stop if stop >= 0 else len(text)].replace("\\\n", " ").split())


def main() -> None:
    root, *modules = sys.argv[1:]
    for module in modules:
        for mutant in mutants(module, (Path(root) / module).read_text("utf-8")):
            print(json.dumps(asdict(mutant)))


if __name__ == "__main__":
    main()
