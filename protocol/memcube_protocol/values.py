"""Values: what is made once, never changed, and equal to whatever has the same fields.

`@frozen` is `@dataclass(frozen=True, slots=True)`, built in a fifth of the time. The standard library compiles six
functions for each such class; only the constructor has to be compiled, and here the classes share the others. A
command loads about two hundred values before it does anything (docs/adr/0041-values-share-their-methods.md).

Nothing can be derived from a value, values have no order among them, and `InitVar` is not known here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, Field, FrozenInstanceError, dataclass, field, fields
from operator import attrgetter
from typing import Any, Final, TypeVar, dataclass_transform, overload

Class = TypeVar("Class", bound=type)


@overload
def frozen(cls: Class, /) -> Class: ...


@overload
def frozen(*, kw_only: bool) -> Callable[[Class], Class]: ...


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(cls: Any = None, /, *, kw_only: bool = False) -> Any:
    """A class as a value; with `kw_only`, each field is named where one is made."""
    if cls is None:
        return lambda decorated: _as_value(decorated, kw_only)
    return _as_value(cls, kw_only)


def _as_value(cls: Any, kw_only: bool) -> Any:
    made: Any = dataclass(init=False, repr=False, eq=False, slots=True, kw_only=kw_only)(cls)
    made.__dataclass_params__.frozen = True
    own = vars(cls)
    for name, function in {**_SHARED, **_comparison(made), "__init__": _constructor(made)}.items():
        if name not in own or own[name] is None:
            setattr(made, name, function)
    return made


def _comparison(cls: Any) -> dict[str, Callable[..., Any]]:
    """How values of `cls` are compared: by all fields that take part, in their order."""
    names = [one.name for one in fields(cls) if one.compare]
    content: Callable[[Any], object] = attrgetter(*names) if names else lambda _: ()

    def __eq__(self: Any, other: Any) -> bool:  # noqa: N807
        return content(self) == content(other) if type(other) is type(self) else NotImplemented

    def __hash__(self: Any) -> int:  # noqa: N807
        return hash(content(self))

    return {"__eq__": __eq__, "__hash__": __hash__}


def _constructor(cls: Any) -> Callable[..., None]:
    """`__init__` of `cls`: takes its fields, those by name only last, and hands over to `__post_init__`."""
    names: dict[str, Any] = {"_put": object.__setattr__, "_absent": MISSING}
    by_place, by_name, lines = list[str](), list[str](), list[str]()
    for one in fields(cls):
        if one.init:
            (by_name if one.kw_only else by_place).append(_parameter(one))
        if one.default is not MISSING:
            names[f"_default_{one.name}"] = one.default
        if one.default_factory is not MISSING:
            names[f"_make_{one.name}"] = one.default_factory
        if (content := _content(one)) is not None:
            lines.append(f"_put(self, {one.name!r}, {content})")
    if hasattr(cls, "__post_init__"):
        lines.append("self.__post_init__()")
    parameters = ", ".join(["self", *by_place, *(["*", *by_name] if by_name else [])])
    exec(f"def __init__({parameters}):\n " + "\n ".join(lines or ["pass"]), names)  # noqa: S102
    function: Callable[..., None] = names["__init__"]
    function.__module__, function.__qualname__ = cls.__module__, f"{cls.__qualname__}.__init__"
    function.__annotations__ = {one.name: one.type for one in fields(cls) if one.init}
    return function


def _parameter(one: Field[Any]) -> str:
    if one.default is not MISSING:
        return f"{one.name}=_default_{one.name}"
    return one.name if one.default_factory is MISSING else f"{one.name}=_absent"


def _content(one: Field[Any]) -> str | None:
    """What a constructor puts into a field, as it says it; None: nothing, `__post_init__` does."""
    if one.default_factory is not MISSING:
        made = f"_make_{one.name}()"
        return f"{made} if {one.name} is _absent else {one.name}" if one.init else made
    if one.init:
        return one.name
    return None if one.default is MISSING else f"_default_{one.name}"


def _repr(self: Any) -> str:
    shown = (f"{one.name}={getattr(self, one.name)!r}" for one in fields(self) if one.repr)
    return f"{type(self).__qualname__}({', '.join(shown)})"


def _refuse_set(_: Any, name: str, _content: object) -> None:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_delete(_: Any, name: str) -> None:
    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _state(self: Any) -> list[Any]:
    """What copies and pickles are made of."""
    return [getattr(self, one.name) for one in fields(self)]


def _take_state(self: Any, state: list[Any]) -> None:
    for one, content in zip(fields(self), state, strict=True):
        object.__setattr__(self, one.name, content)


_SHARED: Final[dict[str, Callable[..., Any]]] = {
    "__repr__": _repr,
    "__setattr__": _refuse_set,
    "__delattr__": _refuse_delete,
    "__getstate__": _state,
    "__setstate__": _take_state,
}
