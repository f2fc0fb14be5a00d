"""Names of JSON fields: camelCase, in what the commands print as in what the API answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def camel_case(name: str) -> str:
    """`used_bytes` as `usedBytes`."""
    first, *others = name.split("_")
    return first + "".join(other.capitalize() for other in others)


def fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` under the names that they have in JSON."""
    return {camel_case(name): value for name, value in values.items()}
