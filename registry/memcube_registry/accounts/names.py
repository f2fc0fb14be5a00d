"""Names of accounts: one component of an OCI name, not reserved, not confusable with another.

Dots are refused, since a first component with a dot is a host in a reference.
"""

from __future__ import annotations

import re
from typing import Final

from memcube_protocol.errors import InvalidReferenceError
from memcube_protocol.reference import RESERVED_NAMESPACES

NAME_CHARS_MIN: Final = 2
NAME_CHARS_MAX: Final = 64

_NAME: Final = re.compile(r"[a-z0-9]+(?:[_-][a-z0-9]+)*")
_LOOKALIKES: Final = (("-", ""), ("_", ""), ("rn", "m"), ("vv", "w"), ("0", "o"), ("1", "l"))


def skeleton_of(name: str) -> str:
    """`name` with what the eye confuses folded together: `acme-1` and `acrnel` are the same."""
    for seen, meant in _LOOKALIKES:
        name = name.replace(seen, meant)
    return name.replace("i", "l")


_RESERVED: Final = frozenset(map(skeleton_of, RESERVED_NAMESPACES | {"localhost", "memcube"}))


def require_account_name(name: str) -> str:
    """`name` itself, if an account may have it.

    Raises:
        InvalidReferenceError: it breaks the grammar, is reserved, or is confusable with one that is.
    """
    if not NAME_CHARS_MIN <= len(name) <= NAME_CHARS_MAX or not _NAME.fullmatch(name):
        raise InvalidReferenceError(
            f"{name[:100]!r} cannot be an account's name",
            hint=f"use {NAME_CHARS_MIN} to {NAME_CHARS_MAX} lower-case letters and digits, "
            "with single - or _ between them",
        )
    if skeleton_of(name) in _RESERVED:
        raise InvalidReferenceError(
            f"the name {name!r} is reserved, or looks like one that is",
            hint="choose another name",
        )
    return name
