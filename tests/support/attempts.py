"""Calling what may refuse: property tests look at the refusal as a value."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from memcube_protocol.errors import MemcubeError

Result = TypeVar("Result")


def attempt(act: Callable[[], Result]) -> Result | MemcubeError:
    """What `act` returns, or the MemcubeError that it raises, which must carry a hint."""
    try:
        return act()
    except MemcubeError as error:
        if not error.hint:
            raise AssertionError(f"{error!r} carries no hint") from error
        return error
