"""File paths inside a cube: relative, portable, and never outside the cube's folder.

A path is NFC text of components divided by `/`. Refused: absolute paths, `.` and `..`, empty
components, backslashes, colons, control characters, trailing dots or spaces, Windows device names,
and two paths that a case-insensitive disk would confuse.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Final

from memcube_protocol import limits
from memcube_protocol.errors import UnsafePathError

_FORBIDDEN: Final = re.compile(r'[\x00-\x1f\x7f\\:*?"<>|]')
_DEVICES: Final = re.compile(
    r"(?i:con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³]) *(?:\..*)?"
)
_COMPONENT_BYTES: Final = 255


def require_safe(path: str) -> str:
    """`path` itself, if it is safe to create below any folder.

    Raises:
        UnsafePathError: it breaks a rule of the module's docstring.
    """
    try:
        size_bytes = len(path.encode())
    except UnicodeEncodeError:
        raise _unsafe(path, "it holds a lone surrogate") from None
    if not path or size_bytes > limits.PATH_BYTES:
        raise _unsafe(path, f"a path has 1 to {limits.PATH_BYTES} bytes")
    if unicodedata.normalize("NFC", path) != path:
        raise _unsafe(path, "it is not in Unicode normal form C")
    if _FORBIDDEN.search(path) or (not path.isascii() and any(map(_is_format, path))):
        raise _unsafe(path, "it holds a control, format or reserved character")
    for component in path.split("/"):
        _require_safe_component(path, component)
    return path


def require_distinct(paths: Iterable[str]) -> None:
    """Refuse paths that one disk could confuse: equal when case is folded, or a file used as a folder.

    Raises:
        UnsafePathError: naming both paths.
    """
    seen: dict[str, str] = {}
    for path in paths:
        key = _fold(path)
        if key in seen:
            raise _unsafe(path, f"it collides with {seen[key]!r} on a case-insensitive disk")
        seen[key] = path
    for key, path in seen.items():
        parent = key
        while "/" in parent:
            parent = parent.rpartition("/")[0]
            if parent in seen:
                raise _unsafe(path, f"{seen[parent]!r} is a file, not a folder")


def _require_safe_component(path: str, component: str) -> None:
    if component in ("", ".", ".."):
        raise _unsafe(path, f"component {component!r} is not a file name")
    if component[-1] in ". " or component[0] == " ":
        raise _unsafe(path, f"{component!r} ends or starts with a dot or space")
    if len(component.encode()) > _COMPONENT_BYTES:
        raise _unsafe(path, f"a component is longer than {_COMPONENT_BYTES} bytes")
    if _DEVICES.fullmatch(component):
        raise _unsafe(path, f"{component!r} is a device name on Windows")


def _is_format(character: str) -> bool:
    """Whether nobody sees `character` itself, only what it does to the others; in ASCII, `_FORBIDDEN` has these."""
    return unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp")


def _fold(path: str) -> str:
    return unicodedata.normalize("NFC", path.casefold())


def _unsafe(path: str, why: str) -> UnsafePathError:
    return UnsafePathError(
        f"path {path[:200]!r} is refused: {why}",
        hint="rename the file to a short relative name of letters, digits, '.', '_' and '-'",
    )
