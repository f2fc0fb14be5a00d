"""A frozen value is what the standard library makes of `@dataclass(frozen=True, slots=True)`."""

import copy
import dataclasses
import inspect
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass, field
from typing import Any

import pytest
from memcube_protocol.values import frozen

Decorate = Callable[[type], Any]


def point(decorate: Decorate) -> Any:
    @decorate
    class Point:
        """A class with every kind of field."""

        x: int
        label: str = "origin"
        marks: tuple[str, ...] = ()
        notes: list[str] = field(default_factory=list)
        secret: str = field(default="hidden", repr=False)
        seen: int = field(default=0, compare=False)
        twice: int = field(init=False, compare=False)
        fixed: str = field(init=False, default="fixed")
        named: str = field(default="", kw_only=True)

        def __post_init__(self) -> None:
            object.__setattr__(self, "twice", 2 * self.x)

    return Point


OURS = point(frozen)
THEIRS = point(dataclass(frozen=True, slots=True))


@frozen
class Kept:
    """A value that copies and pickles can find."""

    x: int
    y: tuple[int, ...] = ()


def test_it_is_made_with_the_same_arguments() -> None:
    ours, theirs = (inspect.signature(kind).parameters for kind in (OURS, THEIRS))
    assert list(ours) == list(theirs)
    for name, parameter in ours.items():
        assert parameter.kind == theirs[name].kind
        assert (parameter.default is inspect.Parameter.empty) == (
            theirs[name].default is inspect.Parameter.empty
        )
    assert OURS.__init__.__annotations__.items() <= THEIRS.__init__.__annotations__.items()


@pytest.mark.parametrize(
    ("given", "named"),
    [((1,), {}), ((1, "a", ("b",), ["c"]), {"named": "d"}), ((), {"x": 1, "seen": 5})],
)
def test_it_shows_and_holds_the_same(given: tuple[Any, ...], named: dict[str, Any]) -> None:
    ours, theirs = OURS(*given, **named), THEIRS(*given, **named)
    assert repr(ours) == repr(theirs)
    assert dataclasses.asdict(ours) == dataclasses.asdict(theirs)
    assert repr(dataclasses.replace(ours, x=7)) == repr(dataclasses.replace(theirs, x=7))
    assert OURS.__match_args__ == THEIRS.__match_args__
    assert OURS.__slots__ == THEIRS.__slots__


@pytest.mark.parametrize(
    ("given", "named"), [((), {}), ((1, 2, 3, 4, 5, 6, 7), {}), ((1,), {"z": 1})]
)
def test_it_refuses_the_same_arguments(given: tuple[Any, ...], named: dict[str, Any]) -> None:
    for kind in (OURS, THEIRS):
        with pytest.raises(TypeError):
            kind(*given, **named)


def test_what_a_factory_makes_is_each_value_s_own() -> None:
    assert OURS(1).notes is not OURS(1).notes


def test_it_is_equal_to_a_value_of_its_class_with_the_same_compared_fields() -> None:
    assert OURS(1, seen=1) == OURS(1, seen=2)
    assert OURS(1) != OURS(2)
    assert OURS(1) != OURS(1, named="a")
    assert OURS(1) != THEIRS(1)
    assert Kept(1) != (1, ())


def test_equal_values_have_one_hash() -> None:
    assert {Kept(1), Kept(1, ()), Kept(2)} == {Kept(2), Kept(1)}
    with pytest.raises(TypeError):
        hash(OURS(1))  # a list is part of it


def test_it_cannot_be_changed_and_has_no_room_for_more() -> None:
    kept = Kept(1)
    for change in (
        lambda: setattr(kept, "x", 2),
        lambda: setattr(kept, "z", 2),
        lambda: delattr(kept, "x"),
    ):
        with pytest.raises(FrozenInstanceError):
            change()
    assert kept == Kept(1)
    assert not hasattr(kept, "__dict__")


def test_copies_and_pickles_are_equal_to_it() -> None:
    kept = Kept(1, (2, 3))
    assert copy.copy(kept) == copy.deepcopy(kept) == pickle.loads(pickle.dumps(kept)) == kept


def test_a_value_without_fields_is_equal_to_its_like() -> None:
    @frozen
    class Nothing:
        """No fields."""

    assert Nothing() == Nothing()
    assert len({Nothing(), Nothing()}) == 1


def test_what_a_class_says_of_itself_stays() -> None:
    @frozen
    class Own:
        """A class with its own answers."""

        x: int

        def __repr__(self) -> str:
            return "own"

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Own)

        def __hash__(self) -> int:
            return 7

    assert repr(Own(1)) == "own"
    assert Own(1) == Own(2)
    assert hash(Own(1)) == 7


def test_a_value_of_named_fields_takes_no_others() -> None:
    @frozen(kw_only=True)
    class Named:
        """Fields by name."""

        x: int
        y: int = 0

    assert Named(x=1).y == 0
    with pytest.raises(TypeError):
        Named(1)  # type: ignore[misc]


def test_no_other_dataclass_is_derived_from_it() -> None:
    with pytest.raises(TypeError, match="frozen"):

        @frozen
        class More(Kept):
            """One field more."""

            z: int = 0
