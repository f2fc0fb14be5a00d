"""What cosmic-ray's operators do not change, and a verifier is broken by: a check that is left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import parso
from cosmic_ray.operators.operator import Example, Operator

Position = tuple[tuple[int, int], tuple[int, int]]

_PAIRS: Final = (
    *(("any", "all"), ("min", "max"), ("lower", "upper"), ("startswith", "endswith")),
    *(("removeprefix", "removesuffix"), ("partition", "rpartition")),
)
_SWAPPED: Final = {old: new for one, other in _PAIRS for old, new in ((one, other), (other, one))}


class RemoveStatement(Operator):
    """Does not raise, does not call for the effect, does not return early, does not count on."""

    def mutation_positions(self, node: Any) -> Iterator[Position]:
        if node.type == "simple_stmt" and _has_effect(node.children[0]):
            yield node.start_pos, node.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        statement = node.children[0]
        prefix = statement.get_first_leaf().prefix
        # As many lines as before, so that what follows keeps its numbers.
        lines = statement.get_code(include_prefix=False).count("\n")
        node.children[0] = parso.parse(f"{prefix}pass" + "\\\n" * lines)
        return node

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        return (Example("if a: raise b\n", "if a: pass\n"), Example("check(a)\n", "pass\n"))


def _has_effect(statement: Any) -> bool:
    if statement.type == "expr_stmt":
        return statement.children[1].type in ("augassign", "operator") and (
            statement.children[1].get_code().strip() not in ("=", ":")
        )
    called = statement.type == "atom_expr" and statement.children[-1].type == "trailer"
    return called or statement.type in ("raise_stmt", "keyword")


class RemoveOperand(Operator):
    """Leaves out one condition of several: `a and b` becomes `a`, and `b`."""

    def mutation_positions(self, node: Any) -> Iterator[Position]:
        if node.type in ("or_test", "and_test"):
            for operand in node.children[::2]:
                yield operand.start_pos, operand.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        at = 2 * index
        if at:
            del node.children[at - 1 : at + 1]
        else:
            prefix = node.get_first_leaf().prefix
            del node.children[:2]
            node.children[0].get_first_leaf().prefix = prefix
        return node

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        return (Example("a or b", "b"), Example("a or b", "a", occurrence=1))


class InvertMembership(Operator):
    """`in` becomes `not in`, and the other way round."""

    def mutation_positions(self, node: Any) -> Iterator[Position]:
        if node.type == "comparison":
            for operator in node.children[1::2]:
                if operator.get_code().split() in (["in"], ["not", "in"]):
                    yield operator.start_pos, operator.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        found = [
            at
            for at in range(1, len(node.children), 2)
            if node.children[at].get_code().split() in (["in"], ["not", "in"])
        ]
        old = node.children[found[index]].get_code().split()
        node.children[found[index]] = parso.parse(" not in" if old == ["in"] else " in")
        return node

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        return (Example("a in b", "a not in b"), Example("a not in b", "a in b"))


class SwapName(Operator):
    """`any` becomes `all`, `min` becomes `max`, and so on."""

    def mutation_positions(self, node: Any) -> Iterator[Position]:
        if node.type == "name" and node.value in _SWAPPED:
            yield node.start_pos, node.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        node.value = _SWAPPED[node.value]
        return node

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        return (Example("any(a)", "all(a)"),)


class ReplaceWord(Operator):
    """A word that is compared or written becomes another one; sentences are for people and stay."""

    def mutation_positions(self, node: Any) -> Iterator[Position]:
        if node.type == "string" and node.parent.type != "simple_stmt" and _is_word(node.value):
            yield node.start_pos, node.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        node.value = node.value[:-1] + "X" + node.value[-1]
        return node

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        return (Example('a == "b"', 'a == "bX"'),)


def _is_word(literal: str) -> bool:
    content = literal.lstrip("brBR").strip("\"'")
    return bool(content) and not any(character.isspace() for character in content)


class RemoveException(Operator):
    """Lets one of the caught exceptions through."""

    def mutation_positions(self, node: Any) -> Iterator[Position]:
        if node.type == "except_clause":
            for caught in _caught(node):
                yield caught.start_pos, caught.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        caught = _caught(node)[index]
        siblings = caught.parent.children
        instead = parso.parse(caught.get_first_leaf().prefix + "GeneratorExit")
        siblings[next(at for at, one in enumerate(siblings) if one is caught)] = instead
        return node

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        before = "try: a\nexcept (B, C): pass"
        return (Example(before, "try: a\nexcept (GeneratorExit, C): pass"),)


def _caught(clause: Any) -> list[Any]:
    named = clause.children[1]
    if named.type == "atom" and named.children[1].type == "testlist_comp":
        return [one for one in named.children[1].children if one.type != "operator"]
    return [named]


OWN: Final[Mapping[str, type[Operator]]] = {
    kind.__name__: kind
    for kind in (
        RemoveStatement,
        RemoveOperand,
        InvertMembership,
        SwapName,
        ReplaceWord,
        RemoveException,
    )
}
