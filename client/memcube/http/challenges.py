"""`WWW-Authenticate`, read strictly (RFC 9110, 11.6.1): a list of schemes with their parameters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from memcube_protocol.errors import NetworkError
from memcube_protocol.values import frozen

_TOKEN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED: Final = r'"(?:[\t !#-\[\]-~]|\\[\t -~])*"'
_SPACE: Final = r"[ \t]*"
_PARAMETER: Final = re.compile(rf"({_TOKEN}){_SPACE}={_SPACE}({_TOKEN}|{_QUOTED})")
_SCHEME: Final = re.compile(rf"({_TOKEN})(?:[ \t]+|(?=,)|$)")
_TOKEN68: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*(?=[ \t]*(?:,|$))")
_COMMA: Final = re.compile(rf"{_SPACE}(?:,{_SPACE})+")
_HEADER_CHARS: Final = 8 * 1024


@frozen
class Challenge:
    """One way to authenticate: a scheme in lower case and its parameters, names in lower case."""

    scheme: str
    parameters: Mapping[str, str]


def parse_challenges(header: str) -> list[Challenge]:
    """The challenges of a `WWW-Authenticate` header.

    Raises:
        NetworkError: the header is malformed, too long, or gives a parameter twice.
    """
    if len(header) > _HEADER_CHARS:
        raise _malformed(header)
    at, challenges = 0, []
    while at < len(header):
        scheme = _SCHEME.match(header, at)
        if scheme is None:
            raise _malformed(header)
        at, parameters = _parameters(header, scheme.end())
        challenges.append(Challenge(scheme[1].lower(), parameters))
    return challenges


def _parameters(header: str, at: int) -> tuple[int, dict[str, str]]:
    """Parameters from `at` on, and where the next challenge begins."""
    parameters: dict[str, str] = {}
    if not _PARAMETER.match(header, at) and (blob := _TOKEN68.match(header, at)):
        return _skip_comma(header, blob.end()), parameters
    while parameter := _PARAMETER.match(header, at):
        name, value = parameter[1].lower(), parameter[2]
        if name in parameters:
            raise _malformed(header)
        parameters[name] = re.sub(r"\\(.)", r"\1", value[1:-1]) if value[0] == '"' else value
        at = parameter.end()
        at = _skip_comma(header, at)
    return (_skip_comma(header, at) if not parameters else at), parameters


def _skip_comma(header: str, at: int) -> int:
    """Where the next element begins: after a comma, or at the end."""
    if not header[at:].strip(" \t"):
        return len(header)
    comma = _COMMA.match(header, at)
    if comma is None:
        raise _malformed(header)
    return comma.end()


def _malformed(header: str) -> NetworkError:
    return NetworkError(
        f"the registry asks for a login in a form that is not understood: {header[:100]!r}",
        hint="the registry is set up wrongly: ask its operator",
    )
