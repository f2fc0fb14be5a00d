"""Which items a search wants, and which namespaces a listing: LangGraph's filters and paths."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from langgraph.store.base import MatchCondition
from memcube_protocol.errors import InvalidRequestError

_ORDERS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}
_OPERATORS: Final = ("$eq", "$ne", *_ORDERS)


def fits(value: Mapping[str, Any], wanted: Mapping[str, Any] | None) -> bool:
    """Whether every field that is `wanted` is in `value` as it is wanted.

    Raises:
        InvalidRequestError: an operator that LangGraph does not have.
    """
    return all(_fits(value.get(name), one) for name, one in (wanted or {}).items())


def lies_on(namespace: tuple[str, ...], conditions: Iterable[MatchCondition]) -> bool:
    """Whether `namespace` begins or ends as every one of `conditions` says; `*` stands for any label."""
    return all(_lies_on(namespace, condition) for condition in conditions)


def _fits(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, Mapping):
        if any(name.startswith("$") for name in wanted):
            return all(_compares(value, name, other) for name, other in wanted.items())
        return isinstance(value, Mapping) and fits(value, wanted)
    if isinstance(wanted, list | tuple):
        same = isinstance(value, list | tuple) and len(value) == len(wanted)
        return same and all(map(_fits, value, wanted))
    return bool(value == wanted)


def _compares(value: Any, name: str, other: Any) -> bool:
    if name in ("$eq", "$ne"):
        return bool(value == other) is (name == "$eq")
    if name not in _ORDERS:
        raise InvalidRequestError(
            f"the operator {name[:60]!r} is unknown", hint=f"use one of {', '.join(_OPERATORS)}"
        )
    try:
        return _ORDERS[name](float(value), float(other))
    except (TypeError, ValueError):
        return False


def _lies_on(namespace: tuple[str, ...], condition: MatchCondition) -> bool:
    path = condition.path
    if len(path) > len(namespace):
        return False
    part = namespace[: len(path)] if condition.match_type == "prefix" else namespace[-len(path) :]
    return not path or all(label in ("*", own) for label, own in zip(path, part, strict=True))
