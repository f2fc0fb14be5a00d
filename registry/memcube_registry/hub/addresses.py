"""The addresses of the Hub's API, read from the raw path.

```
/api/whoami-v2
/api/{models,datasets}/NAMESPACE/NAME[/revision/REVISION | /tree/REVISION[/PATH] | /refs]
/api/{models,datasets}/NAMESPACE/NAME/paths-info/REVISION
[/datasets]/NAMESPACE/NAME/resolve/REVISION/PATH
```

Revisions and paths may hold percent-encoded characters. They are decoded here, once, component by
component; what would be read in two ways is refused. A revision with a slash, as Git's branches have,
is just none of ours.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

from memcube_protocol import limits
from memcube_protocol.errors import InvalidRequestError, NotFoundError
from memcube_protocol.reference import is_name

PATH_CHARS: Final = 4 * limits.PATH_BYTES
_API: Final = re.compile(r"/api/(?:whoami-v2/?$|(?:models|datasets|spaces)(?:/|$))")
_FILE: Final = re.compile(r"(?:/(?:datasets|spaces))?/[^/]+/[^/]+/resolve(?:/|$)")
_TYPES: Final = frozenset({"models", "datasets"})
_FOLLOWED_BY_REVISION: Final = frozenset({"revision", "tree", "paths-info"})
_RAW: Final = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})+")
_NEEDLESS: Final = re.compile(r"%(?:2[dDeE]|3[0-9]|[46][1-9a-fA-F]|[57][0-9aA]|5[fF]|7[eE])")
"""Characters that need no encoding: written so, they would be a second spelling of the same path."""


@dataclass(frozen=True, slots=True)
class Address:
    """What a path asks for: `kind` of answer, about which repository, revision and path in it."""

    kind: str
    repository: str = ""
    revision: str = ""
    path: str = ""


def is_ours(raw_path: bytes) -> bool:
    """Whether a path belongs to this API, well written or not."""
    path = raw_path.decode("latin-1")
    return _API.match(path) is not None or _FILE.match(path) is not None


def parse(raw_path: bytes) -> Address:
    """The address that a raw path is.

    Raises:
        InvalidRequestError: it is not written in the one way: an empty component, `.` or `..`, a slash or
            control character in disguise, an encoded character that needs none.
        NotFoundError: this API has no such path, or it names no repository that could be.
    """
    path = raw_path.decode("latin-1")
    if len(path) > PATH_CHARS:
        raise _odd("it is too long")
    parts = path[1:].split("/")
    if parts[0] != "api":
        return _file_address(parts)
    if parts[1:] == ["whoami-v2"]:
        return Address("whoami")
    if parts[1] not in _TYPES or len(parts) < 4:
        raise _nowhere()
    return _api_address(_repository(parts[2:4]), parts[4:])


def _api_address(repository: str, rest: list[str]) -> Address:
    if not rest:
        return Address("info", repository)
    kind, *rest = rest
    if kind == "refs" and not rest:
        return Address("refs", repository)
    if kind not in _FOLLOWED_BY_REVISION or not rest or (len(rest) > 1 and kind != "tree"):
        raise _nowhere()
    kind = "info" if kind == "revision" else kind
    return Address(kind, repository, _decoded(rest[0]), _folder(rest[1:]))


def _file_address(parts: list[str]) -> Address:
    """A file: both types of repository lead to the same cube."""
    if parts[0] == "datasets" and len(parts) > 5 and parts[3] == "resolve":
        parts = parts[1:]
    if len(parts) < 5 or parts[2] != "resolve":
        raise _nowhere()
    return Address("file", _repository(parts[:2]), _decoded(parts[3]), _path(parts[4:]))


def _repository(parts: list[str]) -> str:
    name = "/".join(parts)
    if not is_name(name):
        if not all(_RAW.fullmatch(part) for part in parts) or "%" in name:
            raise _odd("a repository's name holds no such characters")
        raise _nowhere()
    return name


def _folder(parts: list[str]) -> str:
    """A folder to list. The Hub's library encodes its slashes as well."""
    return _path([part for encoded in parts for part in re.split("%2[Ff]", encoded)])


def _path(parts: list[str]) -> str:
    components = [_decoded(part) for part in parts]
    if any("/" in component or "\\" in component for component in components):
        raise _odd("a component holds a slash")
    return "/".join(components)


def _decoded(part: str) -> str:
    if not _RAW.fullmatch(part) or _NEEDLESS.search(part):
        raise _odd("a component is empty, or not encoded as RFC 3986 normalises it")
    try:
        text = unquote_to_bytes(part).decode("utf-8")
    except UnicodeDecodeError:
        raise _odd("a component is not UTF-8") from None
    if text in (".", "..") or any(ord(c) < 0x20 or ord(c) == 0x7F for c in text):
        raise _odd("a component is . or .., or holds a control character")
    return text


def _odd(why: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"the path is not in canonical form: {why}",
        hint="send each component percent-encoded once, and only where it must be",
    )


def _nowhere() -> NotFoundError:
    return NotFoundError(
        "this API has no such address",
        hint="cubes are read by namespace/name, see docs/spec/hub.md",
    )
