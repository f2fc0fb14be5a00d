"""MemLoader."""

from typing import Any


class MountedCube: ...


def mount(*a: Any, **k: Any) -> Any: ...
